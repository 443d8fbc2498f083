"""measure, boards and bundle from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from depthbench.suites.cli.measuring import parse_cores
from depthbench.suites.running.exclusion import MACHINE, held


def depthbench(*arguments: str, cwd: Path, boards: str | None = None) -> subprocess.CompletedProcess[str]:
    file = cwd / "boards.yaml"
    if boards is not None:
        file.write_text(boards)
    return subprocess.run(
        [sys.executable, "-c", "from depthbench.suites.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=180,
        env={**os.environ, "DEPTHBENCH_BOARDS": str(file)},
    )


def test_cores() -> None:
    assert parse_cores("0") == (0,)
    assert parse_cores("3,0-1") == (0, 1, 3)
    for wrong in ("", "a", "2-1", "1,,2", "-1"):
        with pytest.raises(ValueError, match="is no core or range of cores"):
            parse_cores(wrong)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("measure tst-t --affinity x", "--affinity x: 'x' is no core or range of cores (for example 0,2-3)"),
        ("measure tst-t --affinity 4000", "core 4000 is not here (usable: "),
        ("measure tst-t --runtime tflite", "unknown runtime 'tflite'"),
        (
            "measure tst-t --target jetson --threads 2",
            "--threads and --affinity are for a CPU, not for jetson",
        ),
        ("measure tst-t --target jetson --runtime torch", "--runtime is for a CPU or a GPU, not for jetson"),
        ("measure tst-t --target jetson --batch 4", "--batch is for a CPU or a GPU, not for jetson"),
        ("measure tst-t --batch 1,x", "--batch 1,x: not batch sizes from 1 to 256, for example 1,4,8"),
        ("measure tst-t --target jetson", "target jetson is not available: this machine is not a Jetson"),
        ("measure tst-t --target desktop-cuda", "target desktop-cuda is not available: "),
        ("boards check nano", "unknown board 'nano' (choices: "),
        ("bundle make run --board jetson-nano -o b.tar.gz", "run: no run here (there is no run.json)"),
        ("bundle make run --board nix -o b.tar.gz", "unknown board 'nix'"),
        ("bundle merge run result", "result: no such file"),
    ],
)
def test_bad_input(
    command: str,
    fault: str,
    tmp_path: Path,
    refused: Callable[[str, Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEPTHBENCH_BOARDS", str(tmp_path / "boards.yaml"))
    [line] = refused(command, tmp_path)
    assert fault in line


def test_a_faulty_file_of_boards_is_named(tmp_path: Path) -> None:
    done = depthbench("boards", "list", cwd=tmp_path, boards="'$(x)': {host: a, board: jetson-nano}")
    assert done.returncode == 2
    assert "boards.yaml:1: $(x): '$(x)' is not a board's name" in done.stderr


def test_boards(tmp_path: Path) -> None:
    text = "mine: {host: 127.0.0.1, port: 1, board: jetson-nano}"
    done = depthbench("boards", "list", "--json", cwd=tmp_path, boards=text)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["boards"]
    assert (row["name"], row["host"], row["power_mode"]) == ("mine", "127.0.0.1", None)
    done = depthbench("boards", "check", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    [row] = json.loads(done.stdout)["boards"]
    assert (row["usable"], row["reason"]) == (False, "connection refused")
    done = depthbench("measure", "tst-t", "--target", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "target mine is not available: connection refused" in done.stderr


@pytest.mark.parametrize(
    ("holder", "said"),
    [(MACHINE, "waiting for a measurement on this machine"), (None, "waiting for other work on this machine")],
    ids=["measurement", "work"],
)
def test_it_waits_for_others_on_this_machine(
    holder: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTHBENCH_LOCKS", str(tmp_path / "locks"))
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,3,32,32] rgb) => (float[1,3,32,32] d) { d = Relu(rgb) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    code = (
        "from depthbench.suites.cli import main\n"
        "from depthbench.suites.targets import desktop_cpu, engine\n"
        "desktop_cpu.PROFILES['quick'] = engine.MeasureProfile(0.1, 20, 0.02, 0.02, 10)\n"
        "main()\n"
    )
    with held(holder):
        process = subprocess.Popen(
            [sys.executable, "-c", code, "measure", "net.onnx", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        assert process.stderr is not None
        line = ""
        while not line.startswith("waiting"):
            line = process.stderr.readline()
            assert line, process.communicate()
        assert line == f"{said}: 0%\n"
        assert process.poll() is None
    output, messages = process.communicate(timeout=180)
    assert process.returncode == 0, messages
    assert json.loads(output)["n"] >= 20
