"""Runs of one suite on several machines, joined into one run folder; what contradicts itself is named, never chosen silently.

A cell is the same when its model, recipe, size, target, data set and protocol are. Its ids differ where something that can
change its result does (library versions, weights, why it is skipped).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthbench.suites.results import SCHEMA_VERSION, Record, RunFolder, read_json, write_atomic, write_json
from depthbench.suites.storage.disk import writable, writing_to

_WHEN = ("started", "finished", "timings", "environment", "schema_version")
"""What of a record may differ between two runs that found the same."""

_RANK = {"ok": 0, "failed": 1, "skipped": 2}

_SAME = 1e-3
"""Relative difference up to which two machines' accuracy of one file on one image is the same."""


@dataclass(frozen=True)
class Conflict:
    """Two runs that say different things of one cell, or of one file's accuracy."""

    what: str
    runs: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {' and '.join(self.runs)} differ: {self.why}"


@dataclass(frozen=True)
class Merged:
    """What a merge came to: cells by status, the conflicts (settled by a preference), and what a reader should know."""

    folder: RunFolder
    counts: Mapping[str, int]
    conflicts: tuple[Conflict, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    name: str
    folder: RunFolder
    manifest: dict[str, Any]
    records: dict[str, Record]


def merge(runs: Sequence[Path], out: Path, *, prefer: Path | None = None) -> Merged:
    """Join ``runs`` into the run folder ``out``: of one cell an ok record counts before a failed, this before a skipped one.

    ``prefer``: the run whose word counts where two contradict each other. The accuracy files and pictures of the records that
    are kept come along.

    Raises:
        ValueError: fewer than two runs, one that is no run, other suites, an ``out`` in use, or conflicts without ``prefer``;
            nothing is then written.
    """
    read = [_read(path) for path in _checked(runs, out, prefer)]
    first = prefer or runs[0]
    read.sort(key=lambda run: run.folder.root != first)  # stable: the preferred one, then as given
    suites = {(run.manifest.get("suite") or {}).get("name"): run.name for run in read}
    if len(suites) > 1:
        raise ValueError("; ".join(f"{run} is of suite {suite}" for suite, run in suites.items()) + ": not one suite")

    kept, conflicts = _records(read)
    files, more = _evaluations(kept, read, RunFolder(out))
    conflicts += more
    if conflicts and prefer is None:
        lines = "\n".join(f"conflict: {conflict}" for conflict in conflicts)
        raise ValueError(f"{lines}\nnothing was merged: name the run whose word counts with --prefer")

    with writing_to(writable(out)):
        folder = RunFolder(out)
        files += [(run.folder.record_path(record.id), folder.record_path(record.id)) for run, record in kept.values()]
        for source, place in files:
            write_atomic(place, source.read_bytes())
        write_json(folder.manifest, _manifest(read, kept))  # last: before it the folder is no run
    counts = {status: sum(record.status == status for _, record in kept.values()) for status in _RANK}
    return Merged(folder, counts, tuple(conflicts), tuple(_notes(read, kept)))


def _checked(runs: Sequence[Path], out: Path, prefer: Path | None) -> list[Path]:
    places = [run.resolve() for run in runs]
    if len(set(places)) < 2:
        raise ValueError("merge: give at least two different runs")
    if len(set(places)) < len(places):
        raise ValueError("merge: a run is given twice")
    if prefer is not None and prefer not in runs:
        raise ValueError(f"--prefer {prefer}: none of the runs ({', '.join(map(str, runs))})")
    if out.resolve() in places:
        raise ValueError(f"{out}: is one of the runs; choose another folder for the merged one")
    if out.exists() and (not out.is_dir() or (out / "run.json").exists()):
        raise ValueError(f"{out}: {'holds a run already' if out.is_dir() else 'not a folder'}; choose another folder")
    return list(runs)


def _read(path: Path) -> _Run:
    folder = RunFolder(path)
    manifest = folder.read_manifest()
    return _Run(str(path), folder, manifest, {record.id: record for record in folder.records()})


def cell_of(record: Record) -> tuple[Any, ...]:
    """What makes a cell the same in every run."""
    return (record.model, record.recipe, record.size, record.target, record.dataset, record.protocol)


def _label(record: Record) -> str:
    return f"{record.model}/{record.recipe}/{record.size[0]}x{record.size[1]}/{record.target}"


def _records(runs: Sequence[_Run]) -> tuple[dict[tuple[Any, ...], tuple[_Run, Record]], list[Conflict]]:
    """The record that is kept of each cell, with its run, and the conflicts; earlier runs before later ones."""
    kept: dict[tuple[Any, ...], tuple[_Run, Record]] = {}
    conflicts = []
    for run in runs:
        for record in run.records.values():
            cell = cell_of(record)
            if cell not in kept:
                kept[cell] = (run, record)
                continue
            other, before = kept[cell]
            if _RANK[record.status] < _RANK[before.status]:
                kept[cell] = (run, record)
            elif record.status == before.status == "ok" and (why := _difference(before, record, other, run)):
                conflicts.append(Conflict(_label(record), (other.name, run.name), why))
    return kept, conflicts


def _difference(one: Record, two: Record, first: _Run, second: _Run) -> str | None:
    """In what two records of a cell that are both ok differ, or None."""
    if one.id != two.id:
        versions = [run.manifest.get("libraries", {}) for run in (first, second)]
        names = sorted(name for name in versions[0] | versions[1] if versions[0].get(name) != versions[1].get(name))
        named = [f"{name} {versions[0].get(name, 'none')} and {versions[1].get(name, 'none')}" for name in names]
        return ", ".join(named) or "made from other inputs (weights, data, recipe or how long latency is measured)"
    values = [{key: value for key, value in record.to_json().items() if key not in _WHEN} for record in (one, two)]
    names = sorted(key for key in values[0] if values[0][key] != values[1][key])
    if names == ["latency"]:
        return "latency (each measured it)" if one.latency and one.latency.kind == "measured" else "latency"
    return ", ".join(names) or None


def _evaluations(
    kept: Mapping[Any, tuple[_Run, Record]], runs: Sequence[_Run], out: RunFolder
) -> tuple[list[tuple[Path, Path]], list[Conflict]]:
    """The accuracy files and pictures that the kept records need, with their places in ``out``, and contradictions."""
    files: list[tuple[Path, Path]] = []
    conflicts = []
    for digest in dict.fromkeys(record.evaluation for _, record in kept.values() if record.evaluation):
        own = [run for run in runs if run.folder.evaluation_path(digest).is_file()]
        for run in own[:1]:
            files.append((run.folder.evaluation_path(digest), out.evaluation_path(digest)))
            if run.folder.samples_path(digest).is_file():
                files.append((run.folder.samples_path(digest), out.samples_path(digest)))
        for run in own[1:]:
            metrics = [read_json(one.folder.evaluation_path(digest))["metrics"] for one in (own[0], run)]
            names = sorted(name for name in metrics[0] | metrics[1] if not _alike(*(m.get(name) for m in metrics)))
            if names:
                label = next(_label(record) for _, record in kept.values() if record.evaluation == digest)
                why = f"accuracy ({', '.join(names[:3])}{' and more' if len(names) > 3 else ''})"
                conflicts.append(Conflict(label, (own[0].name, run.name), why))
    return files, conflicts


def _alike(one: Sequence[float | None] | None, two: Sequence[float | None] | None) -> bool:
    """Whether per-image values are the same but for what processors round differently."""
    if one is None or two is None or len(one) != len(two):
        return one is two
    return all(
        a is b if a is None or b is None else math.isclose(a, b, rel_tol=_SAME, abs_tol=_SAME)
        for a, b in zip(one, two, strict=True)
    )


def _manifest(runs: Sequence[_Run], kept: Mapping[Any, tuple[_Run, Record]]) -> dict[str, Any]:
    """The first run's manifest with the cells of all; cells that no run has finished stay planned."""
    finished = {cell for run in runs for cell in run.records}
    planned = (cell for run in runs for cell in run.manifest["cells"] if cell not in finished)
    cells = dict.fromkeys([*(record.id for _, record in kept.values()), *planned])
    origins = [
        {
            "run": Path(run.name).resolve().name,
            "cells": sum(one is run for one, _ in kept.values()),
            **{key: run.manifest.get(key) for key in ("libraries", "environment", "started")},
        }
        for run in runs
    ]
    return {**runs[0].manifest, "schema_version": SCHEMA_VERSION, "cells": list(cells), "merged": origins}


def _notes(runs: Sequence[_Run], kept: Mapping[Any, tuple[_Run, Record]]) -> list[str]:
    """What of the merged run is not comparable or not whole."""
    notes = []
    if any(run.manifest.get("suite") != runs[0].manifest.get("suite") for run in runs):
        notes.append(f"the runs' suites are not written alike; the merged run keeps that of {runs[0].name}")
    places: dict[str, dict[str, int]] = {}
    for _, record in kept.values():
        if record.latency is not None and record.latency.kind == "measured":
            machine = str(record.environment.get("cpu") or record.environment.get("board") or "an unknown processor")
            machine += f" of {record.timings.host}" if record.timings else ""
            counts = places.setdefault(record.target, {})
            counts[machine] = counts.get(machine, 0) + 1
    for target, machines in places.items():
        if len(machines) > 1:
            told = ", ".join(f"{machine} ({count} cells)" for machine, count in machines.items())
            notes.append(f"{target} was measured on different machines, whose latencies do not compare: {told}")
    return notes
