"""Latencies measured by the user as points of the calibration: records of runs, and this CPU measured in minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from depthbench.suites.graphs.fusion import fuse
from depthbench.suites.graphs.graph import load_graph
from depthbench.suites.results import Record, read_json
from depthbench.suites.storage.store import Store
from depthbench.suites.targets.predict_model import BOARDS, CPU, KernelTable
from depthbench.suites.targets.predict_points import Point

FEWEST = 6
"""Networks below which this CPU is not calibrated."""


def kernel_table(path: Path) -> KernelTable:
    """The fused kernels of an ONNX file."""
    return KernelTable.of(fuse(load_graph(path)))


def record_points(run: Path) -> tuple[list[Point], dict[str, KernelTable]]:
    """The measured board latencies of a run, with the kernels of their files, read from the cache.

    A record counts when it was measured, is not flagged ``noisy`` and names a board: as its target, or under ``board``
    in its environment.

    Raises:
        ValueError: a run without such a record, or one whose file is no longer in the cache.
    """
    if not (run / "records").is_dir():
        raise ValueError(f"{run}: not a run (it has no records folder)")
    files = _artefacts()
    points: list[Point] = []
    tables: dict[str, KernelTable] = {}
    for path in sorted((run / "records").glob("*.json")):
        record = Record.from_json(read_json(path))
        board = record.target if record.target in BOARDS else str(record.environment.get("board"))
        latency = record.latency
        if latency is None or latency.kind != "measured" or "noisy" in latency.flags or board not in BOARDS:
            continue
        name = f"{record.model}@{record.recipe}_{record.size[0]}x{record.size[1]}"
        digest = record.lineage[-1].digest
        if digest not in files:
            raise ValueError(f"{run}: the file of {name} is no longer in the cache; run its suite again first")
        tables[name] = kernel_table(files[digest])
        precision = "int8" if (record.precision or "").startswith("int8") else record.precision or "fp32"
        points.append(
            Point(
                network=name,
                family=record.family,
                group="hybrid",
                board=board,
                precision=precision,
                runtime="TensorRT",
                clocks="locked",
                latency_ms=float(np.median(latency.samples_ms)),
                role="fit",
                source=f"{run.name}: record {record.id}",
            )
        )
    if not points:
        raise ValueError(f"{run}: no latency in it was measured on a board ({', '.join(sorted(BOARDS))})")
    return points, tables


def _artefacts() -> dict[str, Path]:
    """The deployed files in the cache, by digest."""
    return {entry.meta["sha256"]: entry.folder / "model.onnx" for entry in Store("artefacts").described()}


def cpu_points(
    files: Sequence[tuple[str, Path]],
    *,
    seconds: float = 4.0,
    progress: Callable[[float], None] | None = None,
) -> tuple[list[Point], dict[str, KernelTable]]:
    """Measure ONNX files (name, path) on this CPU, one thread, interleaved, ``seconds`` of inference each.

    Raises:
        ValueError: fewer than ``FEWEST`` files, or one that ONNX Runtime refuses.
    """
    from depthbench.suites.targets.desktop_cpu import measure
    from depthbench.suites.targets.engine import MeasureProfile

    if len(files) < FEWEST:
        raise ValueError(f"{len(files)} networks are too few to calibrate {CPU.board}: give at least {FEWEST}")
    profile = MeasureProfile(seconds, 20, warmup_s=0.5, warmup_runs=3)
    tables = {name: kernel_table(path) for name, path in files}
    timings = measure([path for _, path in files], profile, progress=progress)
    points = [
        Point(
            network=name,
            family=name,
            group="hybrid",
            board=CPU.board,
            precision="fp32",
            runtime="ONNX Runtime",
            clocks="locked",
            latency_ms=float(np.median(timing.samples_ms)),
            role="fit",
            source="measured here",
        )
        for (name, _), timing in zip(files, timings, strict=True)
    ]
    return points, tables
