"""The user's boards: names, values, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthbench.suites.targets import JETSONS, TARGETS
from depthbench.suites.targets.boardfile import boards_path, load_boards
from depthbench.suites.targets.predicted import BOARDS

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
        (
            "m: {host: a, board: jetson-nano, password: secret}",
            "m.password: unknown key 'password'; did you mean port?",
        ),
        ("m: {host: a, board: jetson-nano, key: id_rsa}", "m.key: String should match pattern"),
        ("m: {host: a, board: jetson-nano, key: '~/a\" -oProxyCommand=x'}", "m.key: String should match pattern"),
        ("m: {host: a, board: jetson-nano, known_hosts: '/a /b'}", "m.known_hosts: String should match pattern"),
        ("m: {host: a, board: jetson-nano}\nm: {host: b, board: jetson-nano}", "m: this key stands in line 1 already"),
        ("m: !!python/object:os.system {}", "m: "),
        ("7: {host: a, board: jetson-nano}", "the key '7' is not a word; put it in quotes if it is meant so"),
        ("m:", "m: a mapping is expected, such as {host: 192.168.1.17, board: jetson-nano} (got None)"),
        ("- a", "not a mapping of names to boards"),
        ("a: [", "not valid YAML"),
    ],
)
def test_faults(text: str, fault: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=r"boards\.yaml:\d+: ") as caught:
        load_boards()
    assert fault in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_fault_with_its_line(file: Path) -> None:
    file.write_text("# mine\n$(x):\n  host: a b\n  board: jetson-nano\nm:\n  hots: a\n  board: jetson-nano\n")
    with pytest.raises(ValueError, match="boards") as caught:
        load_boards()
    lines = [line.removeprefix(f"{file}:") for line in str(caught.value).splitlines()]
    assert [line.split(": ")[:2] for line in lines] == [
        ["2", "$(x)"],
        ["3", "$(x).host"],
        ["5", "m.host"],
        ["6", "m.hots"],
    ]


def test_a_file_of_comments_has_no_boards(file: Path) -> None:
    file.write_text("# none yet\n\n")
    assert load_boards() == {}


def test_every_predicted_board_can_be_somebodys() -> None:
    assert set(JETSONS) == set(BOARDS)
