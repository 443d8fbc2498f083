from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthbench.reports.compare import compare_runs, comparison_json
from depthbench.reports.load import load_run
from depthbench.suites.results import Record, RunFolder, read_json, write_json

MakeRun = Callable[..., Path]


def on_cpu(record: Record) -> Record | None:
    return record if record.target == "cpu" and record.model in {"tst-t", "tst-s"} else None


def slower(record: Record, factor: float) -> Record:
    assert record.latency is not None
    samples = [sample * factor for sample in record.latency.samples_ms]
    return replace(record, latency=replace(record.latency, samples_ms=samples))


def test_a_run_is_the_same_as_itself(make_run: MakeRun) -> None:
    run = load_run(make_run(on_cpu, "a"))
    comparison = compare_runs(run, run)
    assert comparison.environment == ()
    assert len(comparison.cells) == 8
    assert len(comparison.changed) == len(comparison.appeared) == len(comparison.vanished) == 0


def test_what_changed_appeared_and_vanished(make_run: MakeRun) -> None:
    def edit(record: Record) -> Record | None:
        if on_cpu(record) is None or record.id == "tst-t.int8.224x224.cpu":
            return None
        if record.id == "tst-t.fp32.224x224.cpu":
            return slower(record, 1.2)
        if record.id == "tst-s.fp32.224x224.cpu":
            return slower(record, 1.02)  # less than two runs may drift
        if record.id == "tst-s.int8.224x224.cpu":
            return replace(record, profile=record.profile | {"size_mb": 9.0})
        if record.id == "tst-s.prune30.224x224.cpu":
            return replace(record, status="failed", reason="no", latency=None, evaluation=None)
        return replace(record, recipe="fp16") if record.id == "tst-t.prune30-int8.224x224.cpu" else record

    a, b = load_run(make_run(on_cpu, "a")), load_run(make_run(edit, "b"))
    comparison = compare_runs(a, b)
    verdicts = {f"{row.model} {row.recipe}": row.verdict for row in comparison.cells.itertuples()}
    assert verdicts["tst-t fp32"] == "slower"
    assert verdicts["tst-s fp32"] == "same"
    assert verdicts["tst-s int8"] == "other file"
    assert verdicts["tst-s prune30"] == "ok → failed"
    row = comparison.cells[comparison.cells["verdict"] == "slower"].iloc[0]
    assert row["ratio"] == pytest.approx(1.2)
    assert 1.19 < row["ratio_lo"] < 1.2 < row["ratio_hi"] < 1.21
    assert comparison.vanished[["model", "recipe"]].to_numpy().tolist() == [
        ["tst-t", "int8"],
        ["tst-t", "prune30-int8"],
    ]
    assert comparison.appeared[["model", "recipe"]].to_numpy().tolist() == [["tst-t", "fp16"]]
    json.dumps(comparison_json(comparison), allow_nan=False)


def test_accuracy_is_paired_by_image(make_run: MakeRun) -> None:
    a, b = (make_run(on_cpu, name) for name in "ab")
    path = RunFolder(b).evaluation_path("tst-t-fp32-224-fp32")
    evaluation = read_json(path)
    evaluation["metrics"]["rmse_m"] = (np.array(evaluation["metrics"]["rmse_m"]) + 0.01).tolist()
    write_json(path, evaluation)
    row = compare_runs(load_run(a), load_run(b)).changed.iloc[0]
    assert (row["verdict"], row["images"]) == ("less accurate", 40)
    assert row["change_m"] == pytest.approx(0.01)
    assert row["change_hi_m"] - row["change_lo_m"] < 1e-6


def test_environments_that_differ_are_named(make_run: MakeRun) -> None:
    a, b = (make_run(on_cpu, name) for name in "ab")
    manifest = read_json(RunFolder(b).manifest)
    manifest["libraries"]["onnxruntime"] = "9.9"
    manifest["dataset"]["digest"] = "1" * 16
    write_json(RunFolder(b).manifest, manifest)
    found = {name: pair for name, *pair in compare_runs(load_run(a), load_run(b)).environment}
    assert found["dataset.digest"] == ["0" * 16, "1" * 16]
    assert found["onnxruntime"] == ["1.31.0", "9.9"]


def test_measured_against_predicted_has_no_ratio(make_run: MakeRun) -> None:
    def predicted(record: Record) -> Record | None:
        if record.target != "jetson-tx2" or record.model != "tst-t" or record.recipe != "fp16":
            return None
        return replace(record, target="cpu", recipe="fp32")

    a, b = load_run(make_run(on_cpu, "a")), load_run(make_run(predicted, "b"))
    row = compare_runs(a, b).cells.iloc[0]
    assert row["latency_kind"] == "measured → predicted"
    assert np.isnan(row["ratio"])
