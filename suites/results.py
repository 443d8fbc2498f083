"""Records: what a run knows about each cell, and how it is kept on disk.

A run folder holds

* ``run.json``: the suite, its digest, the environment, the order of the cells;
* ``records/<id>.json``: one :class:`Record` per cell, written atomically;
* ``evaluations/<digest>.json``: per-image metrics of one artefact on one data set (cells on several targets share it);
* ``samples/<digest>.npz``: a few inputs, ground truths and predictions of one artefact, for pictures.

Raw samples are stored, statistics are derived when read (:mod:`depthbench.reports.load`). A run holds no absolute path, so
its folder may be moved. This module imports neither torch nor pandas.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from depthbench.suites.storage.disk import writing_to

HISTORY = {
    1: "first version; evaluations later gained metrics by range and at edges, groups and skipped, absent from older files",
    2: "records gain explanation (why a cell is hardly faster than its parent) and timings (when and where it was measured)",
    3: "records gain left_out, the number of broken images that the accuracy is without",
}
"""What each version of the schema changed. A record of an older version is read, what it lacks is None; of a newer refused."""

SCHEMA_VERSION = max(HISTORY)

Status = Literal["ok", "skipped", "failed"]


def _mode() -> int:
    """The permissions of a new file by this process's umask (a temporary file has its owner's alone)."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_MODE = _mode()


@dataclass(frozen=True)
class Latency:
    """Latency of one artefact on one target, batch 1, in milliseconds.

    ``kind`` is ``"measured"`` (``samples_ms`` holds raw wall times of single inferences) or ``"predicted"``
    (``latency_ms`` with ``interval_ms``); the two are never mixed without the label.
    """

    kind: Literal["measured", "predicted"]
    samples_ms: list[float] = field(default_factory=list)
    warmup_ms: list[float] = field(default_factory=list)
    latency_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    interval_note: str | None = None
    bound: str | None = None
    threads: int | None = None
    flags: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """One link of the chain weights → pruned → ONNX → quantized: a stage, the digest it made and its options."""

    stage: str
    digest: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings:
    """When and by which process a cell was measured: seconds since 1970 in UTC, with their fractions.

    Of cells that were measured interleaved it is the time of all of them, so the sections of two measurements on one machine
    or board are either the same or do not overlap.
    """

    started_s: float
    finished_s: float
    host: str
    pid: int


@dataclass(frozen=True)
class Record:
    """Everything known about one cell: model × recipe × input size × target × data set.

    ``profile``: ``params_m``, ``params_stored_m``, ``gmacs`` (by counter), ``size_mb``, ``nodes`` (operator: count), ...
    ``evaluation``: digest that names ``evaluations/<digest>.json``, or None.
    ``reason``: why a cell was skipped or how it failed; None when ``status`` is ``"ok"``.
    ``explanation``: why a measured cell is hardly faster than its parent (:mod:`depthbench.suites.explain`), where asked.
    ``timings``: of a measured cell, when it was measured.
    ``left_out``: broken images of the data set that the accuracy is without; None where not known.
    """

    id: str
    status: Status
    model: str
    family: str
    recipe: str
    size: tuple[int, int]
    target: str
    target_kind: str
    dataset: str
    protocol: str
    precision: str | None = None
    reason: str | None = None
    profile: dict[str, Any] = field(default_factory=dict)
    latency: Latency | None = None
    evaluation: str | None = None
    lineage: list[Lineage] = field(default_factory=list)
    compression: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    started: str | None = None
    finished: str | None = None
    explanation: dict[str, Any] | None = None
    timings: Timings | None = None
    left_out: int | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """A record from JSON values; ``ValueError`` when its version is newer than this program's."""
        _check_version(value.get("schema_version"))
        data = dict(value)
        data["size"] = tuple(data["size"])
        if data.get("latency") is not None:
            latency = dict(data["latency"])
            if latency.get("interval_ms") is not None:
                latency["interval_ms"] = tuple(latency["interval_ms"])
            data["latency"] = Latency(**latency)
        data["lineage"] = [Lineage(**link) for link in data.get("lineage", [])]
        if data.get("timings") is not None:
            data["timings"] = Timings(**data["timings"])
        return cls(**data)


def _check_version(version: Any) -> None:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ValueError(
            f"schema_version {version} is of a newer depthbench (this one reads 1 to {SCHEMA_VERSION}): update depthbench"
        )
    if version not in HISTORY:
        raise ValueError(f"schema_version {version!r} is not readable here (this program reads 1 to {SCHEMA_VERSION})")


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash at any moment, sees the old file or the whole new one.

    :class:`depthbench.suites.storage.disk.FullDiskError` when there is no space for it.
    """
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(_MODE)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value atomically."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; ``ValueError`` names the file when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def plain_name(name: str) -> str:
    """``name`` itself when it can name a file or folder of ours and no other place; ``ValueError`` otherwise."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name):
        raise ValueError(f"{name!r} cannot name a file here (letters, digits, '_', '-' and '.' only)")
    return name


@dataclass(frozen=True)
class RunFolder:
    """A run on disk; see the module's docstring for its layout."""

    root: Path

    @property
    def manifest(self) -> Path:
        """``run.json``."""
        return self.root / "run.json"

    def record_path(self, cell_id: str) -> Path:
        """Where the record of a cell lies."""
        return self.root / "records" / f"{plain_name(cell_id)}.json"

    def evaluation_path(self, digest: str) -> Path:
        """Where the per-image metrics of an evaluation lie."""
        return self.root / "evaluations" / f"{plain_name(digest)}.json"

    def samples_path(self, digest: str) -> Path:
        """Where the sample pictures of an evaluation lie."""
        return self.root / "samples" / f"{plain_name(digest)}.npz"

    def read_manifest(self) -> dict[str, Any]:
        """The manifest; ``ValueError`` when this folder holds no run, or one of a newer version."""
        if not self.manifest.is_file():
            raise ValueError(f"{self.root}: no run here (there is no run.json)")
        manifest: dict[str, Any] = read_json(self.manifest)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("cells"), list):
            raise ValueError(f"{self.manifest}: not a run's manifest (it has no list of cells)")
        try:
            _check_version(manifest.get("schema_version", 1))
        except ValueError as error:
            raise ValueError(f"{self.manifest}: {error}") from None
        return manifest

    def write_record(self, record: Record) -> None:
        """Write one record atomically."""
        write_json(self.record_path(record.id), record.to_json())

    def read_record(self, cell_id: str) -> Record | None:
        """The record of a cell, or None when there is none yet."""
        path = self.record_path(cell_id)
        return _read_record(path) if path.is_file() else None

    def records(self) -> Iterator[Record]:
        """The records of the cells that the manifest lists, in its order; cells without a record yet are passed over."""
        for cell in self.read_manifest()["cells"]:
            record = self.read_record(cell)
            if record is not None:
                yield record


def _read_record(path: Path) -> Record:
    value = read_json(path)
    try:
        return Record.from_json(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a record: {error}") from None
