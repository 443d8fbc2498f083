"""A whole run, for real and small: compress, export, quantize, evaluate, measure, predict; stopped, continued, repeated."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthbench.suites import stages
from depthbench.suites.merging import merge
from depthbench.suites.results import Record, RunFolder, write_json
from depthbench.suites.runner import Outcome, Request, run
from depthbench.suites.running import measured, stage_calls
from depthbench.suites.schema import Suite, parse_suite
from depthbench.suites.targets import Target, desktop_cpu
from depthbench.suites.targets.board_results import Outcome as Timing
from depthbench.suites.targets.desktop_cpu import MeasureProfile
from depthbench.suites.targets.measuring import Work
from tests.suites.conftest import write_net

HERE = Path(__file__).parent
TINY = MeasureProfile(seconds=0.05, samples=10, block_s=0.01, warmup_s=0.01, warmup_runs=10)

MATRIX = """
name: tiny
data: {{name: folder}}
matrix:
  - models: [{models}]
    recipes: [fp32, int8, fp16, int8-trt]
    sizes: [64x64]
    targets: [desktop-cpu, jetson-nano, jetson-orin-nano-super, jetson]
"""


class Small(nn.Module):
    """A depth network of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return 10 * self.last(self.first(rgb).relu()).sigmoid()


def small() -> nn.Module:
    return Small()


def broken() -> nn.Module:
    return nn.Conv2d(4, 1, 3)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "rgb").mkdir(parents=True)
    (root / "depth").mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(root / "rgb" / f"{i}.png")
        Image.fromarray(rng.integers(500, 8000, (48, 64), dtype=np.uint16)).save(root / "depth" / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    monkeypatch.syspath_prepend(str(HERE))


def suite(*models: str) -> Suite:
    return parse_suite(MATRIX.format(models=", ".join(models)), "tiny.yaml", HERE)


def go(out: Path, images: Path, *models: str, only: tuple[str, ...] = (), workers: int = 1) -> Outcome:
    return run(Request(suite(*models), out, HERE, images, only, workers), lambda *_: None)


def by_cell(records: list[Record]) -> dict[tuple[str, str, str], Record]:
    return {(record.model, record.recipe, record.target): record for record in records}


def test_a_run(tmp_path: Path, images: Path) -> None:
    name = "test_runner:small"
    outcome = go(tmp_path / "run", images, name)
    cells = by_cell(outcome.records)
    assert len(cells) == 16
    assert outcome.computed == 16
    assert {record.status for record in outcome.records} == {"ok", "skipped"}
    assert all(record.reason for record in outcome.records if record.status == "skipped")

    measured = cells[name, "fp32", "desktop-cpu"]
    assert measured.latency is not None
    assert measured.latency.kind == "measured"
    assert len(measured.latency.samples_ms) >= 10
    assert measured.latency.threads == 1
    assert measured.environment["cpu"]
    assert measured.profile["gmacs"]["onnx"] == pytest.approx(64 * 64 * 9 * (3 * 8 + 8) / 1e9)

    quantized = cells[name, "int8", "desktop-cpu"]
    assert [link.stage for link in quantized.lineage] == ["weights", "onnx", "int8"]
    assert quantized.lineage[-1].options["calibration"]
    assert quantized.precision == "int8"

    predicted = cells[name, "int8-trt", "jetson-orin-nano-super"]
    assert predicted.latency is not None
    assert predicted.latency.kind == "predicted"
    assert predicted.latency.interval_ms is not None
    assert predicted.latency.interval_ms[0] < predicted.latency.latency_ms < predicted.latency.interval_ms[1]
    assert cells[name, "int8-trt", "jetson-nano"].reason is not None
    assert "no fast INT8" in cells[name, "int8-trt", "jetson-nano"].reason
    for record in outcome.records:
        if record.status == "ok":
            assert record.evaluation is not None
            assert outcome.folder.evaluation_path(record.evaluation).is_file()
            assert outcome.folder.samples_path(record.evaluation).is_file()


def test_a_second_run_recomputes_nothing(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = go(tmp_path / "run", images, "test_runner:small")
    for module, stage in ((stage_calls, "artefact"), (stage_calls, "evaluations"), (measured, "measure_group")):
        monkeypatch.setattr(module, stage, None)  # a call would fail
    second = go(tmp_path / "run", images, "test_runner:small")
    assert second.computed == 0
    assert second.records == first.records


def test_a_stopped_run_goes_on(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measured, "measure_group", stop)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "run", images, "test_runner:small")
    kept = {record.id for record in RunFolder(tmp_path / "run").records()}
    assert kept
    builds: list[object] = []
    monkeypatch.setattr(stages, "_build_artefact", lambda *arguments: builds.append(arguments))
    outcome = go(tmp_path / "run", images, "test_runner:small")
    assert builds == []
    assert outcome.computed == 16 - len(kept)


def test_a_model_that_fails_is_recorded_and_the_run_goes_on(tmp_path: Path, images: Path) -> None:
    only = ("*/fp32/*/desktop-cpu",)
    outcome = go(tmp_path / "run", images, "test_runner:broken", "test_runner:small", only=only)
    cells = by_cell(outcome.records)
    failed = cells["test_runner:broken", "fp32", "desktop-cpu"]
    assert failed.status == "failed"
    assert failed.reason is not None
    assert failed.reason.startswith("artefacts: ")
    assert cells["test_runner:small", "fp32", "desktop-cpu"].status == "ok"
    again = go(tmp_path / "run", images, "test_runner:broken", "test_runner:small", only=only)
    assert again.computed == 1  # what failed is tried again


def test_an_onnx_file_is_a_model(tmp_path: Path, images: Path) -> None:
    from depthbench.suites.export import export_onnx

    export_onnx(small(), tmp_path / "mine.onnx", (64, 64))
    own = parse_suite(MATRIX.format(models="mine.onnx"), "tiny.yaml", tmp_path)
    outcome = run(Request(own, tmp_path / "run", tmp_path, images, ("*/desktop-cpu",)), lambda *_: None)
    cells = by_cell(outcome.records)
    assert cells["mine", "fp32", "desktop-cpu"].status == "ok"
    assert cells["mine", "int8", "desktop-cpu"].status == "ok"


def test_a_size_that_an_onnx_file_does_not_take_is_skipped(tmp_path: Path, images: Path) -> None:
    write_net(tmp_path / "mine.onnx", 64)
    text = MATRIX.format(models="mine.onnx").replace("64x64", "64x64, 96x64")
    own = parse_suite(text, "tiny.yaml", tmp_path)
    outcome = run(Request(own, tmp_path / "run", tmp_path, images, ("*/fp32/*/desktop-cpu",)), lambda *_: None)
    assert {record.size: (record.status, record.reason) for record in outcome.records} == {
        (64, 64): ("ok", None),
        (96, 64): ("skipped", "mine.onnx takes 64x64 alone"),
    }


def test_workers_give_the_same_records(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ("*/fp32/*/desktop-cpu", "*/int8/*/desktop-cpu")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    alone = go(tmp_path / "one", images, "test_runner:small", only=only)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "other-cache"))
    shared = go(tmp_path / "two", images, "test_runner:small", only=only, workers=2)
    for one, two in zip(alone.records, shared.records, strict=True):
        assert (one.id, one.status, one.lineage, one.profile) == (two.id, two.status, two.lineage, two.profile)
        assert one.evaluation == two.evaluation


def test_another_suites_folder_is_refused(tmp_path: Path, images: Path) -> None:
    go(tmp_path / "run", images, "test_runner:small", only=("*/fp32/*/jetson",))
    other = suite("test_runner:small").model_copy(update={"name": "other"})
    with pytest.raises(ValueError, match=r"holds a run of suite tiny, not of other; choose another folder$"):
        run(Request(other, tmp_path / "run"), lambda *_: None)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: not a folder$"):
        run(Request(suite("tst-t"), tmp_path / "file"), lambda *_: None)
    with pytest.raises(ValueError, match=r"below: cannot be written \(Not a directory\)$"):
        run(Request(suite("tst-t"), tmp_path / "file" / "below"), lambda *_: None)


def test_several_data_sets_share_files_and_measurements(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nyu = tmp_path / "data" / "nyu_labeled" / "test"
    nyu.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((480, 640, 3), 50 * i, np.uint8)).save(nyu / f"{i:05d}.jpg")
        Image.fromarray(np.full((480, 640), 2000 + i, np.uint16)).save(nyu / f"{i:05d}.png")
    monkeypatch.setenv("DEPTHBENCH_DATA", str(tmp_path / "data"))
    text = MATRIX.format(models="test_runner:small").replace("int8, fp16, int8-trt", "fp16")
    text = text.replace("    recipes:", "    data: [folder, nyu-labeled]\n    recipes:")
    text = text.replace(", jetson-orin-nano-super, jetson]", "]")
    groups: list[int] = []
    real = measured.measure_group

    def counted(target: Target, work: Sequence[Work], *words: Any, **options: Any) -> list[Timing]:
        groups.append(len(work))
        return real(target, work, *words, **options)

    monkeypatch.setattr(measured, "measure_group", counted)
    request = Request(parse_suite(text, "tiny.yaml", HERE), tmp_path / "run", HERE, images)
    records = run(request, lambda *_: None).records
    ok = {(record.dataset, record.recipe): record for record in records if record.status == "ok"}
    assert sorted(ok) == [("folder", "fp16"), ("folder", "fp32"), ("nyu-labeled", "fp16"), ("nyu-labeled", "fp32")]
    assert groups == [1]
    one, other = ok["folder", "fp32"], ok["nyu-labeled", "fp32"]
    assert (one.lineage, one.latency, one.timings) == (other.lineage, other.latency, other.timings)
    assert one.evaluation != other.evaluation
    assert one.protocol != other.protocol


def test_a_cell_done_elsewhere_stays_when_it_cannot_run_here(tmp_path: Path, images: Path) -> None:
    only = ("*/fp16/*/jetson/folder", "*/fp32/*/desktop-cpu")
    one = go(tmp_path / "one", images, "test_runner:small", only=only)
    measured, skipped = sorted(one.records, key=lambda record: record.target)
    assert (measured.status, skipped.status) == ("ok", "skipped")
    there = replace(measured, id="there", recipe="fp16", target="jetson", target_kind="board", precision="fp16")
    assert there.lineage[0].stage == "weights"
    two = RunFolder(tmp_path / "two")
    shutil.copytree(one.folder.root, two.root)
    two.write_record(there)
    write_json(two.manifest, two.read_manifest() | {"cells": ["there"]})
    both = merge([one.folder.root, two.root], tmp_path / "both").folder
    assert sorted(both.read_manifest()["cells"]) == sorted([measured.id, "there"])

    for _ in range(2):
        outcome = go(both.root, images, "test_runner:small", only=only)
        assert outcome.computed == 0
        assert sorted(outcome.records, key=lambda record: record.target) == [measured, there]
        assert sorted(both.read_manifest()["cells"]) == sorted([measured.id, "there"])
    assert [one["run"] for one in both.read_manifest()["merged"]] == ["one", "two"]

    other = [replace(there.lineage[0], digest="of other weights"), *there.lineage[1:]]
    both.write_record(replace(there, lineage=other))
    outcome = go(both.root, images, "test_runner:small", only=only)
    assert [record.id for record in outcome.records if record.target == "jetson"] == [skipped.id]
    assert sorted(both.read_manifest()["cells"]) == sorted([measured.id, skipped.id])
