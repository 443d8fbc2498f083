"""Records on disk."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from depthbench.suites.results import (
    HISTORY,
    SCHEMA_VERSION,
    Latency,
    Lineage,
    Record,
    RunFolder,
    Timings,
    write_atomic,
    write_json,
)
from depthbench.suites.storage.disk import FullDiskError

RECORD = Record(
    id="abc",
    status="ok",
    model="tst-t",
    family="tst",
    recipe="fp32",
    size=(224, 224),
    target="desktop-cpu",
    target_kind="cpu",
    dataset="rooms",
    protocol="native",
    latency=Latency("predicted", latency_ms=3.0, interval_ms=(2.0, 4.0)),
    lineage=[Lineage("weights", "d1", {"model": "tst-t"})],
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    write_json(tmp_path / "run.json", {"cells": ["b", "abc", "c"]})
    return RunFolder(tmp_path)


def test_round_trip(folder: RunFolder) -> None:
    folder.write_record(RECORD)
    assert folder.read_record("abc") == RECORD
    assert folder.read_record("other") is None
    measured = replace(RECORD, timings=Timings(1.5, 2.25, "here", 7), explanation={"sentences": ["memory-bound"]})
    folder.write_record(measured)
    assert folder.read_record("abc") == measured


def test_records_in_the_order_of_the_manifest(folder: RunFolder) -> None:
    for cell in ("abc", "b", "stranger"):
        folder.write_record(replace(RECORD, id=cell))
    assert [record.id for record in folder.records()] == ["b", "abc"]


OLD = """{
 "id": "abc", "status": "ok", "model": "tst-t", "family": "tst", "recipe": "int8", "size": [224, 224], "target": "desktop-cpu",
 "target_kind": "cpu", "dataset": "rooms", "protocol": "native", "precision": "int8", "reason": null,
 "profile": {"params_m": 1.25, "gmacs": {"onnx": 0.2}},
 "latency": {"kind": "measured", "samples_ms": [2.0, 2.5], "warmup_ms": [3.0], "latency_ms": null, "interval_ms": null,
  "interval_note": null, "bound": null, "threads": 1, "flags": [], "details": {}},
 "evaluation": "e1", "lineage": [{"stage": "weights", "digest": "d1", "options": {"model": "tst-t"}}], "compression": [],
 "environment": {"cpu": "a processor"}, "started": null, "finished": "2026-01-01T00:00:00+00:00", "schema_version": 1
}
"""
"""A record as version 1 wrote it."""


def test_a_record_of_the_first_version_is_read(folder: RunFolder) -> None:
    write_atomic(folder.record_path("abc"), OLD.encode())
    found = folder.read_record("abc")
    assert found == replace(
        RECORD,
        recipe="int8",
        precision="int8",
        profile={"params_m": 1.25, "gmacs": {"onnx": 0.2}},
        latency=Latency("measured", samples_ms=[2.0, 2.5], warmup_ms=[3.0], threads=1),
        evaluation="e1",
        environment={"cpu": "a processor"},
        finished="2026-01-01T00:00:00+00:00",
        schema_version=1,
    )
    assert (found.explanation, found.timings, found.left_out) == (None, None, None)


def test_every_version_has_its_history() -> None:
    assert list(HISTORY) == list(range(1, SCHEMA_VERSION + 1))


def test_a_newer_version_is_refused(folder: RunFolder) -> None:
    write_json(folder.record_path("abc"), {**RECORD.to_json(), "schema_version": 4, "more": 1})
    said = r"schema_version 4 is of a newer depthbench \(this one reads 1 to 3\): update depthbench$"
    with pytest.raises(ValueError, match=rf"abc\.json: {said}"):
        folder.read_record("abc")
    write_json(folder.manifest, {"cells": [], "schema_version": 4})
    with pytest.raises(ValueError, match=rf"run\.json: {said}"):
        folder.read_manifest()
    write_json(folder.manifest, {"cells": [], "schema_version": "two"})
    with pytest.raises(ValueError, match=r"run\.json: schema_version 'two' is not readable here"):
        folder.read_manifest()


def test_a_manifest_lists_cells(folder: RunFolder) -> None:
    write_json(folder.manifest, ["abc"])
    with pytest.raises(ValueError, match=r"run\.json: not a run's manifest \(it has no list of cells\)$"):
        folder.read_manifest()


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "", "..", "a\nb", "$(ls)", 7])
def test_a_cell_names_no_file_outside(folder: RunFolder, name: str) -> None:
    write_json(folder.manifest, {"cells": [name]})
    for path in (folder.record_path, folder.evaluation_path, folder.samples_path):
        with pytest.raises(ValueError, match="cannot name a file here"):
            path(name)
    with pytest.raises(ValueError, match="cannot name a file here"):
        list(folder.records())


def test_a_damaged_record_names_its_file(folder: RunFolder) -> None:
    path = folder.record_path("abc")
    write_atomic(path, json.dumps(RECORD.to_json()).encode()[:-20])
    with pytest.raises(ValueError, match=r"abc\.json: not valid JSON"):
        folder.read_record("abc")
    write_json(path, {**RECORD.to_json(), "surprise": 1})
    with pytest.raises(ValueError, match=r"abc\.json: not a record: .*surprise"):
        folder.read_record("abc")


def test_no_run_here(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run here \(there is no run\.json\)$"):
        RunFolder(tmp_path).read_manifest()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FullDiskError) as caught:
        write_atomic(path, b"new")
    assert str(caught.value) == (
        f"{tmp_path}: no space left on its disk; what was finished is kept: make room (depthbench cache gc) and run the same "
        "command again to go on"
    )
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
