"""Runs of two machines as one: which record counts, what comes along, and that no contradiction is settled silently."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from depthbench.reports.load import load_run
from depthbench.suites.cli.app import invoke
from depthbench.suites.merging import merge
from depthbench.suites.results import SCHEMA_VERSION, Latency, Record, RunFolder, Timings, write_atomic, write_json

RECORD = Record(
    id="m-fp32-cpu",
    status="ok",
    model="tst-t",
    family="tst",
    recipe="fp32",
    size=(64, 64),
    target="desktop-cpu",
    target_kind="cpu",
    dataset="rooms",
    protocol="native",
    precision="fp32",
    latency=Latency("measured", samples_ms=[1.0, 1.1, 1.2], threads=1),
    evaluation="e1",
    environment={"cpu": "processor A"},
    finished="2026-01-01T00:00:00+00:00",
    timings=Timings(10.0, 12.0, "a", 1),
)
ON_GPU = replace(
    RECORD, id="m-fp32-cuda", target="desktop-cuda", target_kind="cuda", environment={"cpu": "processor B"}
)
NO_GPU = replace(
    ON_GPU, id="m-fp32-cuda-not", status="skipped", reason="no GPU", latency=None, evaluation=None, timings=None
)
PREDICTED = replace(
    RECORD,
    id="m-fp32-nano",
    target="jetson-nano",
    latency=Latency("predicted", latency_ms=9.0, interval_ms=(7.0, 11.0)),
    timings=None,
    environment={},
)
METRICS = {"rmse_m": [0.5, None, 0.7], "delta1": [0.9, None, 0.8]}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(name: str, *records: Record, planned: tuple[str, ...] = (), metrics: Any = None, **manifest: Any) -> Path:
        folder = RunFolder(tmp_path / name)
        for record in records:
            folder.write_record(record)
            if record.evaluation:
                value = {"images": ["0", "1", "2"], "metrics": metrics or METRICS}
                write_json(folder.evaluation_path(record.evaluation), value)
                write_atomic(folder.samples_path(record.evaluation), f"pictures of {name}".encode())
        value = {
            "schema_version": 2,
            "suite": {"name": "tiny", "summary": ""},
            "dataset": {"name": "rooms"},
            "cells": [record.id for record in records] + list(planned),
            "libraries": {"onnxruntime": "1.23"},
            "environment": {"cpu": f"processor of {name}"},
            "started": "2026-01-01T00:00:00+00:00",
        }
        write_json(folder.manifest, value | manifest)
        return folder.root

    return run


def test_what_one_machine_lacks_the_other_brings(write: Write, tmp_path: Path) -> None:
    one = write("one", NO_GPU, RECORD, PREDICTED, planned=("still-to-do",))
    two = write("two", ON_GPU, replace(PREDICTED, finished="2026-02-02T00:00:00+00:00"))
    merged = merge([one, two], tmp_path / "both")
    assert merged.conflicts == ()
    assert dict(merged.counts) == {"ok": 3, "failed": 0, "skipped": 0}
    manifest = merged.folder.read_manifest()
    assert manifest["cells"] == ["m-fp32-cuda", "m-fp32-cpu", "m-fp32-nano", "still-to-do"]
    assert [(one["run"], one["cells"]) for one in manifest["merged"]] == [("one", 2), ("two", 1)]
    assert list(merged.folder.records()) == [ON_GPU, RECORD, PREDICTED]
    assert merged.folder.samples_path("e1").read_text() == "pictures of one"
    assert merged.notes == ()
    run = load_run(tmp_path / "both")
    assert list(run.cells["rmse_m"].round(6)) == [0.6] * 3
    assert run.pending == ("still-to-do",)
    assert run.missing_evaluations == ()


@pytest.mark.parametrize("order", [1, -1])
def test_ok_beats_failed_beats_skipped(write: Write, tmp_path: Path, order: int) -> None:
    failed = replace(RECORD, status="failed", reason="RuntimeError: no", latency=None, evaluation=None)
    skipped = replace(failed, id="other", status="skipped", reason="not here")
    runs = [write("ok", RECORD), write("failed", failed), write("skipped", skipped)][::order]
    assert list(merge(runs, tmp_path / "all").folder.records()) == [RECORD]
    without = merge([run for run in runs if run.name != "ok"], tmp_path / "two")
    assert list(without.folder.records()) == [failed]
    assert dict(without.counts) == {"ok": 0, "failed": 1, "skipped": 0}


def test_conflicts_are_named_and_nothing_is_written(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = replace(RECORD, latency=Latency("measured", samples_ms=[2.0, 2.1, 2.2], threads=1))
    one = write("one", RECORD, PREDICTED, ON_GPU)
    two = write(
        "two",
        again,
        replace(PREDICTED, id="m-fp32-nano-later"),
        replace(ON_GPU, profile={"params_m": 1.0}),
        libraries={"onnxruntime": "1.24"},
        metrics=METRICS | {"rmse_m": [0.5, None, 0.9]},
    )
    assert invoke(["merge", str(one), str(two), "--out", str(tmp_path / "both")]) == 2
    said = capsys.readouterr().err.replace(str(tmp_path), "")
    assert said.splitlines() == [
        "depthbench: conflict: tst-t/fp32/64x64/desktop-cpu: /one and /two differ: latency (each measured it)",
        "conflict: tst-t/fp32/64x64/jetson-nano: /one and /two differ: onnxruntime 1.23 and 1.24",
        "conflict: tst-t/fp32/64x64/desktop-cuda: /one and /two differ: profile",
        "conflict: tst-t/fp32/64x64/desktop-cpu: /one and /two differ: accuracy (rmse_m)",
        "nothing was merged: name the run whose word counts with --prefer",
    ]
    assert not (tmp_path / "both").exists()

    arguments = ["merge", str(one), str(two), "--out", str(tmp_path / "both"), "--prefer", str(two), "--json"]
    assert invoke(arguments) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["cells"], value["ok"], len(value["conflicts"])) == (3, 3, 4)
    cells = {record.id: record for record in RunFolder(tmp_path / "both").records()}
    assert list(cells) == ["m-fp32-cpu", "m-fp32-nano-later", "m-fp32-cuda"]
    assert cells["m-fp32-cpu"] == again
    assert (tmp_path / "both" / "samples" / "e1.npz").read_text() == "pictures of two"


def test_what_processors_round_differently_is_no_conflict(write: Write, tmp_path: Path) -> None:
    one = write("one", RECORD)
    two = write("two", replace(RECORD, finished="later"), metrics=METRICS | {"rmse_m": [0.5000001, None, 0.7]})
    assert merge([one, two], tmp_path / "both").conflicts == ()


def test_latencies_of_different_machines_are_noted(write: Write, tmp_path: Path) -> None:
    other = replace(
        RECORD, id="n", model="other", environment={"cpu": "processor B"}, timings=replace(RECORD.timings, host="b")
    )
    merged = merge(
        [write("one", RECORD), write("two", other, suite={"name": "tiny", "summary": "2"})], tmp_path / "both"
    )
    assert merged.notes == (
        f"the runs' suites are not written alike; the merged run keeps that of {tmp_path / 'one'}",
        "desktop-cpu was measured on different machines, whose latencies do not compare: processor A of a (1 cells), "
        "processor B of b (1 cells)",
    )


def test_records_of_the_first_version_merge(write: Write, tmp_path: Path) -> None:
    old = RECORD.to_json() | {"schema_version": 1}
    del old["timings"], old["explanation"], old["left_out"]
    one, two = write("one", RECORD, schema_version=1), write("two", ON_GPU)
    write_json(one / "records" / "m-fp32-cpu.json", old)
    merged = merge([one, two], tmp_path / "both")
    assert [record.schema_version for record in merged.folder.records()] == [1, SCHEMA_VERSION]
    assert merged.folder.read_manifest()["schema_version"] == SCHEMA_VERSION


def test_an_interrupted_merge_can_be_repeated(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = write("one", RECORD), write("two", ON_GPU)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("depthbench.suites.merging.write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            merge([one, two], tmp_path / "both")
    with pytest.raises(ValueError, match="no run here"):
        load_run(tmp_path / "both")
    assert dict(merge([one, two], tmp_path / "both").counts)["ok"] == 2


def test_refusals(write: Write, tmp_path: Path) -> None:
    one, two, other = write("one", RECORD), write("two", ON_GPU), write("other", ON_GPU, suite={"name": "big"})
    out = tmp_path / "both"
    file = tmp_path / "file"
    file.write_text("")
    cases: list[tuple[list[Path], Path, Path | None, str]] = [
        ([one], out, None, "merge: give at least two different runs"),
        ([one, one], out, None, "merge: give at least two different runs"),
        ([one, two, one], out, None, "merge: a run is given twice"),
        ([one, other], out, None, f"{one} is of suite tiny; {other} is of suite big: not one suite"),
        ([one, tmp_path / "none"], out, None, f"{tmp_path / 'none'}: no run here (there is no run.json)"),
        ([one, two], one, None, f"{one}: is one of the runs; choose another folder for the merged one"),
        ([one, two], other, None, f"{other}: holds a run already; choose another folder"),
        ([one, two], file, None, f"{file}: not a folder; choose another folder"),
        ([one, two], out, other, f"--prefer {other}: none of the runs ({one}, {two})"),
    ]
    for runs, place, prefer, said in cases:
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            merge(runs, place, prefer=prefer)
    assert not out.exists()


def test_a_run_cannot_reach_outside_its_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    one, two = write("one", RECORD), write("two", ON_GPU)
    evil = ON_GPU.to_json() | {"evaluation": "../../secret"}
    write_json(two / "records" / f"{ON_GPU.id}.json", evil)
    with pytest.raises(ValueError, match=r"'\.\./\.\./secret' cannot name a file here"):
        merge([one, two], tmp_path / "both")
    write_json(two / "run.json", {"suite": {"name": "tiny"}, "cells": ["../../secret"]})
    with pytest.raises(ValueError, match=r"'\.\./\.\./secret' cannot name a file here"):
        merge([one, two], tmp_path / "both")
    assert not (tmp_path / "both").exists()
