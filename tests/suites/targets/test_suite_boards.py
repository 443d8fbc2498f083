"""A run of a suite on a board that stands in the suite: a real sshd, a stand-in board, records and report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depthbench.reports.load import load_run
from depthbench.suites.cli.app import invoke
from depthbench.suites.plan import Job, make_plan
from depthbench.suites.results import read_json
from depthbench.suites.runner import Outcome, Request, artefact_spec, describe_data, run
from depthbench.suites.schema import load_suite
from depthbench.suites.source import DataSource
from depthbench.suites.stages import artefact
from depthbench.suites.targets import board_steps, desktop_cpu, desktop_cuda
from depthbench.suites.targets.board_steps import BoardProfile
from depthbench.suites.targets.engine import MeasureProfile

SUITE = """
name: lab
data: {name: folder}
measure: {batches: [1, 2]}
boards: {lab-nano: BOARD}
matrix:
  - {models: [a.onnx, unknown.onnx], recipes: [fp16], sizes: [32x32], targets: [lab-nano]}
  - {models: [a.onnx], recipes: [fp32], sizes: [32x32], targets: [desktop-cpu, desktop-cuda]}
"""


@pytest.fixture
def folder(server: Any, board: Any, networks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite's folder with its networks, of which the stand-in board does not know one, and images."""
    monkeypatch.setitem(board_steps.PROFILES, "quick", BoardProfile(rounds=1, seconds=1, frames=2, idle_s=1, builds=1))
    tiny = MeasureProfile(seconds=0.1, samples=20, block_s=0.02, warmup_s=0.02, warmup_runs=10)
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", tiny)
    monkeypatch.setattr(desktop_cuda, "DRIVERS", (tmp_path / "no-driver",))
    monkeypatch.setenv("DEPTHBENCH_BOARDS", str(tmp_path / "no-boards.yaml"))
    place = tmp_path / "suite"
    (place / "images" / "rgb").mkdir(parents=True)
    (place / "images" / "depth").mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(place / "images" / "rgb" / f"{i}.png")
        Image.fromarray(rng.integers(500, 8000, (48, 64), dtype=np.uint16)).save(
            place / "images" / "depth" / f"{i}.png"
        )
    shutil.copyfile(networks[0], place / "a.onnx")
    shutil.copyfile(networks[1], place / "unknown.onnx")
    write(place, server.entry)
    jobs, source = planned(place)
    board.knows(artefact(artefact_spec(jobs[0], source, "")).path)
    return place


def write(place: Path, entry: Any) -> None:
    board = entry.model_dump(exclude={"build_limit_s", "step_limit_s", "workspace_mb", "engine_builds"})
    (place / "suite.yaml").write_text(SUITE.replace("BOARD", json.dumps(board)))


def planned(place: Path) -> tuple[list[Job], DataSource]:
    """The cells of the suite, that of the network which the board knows first, and where its images come from."""
    suite, base = load_suite(str(place / "suite.yaml"))
    data, source, _ = describe_data(suite, place / "images")
    return make_plan(suite, data, base=base), source


def go(place: Path) -> Outcome:
    suite, base = load_suite(str(place / "suite.yaml"))
    return run(Request(suite, place / "run", base, place / "images"), lambda *_: None)


def test_a_run(folder: Path, server: Any, board: Any) -> None:
    outcome = go(folder)
    records = {(record.model, record.target): record for record in outcome.records}
    measured, unknown = records["a", "lab-nano"], records["unknown", "lab-nano"]
    assert measured.latency is not None, measured.reason
    assert measured.latency.details["commands"]["build-0"].split()[-3] == "--fp16"
    assert measured.environment["board"] == "jetson-nano"
    assert board.read("calls").count("nvpmodel -m 0") == 2  # what failed was tried a second time
    assert (unknown.status, unknown.reason) == ("failed", "the board sent no output back for this cell")
    assert board.is_as_before()
    cuda = records["a", "desktop-cuda"]
    assert (cuda.status, cuda.reason) == ("skipped", "no CUDA device: there is no NVIDIA driver here")

    wanted = [{"batch": batch, "reason": "batch sizes are measured on a CPU or a GPU"} for batch in (1, 2)]
    assert measured.latency.details["throughput"] == wanted
    here = records["a", "desktop-cpu"].latency
    assert here is not None
    assert [rate["batch"] for rate in here.details["throughput"]] == [1, 2]
    assert all(len(rate["samples_ms"]) >= 20 for rate in here.details["throughput"])

    manifest = (folder / "run" / "run.json").read_text("utf-8")
    assert str(server.entry.key) not in manifest
    assert read_json(folder / "run" / "run.json")["suite"]["boards"]["lab-nano"]["board"] == "jetson-nano"
    cells = load_run(folder / "run").cells.set_index(["model", "target"])
    assert cells.loc[("a", "lab-nano"), "latency_kind"] == "measured"
    assert cells.loc[("unknown", "lab-nano"), "reason"] == unknown.reason

    before = {job.target.name: job.id for job in planned(folder)[0]}
    write(folder, server.entry.model_copy(update={"power_mode": 1, "step_limit_s": 9}))
    after = {job.target.name: job.id for job in planned(folder)[0]}
    assert [name for name in before if before[name] != after[name]] == ["lab-nano"]  # another mode is another latency


def test_a_board_whose_host_key_is_wrong_is_skipped(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sshd" / "known").write_text("")
    statuses = {(record.model, record.target): record for record in go(folder).records}
    why = "its host key is not known here; connect once with ssh and check it"
    for model in ("a", "unknown"):
        assert (statuses[model, "lab-nano"].status, statuses[model, "lab-nano"].reason) == ("skipped", why)
    assert statuses["a", "desktop-cpu"].status == "ok"


def test_the_command_checks_them(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert invoke(["boards", "list", "--suite", "suite.yaml", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["boards"]
    assert (row["name"], row["board"], row["lock_clocks"]) == ("lab-nano", "jetson-nano", True)
    assert invoke(["boards", "check", "lab-nano", "--suite", "suite.yaml", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["boards"]
    assert (row["usable"], row["tensorrt"]) == (True, "8201")
    assert invoke(["boards", "check", "lab-nan", "--suite", "suite.yaml"]) == 2
    assert "unknown board 'lab-nan'; did you mean lab-nano?" in capsys.readouterr().err
