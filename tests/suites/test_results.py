"""Records on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from depthbench.suites.results import SCHEMA_VERSION, Latency, Lineage, Record, RunFolder, write_atomic, write_json

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


def test_records_in_the_order_of_the_manifest(folder: RunFolder) -> None:
    for cell in ("abc", "b", "stranger"):
        folder.write_record(replace(RECORD, id=cell))
    assert [record.id for record in folder.records()] == ["b", "abc"]


def test_a_newer_version_is_refused(folder: RunFolder) -> None:
    write_json(folder.record_path("abc"), {**RECORD.to_json(), "schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(
        ValueError,
        match=r"abc\.json: not a record: schema_version 2 is not readable here",
    ):
        folder.read_record("abc")


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
