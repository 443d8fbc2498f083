"""A bundle: made from a run, run with nothing but sh and the board's stand-in commands, joined back into the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.cli.app import invoke
from depthbench.suites.models import file_sha256
from depthbench.suites.results import Latency, Lineage, Record, RunFolder, write_json
from depthbench.suites.storage.store import Store
from depthbench.suites.targets.board_steps import BoardCell, BoardProfile
from depthbench.suites.targets.bundle import RESULT, make, merge
from depthbench.suites.targets.jetson import measure

LAB = """
name: lab
data: {name: rooms}
boards:
  lab-nano: {host: 192.0.2.7, board: jetson-nano, power_mode: 1, lock_clocks: true, engine_builds: 2}
matrix: [{models: [tst-t], recipes: [fp16], sizes: [224x224], targets: [lab-nano]}]
"""
TINY = BoardProfile(rounds=1, seconds=1, frames=2, idle_s=1, builds=1)


@pytest.fixture
def run(tmp_path: Path, networks: list[Path]) -> Path:
    """A run with two cells for boards, whose files lie in the cache."""
    folder = RunFolder(tmp_path / "run")
    records = []
    for i, path in enumerate(networks):
        sha = file_sha256(path)

        def build(place: Path, path: Path = path, sha: str = sha) -> dict[str, Any]:
            (place / "model.onnx").write_bytes(path.read_bytes())
            return {"sha256": sha}

        Store("artefacts").make(f"{sha[:18]}{i}x", build)
        records.append(
            Record(
                id=f"cell{i}",
                status="ok",
                model=f"net-{i}",
                family="file",
                recipe="fp16",
                size=(32, 32),
                target="jetson-nano",
                target_kind="board",
                dataset="rooms",
                protocol="native",
                precision="fp16",
                latency=Latency("predicted", latency_ms=5.0, interval_ms=(4.0, 6.0)),
                lineage=[Lineage("fp16", sha)],
            )
        )
    for record in records:
        folder.write_record(record)
    write_json(folder.manifest, {"cells": [record.id for record in records]})
    return folder.root


def unpacked(archive: Path, place: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    [folder] = place.iterdir()
    return folder


def on_the_board(folder: Path, board: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "run.sh"], cwd=folder, env=board.environment, capture_output=True, check=False, timeout=120
    )


def test_the_same_records_as_over_ssh(run: Path, board: Any, server: Any, networks: list[Path], tmp_path: Path) -> None:
    made = make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY)
    assert (made.target, made.cells, made.left_out) == ("jetson-nano-measured", 2, [])
    folder = unpacked(made.path, tmp_path / "there")
    done = on_the_board(folder, board)
    assert done.returncode == 0, done.stderr
    assert b"done: send back result.depthbench" in done.stderr
    assert not board.lock.exists()

    joined = merge(run, folder / RESULT)
    assert [record.model for record in joined] == ["net-0", "net-1"]
    stored = list(RunFolder(run).records())
    assert [record.target for record in stored] == ["jetson-nano"] * 2 + ["jetson-nano-measured"] * 2
    assert merge(run, folder / RESULT)[0].id == joined[0].id
    assert len(list(RunFolder(run).records())) == 4

    over_ssh = measure([BoardCell(path, "fp16") for path in networks], server.entry, TINY)
    for record, outcome in zip(joined, over_ssh, strict=True):
        assert record.latency is not None
        assert outcome.latency is not None
        here, there = asdict(record.latency), asdict(outcome.latency)
        assert here["samples_ms"] == there["samples_ms"]
        assert here["details"].keys() == there["details"].keys()
        for name in ("commands", "blocks", "clock", "output_deviation", "frames_checked", "energy_mj"):
            assert here["details"][name] == there["details"][name]
        assert record.environment.keys() == outcome.environment.keys()
        assert record.environment["board"] == outcome.environment["board"] == "jetson-nano"
        assert record.environment["board_facts"].keys() == outcome.environment["board_facts"].keys()


def test_a_board_of_a_suite(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "lab.yaml"
    suite.write_text(LAB)
    words = ["bundle", "make", str(run), "--board", "lab-nano", "-o", str(tmp_path / "b.tar.gz"), "--json"]
    assert invoke(words) == 2
    assert "unknown board 'lab-nano'" in capsys.readouterr().err
    assert invoke([*words, "--suite", str(suite)]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "lab-nano"
    plan = (unpacked(tmp_path / "b.tar.gz", tmp_path / "there") / "plan").read_text().splitlines()
    assert plan[0] == f"run {RESULT} 1 lock lab-nano jetson-nano"
    assert sum(line.startswith("build ") for line in plan) == 4  # two files, two engines of each


def test_a_disk_that_is_full_while_building(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    board.fault("disk")
    assert on_the_board(folder, board).returncode == 0
    assert list(folder.glob("*.engine")) == []  # half of one would fill the disk for what follows
    for record in merge(run, folder / RESULT):
        assert record.reason is not None
        assert record.reason.startswith("build: trtexec failed (code 1): Error writing engine: No space left on device")


def test_another_board_than_the_bundle_is_for(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    board.become("orin")
    assert on_the_board(folder, board).returncode == 0
    why = "this board is not a jetson-nano: its device tree says NVIDIA Jetson Orin Nano Developer Kit"
    assert [(record.latency, record.reason) for record in merge(run, folder / RESULT)] == [(None, why)] * 2


def test_interrupted_on_the_board_it_goes_on(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    board.fault("time-wait")
    first = subprocess.Popen(["sh", "run.sh"], cwd=folder, env=board.environment, stderr=subprocess.DEVNULL)
    board.wait_for("reached-time")
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=30)
    assert not board.lock.exists()
    assert not (folder / RESULT).exists()
    board.fault("")
    builds = [call for call in board.calls if "--onnx=" in call]
    assert len(builds) == 2
    assert on_the_board(folder, board).returncode == 0
    assert [call for call in board.calls if "--onnx=" in call] == builds
    assert [record.status for record in merge(run, folder / RESULT)] == ["ok", "ok"]


def test_killed_on_the_board_it_goes_on(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    board.fault("time-wait")
    first = subprocess.Popen(
        ["sh", "run.sh"], cwd=folder, env=board.environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    board.wait_for("reached-time")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert board.lock.exists()
    board.fault("")
    assert on_the_board(folder, board).returncode == 0
    assert not board.lock.exists()
    assert [record.status for record in merge(run, folder / RESULT)] == ["ok", "ok"]


def test_a_failure_on_the_board_is_a_failed_record(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    board.fault("operator")
    assert on_the_board(folder, board).returncode == 0
    for record in merge(run, folder / RESULT):
        assert record.status == "failed"
        assert record.reason is not None
        assert "While parsing node number 7 [GridSample" in record.reason


def test_another_file_is_refused(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    onnx = min(folder.glob("*.onnx"))
    onnx.write_bytes(onnx.read_bytes() + b"\x12\x01x")
    assert on_the_board(folder, board).returncode == 0
    with pytest.raises(ValueError, match=r"the board measured another file \(its ONNX digest does not match\)$"):
        merge(run, folder / RESULT)
    assert len(list(RunFolder(run).records())) == 2


def test_faults_of_a_result(run: Path, board: Any, tmp_path: Path) -> None:
    folder = unpacked(make(run, "jetson-nano", tmp_path / "b.tar.gz", TINY).path, tmp_path / "there")
    assert on_the_board(folder, board).returncode == 0
    whole = (folder / RESULT).read_bytes()
    short = tmp_path / "short"
    short.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"short: the board's result is cut short or damaged$"):
        merge(run, short)
    with pytest.raises(ValueError, match=r"nix: no such file$"):
        merge(run, tmp_path / "nix")
    other = RunFolder(tmp_path / "other")
    record = next(RunFolder(run).records())
    other.write_record(replace(record, lineage=[Lineage("fp16", "0" * 64)]))
    write_json(other.manifest, {"cells": [record.id]})
    with pytest.raises(ValueError, match=r"the bundle was made from another run$"):
        merge(other.root, folder / RESULT)


def test_a_run_without_cells_for_boards(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"cells": []})
    with pytest.raises(ValueError, match=r"no cell of this run can be measured on jetson-nano$"):
        make(tmp_path, "jetson-nano", tmp_path / "b.tar.gz", TINY)
    with pytest.raises(ValueError, match="unknown board 'jetson-nan'; did you mean jetson-nano"):
        make(tmp_path, "jetson-nan", tmp_path / "b.tar.gz", TINY)
