"""Latency on a device that is not here: kernels by class, a model fitted to published latencies, and its known error.

The kernels are those of :mod:`depthbench.suites.graphs.fusion`, the model of a device is
:mod:`depthbench.suites.targets.predict_model`, its parameters lie in ``calibration.json`` beside this module. Batch 1,
without copies to and from the GPU. A prediction is never a measurement: it carries its interval and is shown as predicted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.graphs.fusion import Kernel, fuse
from depthbench.suites.graphs.graph import load_graph
from depthbench.suites.results import Latency
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.targets.predict_calibrate import Calibration, read_calibration
from depthbench.suites.targets.predict_fit import factor
from depthbench.suites.targets.predict_model import (
    BOARDS,
    CPU,
    KINDS,
    PRECISIONS,
    Board,
    KernelTable,
    PowerMode,
    check,
    kernel_times,
    workload,
)

__all__ = ["BOARDS", "PRECISIONS", "Board", "Layer", "Prediction", "boards", "check", "cpu_calibration", "predict"]

INTERVAL_NOTE = "predicted; 80 % interval from published latencies of networks left out of the fit"
TOP_LAYERS = 5
FEW_FAMILIES = 2
"""A class that fewer families of networks spent time in is hardly known to the calibration."""
DOMAIN_SHARE = 0.2
"""A prediction that puts more of its time than this into such classes is out of the calibration's domain."""


@dataclass(frozen=True)
class Layer:
    """One kernel of a prediction: its first node, fused operators, time and what limits it."""

    name: str
    kind: str
    ops: str
    latency_ms: float
    bound: str


@dataclass(frozen=True)
class Prediction:
    """A predicted latency: ``interval_ms`` holds about 80 %; shares of the time by operator class add up to 1.

    ``bound``: what takes most of the time, ``"arithmetic"``, ``"memory"`` or ``"launch"``. ``top_layers``: the five
    slowest kernels. ``notes``: what a reader must know, a warning when the network is unlike those of the calibration.
    """

    board: str
    precision: str
    power_mode: str | None
    latency_ms: float
    interval_ms: tuple[float, float]
    bound: str
    share_by_class: Mapping[str, float]
    share_by_bound: Mapping[str, float]
    kernels: int
    top_layers: tuple[Layer, ...]
    out_of_domain: bool
    notes: tuple[str, ...]
    kind: str = field(default="predicted")

    def to_json(self) -> dict[str, Any]:
        """The prediction as JSON-ready values."""
        return asdict(self) | {"interval_ms": list(self.interval_ms)}

    def latency(self) -> Latency:
        """The prediction as the latency of a record."""
        details = {
            "share_by_class": dict(self.share_by_class),
            "top_layers": [asdict(layer) for layer in self.top_layers],
        }
        return Latency(
            kind="predicted",
            latency_ms=self.latency_ms,
            interval_ms=self.interval_ms,
            interval_note=INTERVAL_NOTE,
            bound=self.bound,
            details=details | {"kernels": self.kernels, "notes": list(self.notes)},
        )


def cpu_calibration() -> Path:
    """Where ``depthbench calibrate --target desktop-cpu`` keeps this machine's calibration."""
    return cache_dir() / "calibration" / f"{CPU.board}.json"


def boards(calibration: Calibration | None = None) -> list[dict[str, Any]]:
    """A row per device: facts, power modes whose clocks are known, and by precision the error on families left out."""
    found = calibration or read_calibration()
    known = {(row["board"], row["precision"]): row for row in found.errors["boards"]}
    devices = [*BOARDS.values()]
    if cpu_calibration().is_file():
        devices.append(CPU)
        known |= {(row["board"], row["precision"]): row for row in read_calibration(cpu_calibration()).errors["boards"]}
    rows = []
    for board in devices:
        precisions = [p for p in PRECISIONS if board is not CPU or p == "fp32"]
        if board is not CPU and board.int8_tops is None:
            precisions.remove("int8")
        for precision in precisions:
            row = known.get((board.board, precision))
            rows.append(
                {
                    "board": board.board,
                    "gpu": board.gpu,
                    "precision": precision,
                    "points": row["points"] if row else 0,
                    "median_error": row["median_error"] if row else None,
                    "power_modes": [mode.name for mode in board.modes],
                }
            )
    return rows


def predict(
    onnx_path: Path,
    board: str,
    precision: str = "fp16",
    *,
    power_mode: str | None = None,
    calibration: Calibration | None = None,
) -> Prediction:
    """The latency of an ONNX file on a device, batch 1, without copies to and from the GPU.

    ``precision`` decides the arithmetic: quantize/dequantize pairs count only for ``"int8"``, where all else runs in
    FP16; in a file without any, every convolution and matrix product is taken to be INT8. ``power_mode``: one whose
    clocks are known, taken to be locked; left out, the fastest, half way (in the logarithm) between locked clocks and
    what was published without stating them. ``calibration``: left out, the one that ships (for ``desktop-cpu``, the one
    made on this machine).

    Raises:
        ValueError: an unknown board, precision or power mode, INT8 on a board without it, a file that cannot be read or
            whose shapes are not fixed, or ``desktop-cpu`` before it was calibrated.
    """
    target = check(board, precision)
    mode = None if power_mode is None else _mode(target, power_mode)
    if calibration is None:
        if target is CPU and not cpu_calibration().is_file():
            raise ValueError(f"{board} is not calibrated yet: run depthbench calibrate --target {board}")
        calibration = read_calibration(cpu_calibration() if target is CPU else None)
    elif (target is CPU) != ("launch_us.CPU" in calibration.parameters):
        raise ValueError(f"the calibration is not for {board}")
    kernels, uncounted = _kernels(onnx_path, onnx_path.stat().st_mtime_ns if onnx_path.is_file() else 0)
    if not kernels:
        raise ValueError(f"{onnx_path}: nothing in it takes time (no operator depends on its input)")
    table = KernelTable.of(kernels)
    load = workload([(table, target, precision, mode)])
    launch, arithmetic, memory = kernel_times(calibration.parameters, load)
    slower = factor(calibration.parameters, board, "unknown" if mode is None else "locked")
    launch, arithmetic, memory = launch * slower, arithmetic * slower, memory * slower
    taken = launch + np.maximum(arithmetic, memory)
    total_ms = float(taken.sum()) * 1e3

    shares = np.bincount(load.kind, taken, len(KINDS)) / taken.sum()
    by_class = {KINDS[i]: float(shares[i]) for i in np.argsort(-shares) if shares[i] > 0}
    limits = [
        "launch" if a > max(b, c) else "arithmetic" if b > c else "memory"
        for a, b, c in zip(launch, arithmetic, memory, strict=True)
    ]
    bounds: defaultdict[str, float] = defaultdict(float)
    bounds["launch"] = float(launch.sum() / taken.sum())
    for b, c in zip(arithmetic, memory, strict=True):
        bounds["arithmetic" if b > c else "memory"] += float(max(b, c) / taken.sum())
    by_bound = dict(sorted(bounds.items(), key=lambda entry: -entry[1]))
    rare = {kind: share for kind, share in by_class.items() if calibration.seen[kind] < FEW_FAMILIES}
    outside = sum(rare.values()) > DOMAIN_SHARE
    notes = _notes(kernels, uncounted, precision == "int8" and table.implicit)
    if outside:
        seldom = ", ".join(f"{kind} {share:.0%}" for kind, share in rare.items())
        notes.insert(0, f"out of domain: {sum(rare.values()):.0%} of the time in classes hardly calibrated ({seldom})")
    low, high = calibration.intervals["unknown" if mode is None else "stated"]
    return Prediction(
        board=board,
        precision=precision,
        power_mode=mode.name if mode else None,
        latency_ms=total_ms,
        interval_ms=(total_ms * low, total_ms * high),
        bound=next(iter(by_bound)),
        share_by_class=by_class,
        share_by_bound=by_bound,
        kernels=len(kernels),
        top_layers=tuple(
            Layer(kernels[i].name, kernels[i].kind, "+".join(kernels[i].ops), float(taken[i]) * 1e3, limits[i])
            for i in np.argsort(-taken, kind="stable")[:TOP_LAYERS]
        ),
        out_of_domain=outside,
        notes=tuple(notes),
    )


@lru_cache(maxsize=16)  # a file is predicted for several devices, one after the other
def _kernels(onnx_path: Path, _changed: int) -> tuple[list[Kernel], Mapping[str, int]]:
    graph = load_graph(onnx_path)
    return fuse(graph), graph.uncounted()


def _mode(board: Board, name: str) -> PowerMode:
    if not board.modes:
        raise ValueError(f"{board.board} has no power modes")
    return board.mode(name)


def _notes(kernels: list[Kernel], uncounted: Mapping[str, int], implicit: bool) -> list[str]:
    notes = []
    if implicit:
        notes.append("no quantize/dequantize nodes in the file: every convolution and matrix product is taken as INT8")
    if uncounted:
        notes.append(f"not counted: {', '.join(uncounted)}")
    if other := sorted({op for kernel in kernels if kernel.kind == "other" for op in kernel.ops}):
        notes.append(f"taken as pure data movement: {', '.join(other)}")
    return notes
