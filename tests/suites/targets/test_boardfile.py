"""The user's boards: names, values, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthbench.suites.targets import TARGETS
from depthbench.suites.targets.boardfile import boards_path, load_boards

GOOD = "my-nano: {host: 10.0.0.7, board: jetson-nano, power_mode: 0, lock_clocks: true}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEPTHBENCH_BOARDS", str(tmp_path / "boards.yaml"))
    return tmp_path / "boards.yaml"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEPTHBENCH_BOARDS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert boards_path() == tmp_path / "depthbench" / "boards.yaml"
    assert load_boards() == {}


def test_a_board_is_a_target(file: Path) -> None:
    assert "my-nano" not in TARGETS
    file.write_text(GOOD)
    target = TARGETS["my-nano"]
    assert (target.kind, target.how, target.opset) == ("board", "measured", 13)
    assert target.summary == "Jetson Nano (TensorRT 8.2) at 10.0.0.7"
    assert "int8-trt" in target.refuses
    assert list(TARGETS)[-1] == "my-nano"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("my-nano: {board: jetson-nano}", "my-nano.host: this key is required"),
        (
            "my-nano: {host: a, board: jetson-nan}",
            "my-nano.board: unknown board 'jetson-nan'; did you mean jetson-nano?",
        ),
        ("my-nano: {host: a, board: jetson-nano, prt: 1}", "my-nano.prt: unknown key 'prt'; did you mean port?"),
        ("'; rm -rf /': {host: a, board: jetson-nano}", "'; rm -rf /' is not a board's name"),
        ('"a\\nb": {host: a, board: jetson-nano}', "is not a board's name"),
        ("$(x): {host: a, board: jetson-nano}", "'$(x)' is not a board's name"),
        ("m: {host: '-oProxyCommand=x', board: jetson-nano}", "m.host: String should match pattern"),
        ("m: {host: 'a b', board: jetson-nano}", "m.host: String should match pattern"),
        ("m: {host: a, user: '$(x)', board: jetson-nano}", "m.user: String should match pattern"),
        ("m: {host: a, folder: 'a; rm -rf b', board: jetson-nano}", "m.folder: String should match pattern"),
        ("m: {host: a, power_mode: '0; reboot', board: jetson-nano}", "m.power_mode: Input should be a valid integer"),
        ("jetson-nano: {host: a, board: jetson-nano}", "jetson-nano: this is the name of a target already"),
        ("- a", "not a mapping of names to boards"),
        ("a: [", "not valid YAML"),
    ],
)
def test_faults(text: str, fault: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=r"boards\.yaml: ") as caught:
        load_boards()
    assert fault in str(caught.value)
