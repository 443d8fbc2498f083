"""The ``boards`` and ``measure.batches`` of a suite: read like the user's file of boards, merged, refused with a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depthbench.suites.cells import Lookups
from depthbench.suites.plan import Data, Job, make_plan
from depthbench.suites.schema import Suite, load_suite, parse_suite

BOARD = "{host: 127.0.0.1, port: 1, board: jetson-nano, key: ~/.ssh/lab, known_hosts: /lab/known, power_mode: 0}"
SUITE = f"""name: mine
boards:
  lab-nano: {BOARD}
matrix:
  - {{models: [tst-t], recipes: [fp16], targets: [lab-nano, desktop-cpu]}}
"""
DATA = Data("rooms", "test", 16, "native", "rooms")


@pytest.fixture(autouse=True)
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file of boards, which is not there yet."""
    file = tmp_path / "users-boards.yaml"
    monkeypatch.setenv("DEPTHBENCH_BOARDS", str(file))
    return file


def read(text: str = SUITE) -> Suite:
    return parse_suite(text, "mine.yaml")


def refused(text: str) -> list[str]:
    with pytest.raises(ValueError, match=r"^mine\.yaml:\d+: ") as caught:
        read(text)
    return str(caught.value).splitlines()


def test_a_board_of_a_suite_is_a_target_of_it() -> None:
    suite = read()
    assert suite.boards["lab-nano"].host == "127.0.0.1"
    target = Lookups(suite, None, {}).target("lab-nano")
    assert (target.kind, target.how, target.opset, target.of_suite) == ("board", "measured", 13, True)
    assert target.summary == "Jetson Nano (TensorRT 8.2) at 127.0.0.1"
    assert target.board == suite.boards["lab-nano"]
    assert "int8-trt" in target.refuses


def test_one_that_does_not_answer_is_a_named_skip() -> None:
    [board, _] = make_plan(read(), DATA)
    assert board.target.name == "lab-nano"
    assert board.skip == "connection refused"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[lab-nano,", "[lab-nan,", "5: matrix[0].targets[0]: unknown target 'lab-nan'; did you mean lab-nano?"),
        ("host: 127.0.0.1, ", "", "3: boards.lab-nano.host: this key is required"),
        ("port: 1", "prt: 1", "3: boards.lab-nano.prt: unknown key 'prt'; did you mean port?"),
        (
            "port: 1",
            "password: x",
            "3: boards.lab-nano.password: unknown key 'password'; did you mean port? (choices: board, ",
        ),
        ("port: 1", "port: '22'", "3: boards.lab-nano.port: Input should be a valid integer (got '22')"),
        (
            "jetson-nano,",
            "jetson-nan,",
            "3: boards.lab-nano.board: unknown board 'jetson-nan'; did you mean jetson-nano?",
        ),
        ("127.0.0.1", "-oProxyCommand=x", "3: boards.lab-nano.host: String should match pattern"),
        ("127.0.0.1", "'a; rm -rf /'", "3: boards.lab-nano.host: String should match pattern"),
        ("127.0.0.1", '"a\\nb"', "3: boards.lab-nano.host: String should match pattern"),
        ("port: 1", "user: $(x)", "3: boards.lab-nano.user: String should match pattern"),
        ("port: 1", "folder: a b", "3: boards.lab-nano.folder: String should match pattern"),
        ("port: 1", "folder: '`x`'", "3: boards.lab-nano.folder: String should match pattern"),
        ("~/.ssh/lab", "lab", "3: boards.lab-nano.key: String should match pattern"),
        ("power_mode: 0", "power_mode: 0; reboot", "3: boards.lab-nano.power_mode: Input should be a valid integer"),
        ("  lab-nano:", "  jetson-nano:", "3: boards.jetson-nano: this is the name of a target already"),
        ("  lab-nano:", "  ; rm -rf /:", "3: boards.'; rm -rf /': '; rm -rf /' is not a board's name (small letters, "),
        ("  lab-nano:", "  $(touch pwned):", "is not a board's name"),
        ("  lab-nano:", '  "a\\nb":', "is not a board's name"),
        ("  lab-nano:", "  ../lab:", "3: boards.../lab: '../lab' is not a board's name"),
        ("boards:\n  lab-nano: " + BOARD, "boards: [a]", "2: boards: a mapping is expected (got ['a'])"),
        (BOARD, "null", "3: boards.lab-nano: a mapping is expected, such as {host: "),
    ],
)
def test_faults(old: str, new: str, line: str) -> None:
    text = SUITE.replace(old, new, 1)
    assert text != SUITE
    lines = refused(text)
    assert any(line in one for one in lines), lines
    assert all("\n" not in one and "secret" not in one for one in lines)


def test_a_name_that_the_user_has_too_is_refused(users: Path) -> None:
    users.write_text("lab-nano: {host: other, board: jetson-tx2}\n")
    [line] = refused(SUITE)
    assert line == (
        f"mine.yaml:3: boards.lab-nano: {users} has a target of this name too; give the suite's own another name"
    )
    users.write_text("other: {host: other, board: jetson-tx2}\n")
    both = read(SUITE.replace("desktop-cpu", "other"))
    assert [Lookups(both, None, {}).target(name).of_suite for name in ("lab-nano", "other")] == [True, False]


def test_boards_are_merged_like_other_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOST", "10.0.0.9")
    monkeypatch.setenv("LAB_PORT", "2222")
    (tmp_path / "base.yaml").write_text(SUITE)
    (tmp_path / "mine.yaml").write_text(
        "name: more\nextends: base.yaml\nenv: [LAB_HOST, LAB_PORT]\n"
        'boards:\n  lab-nano: {host: "${LAB_HOST}", port: "${LAB_PORT}"}\n  lab-tx2: {host: b, board: jetson-tx2}\n'
    )
    boards = load_suite(str(tmp_path / "mine.yaml"))[0].boards
    assert list(boards) == ["lab-nano", "lab-tx2"]
    assert (boards["lab-nano"].host, boards["lab-nano"].port, boards["lab-nano"].power_mode) == ("10.0.0.9", 2222, 0)
    monkeypatch.setenv("LAB_HOST", "a; rm -rf /")
    with pytest.raises(ValueError, match=r"mine\.yaml:5: boards\.lab-nano\.host: String should match pattern"):
        load_suite(str(tmp_path / "mine.yaml"))


def test_what_a_run_says_of_its_suite_names_no_file_of_this_machine() -> None:
    said = json.dumps(read().model_dump(mode="json"))
    assert ".ssh" not in said
    assert "/lab/known" not in said
    assert json.loads(said)["boards"]["lab-nano"]["power_mode"] == 0


def plan(text: str) -> list[Job]:
    return make_plan(read(text), DATA)


def test_batches() -> None:
    text = SUITE.replace("boards:", "measure: {batches: [1, 8]}\nboards:")
    assert read(text).measure.batches == (1, 8)
    for wrong, fault in (
        ("[0]", "batches[0]: Input should be greater than or equal to 1 (got 0)"),
        ("[257]", "batches[0]: Input should be less than or equal to 256 (got 257)"),
        ("[4, 4]", "batches: a batch size is given twice in 4, 4"),
        ("8", "batches: Input should be a valid list (got 8)"),
        ("[a]", "batches[0]: Input should be a valid integer"),
    ):
        assert any(f"mine.yaml:2: measure.{fault}" in line for line in refused(text.replace("[1, 8]", wrong))), wrong
