from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from depthbench.reports.load import COLUMNS, Run, load_run
from depthbench.suites.results import Record, RunFolder, read_json, write_json

MakeRun = Callable[..., Path]


def cell(run: Run, name: str) -> pd.Series:
    found = run.cells[run.cells["id"] == name]
    assert len(found) == 1
    return found.iloc[0]


def test_one_row_per_cell_with_exactly_the_documented_columns(run: Run) -> None:
    assert list(run.cells.columns) == list(COLUMNS)
    assert len(run.cells) == len(run.records) == len(run.manifest["cells"])
    assert list(run.cells["id"]) == run.manifest["cells"]


def test_measured_cell(run: Run) -> None:
    row = cell(run, "tst-s.fp32.224x224.cpu")
    assert (row["latency_kind"], row["n_latency"], row["threads"]) == ("measured", 101, 1)
    assert row["latency_ms"] == pytest.approx(6.0)
    assert row["fps"] == pytest.approx(1000 / 6)
    assert row["latency_lo_ms"] < 6.0 < row["latency_hi_ms"]
    assert row["latency_hi_ms"] - row["latency_lo_ms"] < 0.1
    samples = next(r.latency.samples_ms for r in run.records if r.id == row["id"] and r.latency)
    assert row["iqr_ms"] == pytest.approx(np.percentile(samples, 75) - np.percentile(samples, 25))
    assert row["p90_ms"] == pytest.approx(np.percentile(samples, 90))
    assert np.isnan(row["p99_ms"])
    assert row["gmacs"] == row["gmacs_onnx"] == pytest.approx(0.24)
    assert (row["gmacs_spread"], row["gmacs_verdict"], row["params_applied_m"]) == (0.002, "agree", 1.15 * 3)
    assert (row["n_nodes"], row["n_quantized_nodes"], row["peak_activation_mb"]) == (80, 0, 3.2)


def test_predicted_cell(run: Run) -> None:
    row = cell(run, "tst-s.fp16.224x224.jetson-nano")
    assert (row["latency_kind"], row["n_latency"], row["bound"]) == ("predicted", 0, "memory")
    assert row["latency_ms"] == pytest.approx(13.2)
    assert (row["latency_lo_ms"], row["latency_hi_ms"]) == pytest.approx((9.24, 17.16))
    assert np.isnan(row["iqr_ms"])


def test_accuracy_is_the_mean_over_images_with_its_interval(run: Run) -> None:
    row = cell(run, "tst-b.fp32.224x224.cpu")
    assert row["n_images"] == 40
    assert row["rmse_m"] == pytest.approx(0.5)
    assert row["delta1"] == pytest.approx(0.8)
    values = read_json(run.folder.evaluation_path("tst-b-fp32-224-fp32"))["metrics"]["rmse_m"]
    half = 1.96 * np.std(values) / np.sqrt(40)
    assert (row["rmse_lo_m"], row["rmse_hi_m"]) == pytest.approx((0.5 - half, 0.5 + half), abs=half / 10)


def test_speedup_is_over_the_uncompressed_form_of_the_same_target(run: Run) -> None:
    on_cpu = cell(run, "tst-s.prune30.224x224.cpu")
    assert on_cpu["parent_recipe"] == "fp32"
    assert on_cpu["speedup"] == pytest.approx(1.25)
    assert 1.2 < on_cpu["speedup_lo"] < 1.25 < on_cpu["speedup_hi"] < 1.3
    on_board = cell(run, "tst-s.int8-trt.224x224.jetson-xavier-nx")
    assert on_board["parent_recipe"] == "fp16"
    assert on_board["speedup"] == pytest.approx(1 / 0.6)
    assert np.isnan(on_board["speedup_lo"])
    parent = cell(run, "tst-s.fp32.224x224.cpu")
    assert parent["parent_recipe"] == ""
    assert np.isnan(parent["speedup"])


def test_rmse_change_is_paired_per_image(run: Run) -> None:
    row = cell(run, "tst-s.int8.224x224.cpu")
    assert row["rmse_change_m"] == pytest.approx(0.55 * 0.04)
    paired = row["rmse_change_hi_m"] - row["rmse_change_lo_m"]
    assert 0 < paired < (row["rmse_hi_m"] - row["rmse_lo_m"]) / 3


def test_slower_than_the_parent_is_flagged(run: Run) -> None:
    row = cell(run, "mobilevit-xxs.int8.224x224.cpu")
    assert row["speedup"] == pytest.approx(0.8)
    assert row["flags"] == "slower than parent"
    slower = run.cells["flags"].str.contains("slower")
    assert (slower == (run.cells["speedup"] < 1)).all()


def test_slower_within_noise_says_so(make_run: MakeRun) -> None:
    def edit(record: Record) -> Record:
        if record.recipe != "int8" or record.latency is None:
            return record
        samples = np.random.default_rng(5).normal(6.0, 0.2, 101)
        samples += 6.01 - np.median(samples)
        return replace(record, latency=replace(record.latency, samples_ms=samples.tolist(), flags=["clock dropped"]))

    run = load_run(make_run(lambda r: edit(r) if r.model == "tst-s" and r.target == "cpu" else None))
    row = cell(run, "tst-s.int8.224x224.cpu")
    assert row["speedup"] < 1 < row["speedup_hi"]
    assert row["flags"] == "clock dropped; slower than parent (within noise)"


def test_skipped_cell_has_its_reason_and_no_numbers(run: Run) -> None:
    row = cell(run, "tst-t.int8-trt.224x224.jetson-nano")
    assert (row["status"], row["reason"]) == ("skipped", "jetson-nano has no fast INT8")
    assert row[["latency_ms", "rmse_m", "gmacs", "speedup"]].isna().all()


def test_missing_pieces_leave_gaps_not_errors(make_run: MakeRun) -> None:
    root = make_run(lambda record: record if record.model == "tst-t" and record.target == "cpu" else None)
    folder = RunFolder(root)
    folder.evaluation_path("tst-t-int8-224-int8").unlink()
    path = folder.evaluation_path("tst-t-fp32-224-fp32")
    evaluation = read_json(path)
    del evaluation["metrics"]["silog"]
    evaluation["metrics"]["rmse_m"][0] = None
    write_json(path, evaluation)
    run = load_run(root)
    assert run.missing_evaluations == ("tst-t-int8-224-int8",)
    assert "accuracy file missing" in cell(run, "tst-t.int8.224x224.cpu")["flags"]
    row = cell(run, "tst-t.fp32.224x224.cpu")
    assert np.isnan(row["silog"])
    assert row["n_images"] == 39
    change = cell(run, "tst-t.prune30.224x224.cpu")["rmse_change_m"]
    theirs = read_json(folder.evaluation_path("tst-t-prune30-224-fp32"))["metrics"]["rmse_m"][1:]
    assert change == pytest.approx(np.mean(theirs) - row["rmse_m"])


def test_cells_not_run_yet_are_pending(make_run: MakeRun) -> None:
    root = make_run()
    RunFolder(root).record_path("tst-t.fp32.224x224.cpu").unlink()
    run = load_run(root)
    assert run.pending == ("tst-t.fp32.224x224.cpu",)
    assert set(run.cells["id"]) == set(run.manifest["cells"]) - {"tst-t.fp32.224x224.cpu"}


def test_no_run_and_a_broken_file_are_named(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match=r"^\S*/nowhere: no run here \(there is no run.json\)$"):
        load_run(tmp_path / "nowhere")
    root = make_run()
    path = RunFolder(root).evaluation_path("tst-t-fp32-224-fp32")
    path.write_text(json.dumps({"n": 3})[:-2])
    with pytest.raises(ValueError, match=r"evaluations/tst-t-fp32-224-fp32\.json: not valid JSON"):
        load_run(root)


def test_reading_loads_nothing_heavy() -> None:
    code = (
        "import sys, depthbench.reports.load, depthbench.reports.report, depthbench.reports.summary\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'seaborn', 'papermill', 'nbconvert', 'IPython', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
