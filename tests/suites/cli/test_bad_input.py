"""Bad input: one line that names the fault on stderr, code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[[str, Path], list[str]]
SUITE = "name: mine\nmatrix:\n  - {models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data" / "nyu_labeled").mkdir(parents=True)
    monkeypatch.setenv("DEPTHBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "mine.yaml").write_text(SUITE)
    (tmp_path / "misspelt.yaml").write_text(SUITE.replace("tst-t", "tst-q"))
    (tmp_path / "key.yaml").write_text(SUITE.replace("recipes", "recipe"))
    (tmp_path / "type.yaml").write_text(SUITE.replace("[fp32]", "7"))
    (tmp_path / "size.yaml").write_text(SUITE.replace("recipes", "sizes: [200x200], recipes"))
    (tmp_path / "half.yaml").write_text(SUITE.replace("tst-t", "truncated.onnx"))
    (tmp_path / "truncated.onnx").write_bytes(b"\x08\x08\x12\x07pytorch\x1a")
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "file").write_text("")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "run.json").write_text('{"cells": [], "schema_version": 1}')
    return tmp_path


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("run nix.yaml --out run", "nix.yaml: no such suite file"),
        ("run jetsn --out run", "unknown suite 'jetsn'; did you mean jetson?"),
        (
            "run misspelt.yaml --out run",
            "misspelt.yaml:3: matrix[0].models[0]: unknown model 'tst-q'; did you mean tst-",
        ),
        ("run type.yaml --out run", "type.yaml:3: matrix[0].recipes: Input should be a valid list (got 7)"),
        ("run size.yaml --out run", "size.yaml:3: matrix[0].sizes[0]: size 200x200 is not usable"),
        ("run mine.yaml --out file", "file: not a folder"),
        ("run mine.yaml --out /proc/depthbench", "/proc/depthbench: cannot be written"),
        ("run mine.yaml --out run --data nix", "unknown data set 'nix'"),
        ("run mine.yaml --out run --only nix", "--only nix: no cell of suite mine matches"),
        ("run mine.yaml --out run --profile fast", "unknown profile 'fast'"),
        ("run mine.yaml", "Missing option '--out'"),
        ("plan", "Missing argument"),
        ("eval tst-x", "unknown model 'tst-x'; did you mean tst-"),
        ("eval truncated.onnx --limit 1", "truncated.onnx: not an ONNX file, or a truncated one"),
        ("eval tst-t --protocol nix", "unknown protocol 'nix'"),
        ("eval tst-t --weights nix.safetensors", "nix.safetensors: no such weights file"),
        ("eval tst-t --data folder", "folder: say where the images are (--data-root)"),
        ("explain tst-t truncated.onnx", "truncated.onnx: not an ONNX file, or a truncated one"),
        ("predict truncated.onnx --board jetson-nano", "truncated.onnx: not an ONNX file, or a truncated one"),
        ("measure truncated.onnx", "truncated.onnx: not an ONNX file, or a truncated one"),
        ("plan half.yaml", "half.yaml:3: matrix[0].models[0]: truncated.onnx: not an ONNX file, or a truncated one"),
        ("profile text.onnx", "text.onnx: not an ONNX file, or a truncated one"),
        ("profile nix.onnx", "nix.onnx: no such ONNX file"),
        ("profile tst-s --size 225x224", "size 225x224 is not usable: height and width must be multiples of 32"),
        ("profile tst-s --recipe prune", "unknown recipe 'prune'"),
        ("profile nix.module:build", "model 'nix.module:build': no module named nix.module"),
        ("measure tst-s --target nix", "unknown target 'nix'"),
        ("measure tst-s --target jetson-nano", "jetson-nano is a predicted board: use depthbench predict"),
        ("predict tst-s --board jetson-nan", "unknown board 'jetson-nan'; did you mean jetson-nano?"),
        ("predict tst-s --board jetson-nano --precision int8", "jetson-nano has no fast INT8"),
        ("train tst-s --out run --set lr", "--set lr: not of the form KEY=VALUE"),
        ("train tst-s --out run --set learning_rate=1", "learning_rate: unknown key"),
        ("train tst-s --out file", "file: not a folder"),
        ("train tst-s --out /proc/depthbench", "/proc/depthbench: cannot be written (No such file or directory)"),
        ("train tst-s --out run --data-root nyu-labeled=nix", "nix"),
        ("report made --out /proc/depthbench", "/proc/depthbench: cannot be written (No such file or directory)"),
        ("report made --out file", "file: not a folder"),
        ("schema -o /proc/depthbench.json", "/proc/depthbench.json: cannot be written (No such file or directory)"),
        ("schema -o made", "made: is a folder, not a file"),
        ("measure tst-t -o /proc/depthbench.json", "/proc/depthbench.json: cannot be written"),
        ("report run", "run: no run here (there is no run.json)"),
        ("nix", "No such command 'nix'"),
    ],
)
def test_bad_input(command: str, fault: str, files: Path, refused: Refused) -> None:
    [line] = refused(command, files)
    assert fault in line


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("run misspelt.yaml --out run", "misspelt.yaml:3: matrix[0].models[0]: unknown model 'tst-q'"),
        ("eval truncated.onnx --limit 1", "truncated.onnx: not an ONNX file, or a truncated one"),
        ("train tst-s --out /proc/depthbench", "/proc/depthbench: cannot be written (No such file or directory)"),
    ],
)
def test_the_process_ends_with_its_code_and_prints_nothing_else(command: str, fault: str, files: Path) -> None:
    code = "from depthbench.suites.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=files,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    [line] = done.stderr.splitlines()
    assert fault in line


def test_two_faults_are_two_lines(files: Path, refused: Refused) -> None:
    lines = refused("run key.yaml --out run", files)
    assert [line.removeprefix("depthbench: ").split(": ")[:2] for line in lines] == [
        ["key.yaml:3", f"matrix[0].{key}"] for key in ("recipe", "recipes")
    ]
    assert "matrix[0].recipe: unknown key 'recipe'; did you mean recipes?" in lines[0]
    assert not (files / "run").exists()
