"""Hosts that are not who they were, and names that a shell would obey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.targets.jetson import probe, unavailable
from depthbench.suites.targets.transport import BoardError
from tests.suites.targets.conftest import convolution


def test_a_wrong_host_key(on_board: Any, server: Any, board: Any, networks: list[Path], tmp_path: Path) -> None:
    known = tmp_path / "sshd" / "known"
    other = (tmp_path / "sshd" / "user.pub").read_text()
    known.write_text(f"[127.0.0.1]:{server.entry.port} {other}")
    words = "its host key is not the one that is known: somebody else may answer for it"
    assert unavailable(server.entry) == words
    [one] = on_board(networks[:1], server.entry)
    assert one.reason == words
    assert board.is_as_before()
    known.write_text("")
    assert unavailable(server.entry) == "its host key is not known here; connect once with ssh and check it"


def test_a_board_that_is_not_there(on_board: Any, server: Any, networks: list[Path]) -> None:
    server.process.kill()
    server.process.wait()
    assert unavailable(server.entry) == "connection refused"
    [one] = on_board(networks[:1], server.entry)
    assert one.reason == "connection refused"
    assert unavailable(server.entry.model_copy(update={"host": "no-such-board.invalid"})) == "no such host"


def test_a_hostile_file_name_reaches_no_shell(on_board: Any, server: Any, board: Any, tmp_path: Path) -> None:
    names = ["; touch pwned", "$(touch pwned)", "`touch pwned`", "a b", "a\nb", "-oProxyCommand=x"]
    hostile = [convolution(tmp_path / f"{name}.onnx", 0.1 * i) for i, name in enumerate(names, 1)]
    board.knows(*hostile)
    outcomes = on_board(hostile, server.entry)
    assert [one.reason for one in outcomes] == [None] * len(names)
    assert not list(board.folder.rglob("pwned*"))
    assert not (Path.home() / "pwned").exists()


def test_a_hostile_input_name_is_refused(on_board: Any, server: Any, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "hostile.onnx"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,32,32] rgb) => (float[1,3,32,32] depth) { depth = Relu(rgb) }'
    )
    model.graph.input[0].name = model.graph.node[0].input[0] = "x;touch pwned"
    onnx.save(model, path)
    [one] = on_board([path], server.entry)
    assert one.reason == "hostile.onnx: trtexec cannot be given the input name 'x;touch pwned'; use letters and digits"


def test_a_refused_key(server: Any, tmp_path: Path) -> None:
    (tmp_path / "sshd" / "authorized").write_text("")
    with pytest.raises(BoardError, match=r"^it refuses the key$"):
        probe(server.entry)
