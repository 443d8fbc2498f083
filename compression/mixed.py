"""Mixed precision by measured sensitivity: the operators that hurt most stay in float, found by a bounded, cached search.

First everything is quantized; if that keeps to the limits, it is the answer. Else the noise that each group of operators makes
alone is measured, the groups are put in order of noise per multiply-accumulate, and bisection finds how many of them, loudest
first, have to go back to float. The noise of groups adds up nearly independently, which is why their order hardly depends on
what else is quantized. Needs numpy, onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from depthbench.compression.calibration import DEFAULT_RANGES, Image, checked
from depthbench.compression.executed import delivered, node_macs, outputs, sqnr_db
from depthbench.compression.graph import file_digest
from depthbench.compression.prepared import fit_kernels, prepared
from depthbench.compression.quantize import multiplying, quantizable, write_qdq

VERSION = 2
"""Counts the changes after which earlier measurements of groups no longer hold."""

ALONE_IMAGES = 8
"""Calibration images on which the noise of a group alone is measured; whole files are judged on all."""

VERDICTS = 8
"""Trials kept back from the measurement of groups for judging whole files."""


@dataclass(frozen=True)
class _Group:
    """Operators that are quantized or left in float together, and what one run of them multiplies."""

    names: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class _Limits:
    tolerance: float
    min_sqnr_db: float

    def kept(self, verdict: Mapping[str, float]) -> bool:
        return verdict["delta1_loss"] <= self.tolerance and verdict["sqnr_db"] >= self.min_sqnr_db


def quantize_mixed(
    source: Path,
    out: Path,
    calibration: Iterable[Image],
    *,
    score: Callable[[Path], Mapping[str, float]],
    cached: Callable[[Any, Callable[[], Any]], Any],
    ranges: str = DEFAULT_RANGES,
    tolerance: float = 0.01,
    min_sqnr_db: float = 20.0,
    max_trials: int = 64,
    everything: bool = False,
) -> dict[str, Any]:
    """INT8 with as little in float as two limits ask for; returns a report with the search's trials.

    ``score``: metrics of a file on calibration images. ``cached(key, build)``: keeps a JSON value, so that a search that was
    stopped, or that asks for another tolerance, goes on from what was measured. ``tolerance``: how much ``delta1`` may fall;
    ``min_sqnr_db``: least signal to quantization noise. ``max_trials``: at most so many files are made and judged.
    ``everything``: begin with matrix products and few channels quantized too. ``ValueError`` when the limits cannot be reached
    (the best that was found is named), and as :func:`depthbench.compression.quantize.quantize_int8`.
    """
    model = prepared(source)
    images = checked(calibration, model)
    fit_kernels(model)
    limits = _Limits(tolerance, min_sqnr_db)
    with tempfile.TemporaryDirectory() as folder:
        search = _Search(source, model, images, ranges, everything, score, cached, Path(folder))
        floats, verdict, trials = search.run(limits, max_trials)
        search.write(out, floats)
    return {
        "calibration_images": len(images),
        "ranges": ranges,
        "tolerance": tolerance,
        "min_sqnr_db": min_sqnr_db,
        "trials": trials,
        "float_nodes": sorted(floats),
        "delta1_loss": round(verdict["delta1_loss"], 5),
        **delivered(source, out, images),
        "sqnr_db": round(verdict["sqnr_db"], 2),
    }


@dataclass
class _Search:
    source: Path
    model: onnx.ModelProto
    images: list[Image]
    ranges: str
    everything: bool
    score: Callable[[Path], Mapping[str, float]]
    cached: Callable[[Any, Callable[[], Any]], Any]
    folder: Path

    def __post_init__(self) -> None:
        self.key = ["int8-mixed", VERSION, file_digest(self.source), self.ranges, self.everything, len(self.images)]
        self.exact: NDArray[Any] | None = None
        self.delta1: float | None = None

    def run(self, limits: _Limits, max_trials: int) -> tuple[list[str], Mapping[str, float], int]:
        """The nodes to leave in float, the verdict on that file, and the number of trials, cached ones included."""
        verdict = self.judged([])
        if limits.kept(verdict):
            return [], verdict, 1
        groups = self.groups(max(1, max_trials - VERDICTS))
        noise = [self.noise(group) for group in groups]
        order = sorted(range(len(groups)), key=lambda i: noise[i] / (groups[i].macs + 1), reverse=True)
        trials, best = 1 + len(groups), verdict
        found: tuple[list[str], Mapping[str, float]] | None = None
        low, high = 0, len(groups)  # too few in float; enough in float, all of them as long as nothing better is found
        while high - low > 1 and trials < max_trials:
            count = (low + high) // 2
            floats = [name for i in order[:count] for name in groups[i].names]
            verdict, trials = self.judged(floats), trials + 1
            if limits.kept(verdict):
                found, high = (floats, verdict), count
            else:
                low = count
                best = max(best, verdict, key=lambda v: v["sqnr_db"])
        if found is not None:
            return *found, trials
        raise ValueError(
            f"tolerance: delta1 within {limits.tolerance} and {limits.min_sqnr_db} dB cannot be reached in {trials} trials; "
            f"the best file has {best['sqnr_db']:.1f} dB and a loss of {best['delta1_loss']:.4f} (what was measured is kept)"
        )

    def groups(self, most: int) -> list[_Group]:
        """The quantized products in the order of the file, neighbours put together until there are at most ``most``."""
        nodes = [node.name for node in multiplying(self.model, everything=self.everything)]
        macs = node_macs(self.model)
        size = -(-len(nodes) // most)
        parts = [tuple(nodes[i : i + size]) for i in range(0, len(nodes), size)]
        return [_Group(part, sum(macs[name] for name in part)) for part in parts]

    def noise(self, group: _Group) -> float:
        """Noise to signal of a file in which this group alone is quantized; 1 where ONNX Runtime refuses such a file.

        A refusal (an optimizer of its that stumbles over a rare pattern) of several nodes is met by measuring them apart.
        """

        def build() -> float | None:
            nodes = {node.name for node in multiplying(self.model, everything=self.everything)}
            path = self.folder / "alone.onnx"
            self.write(path, sorted(nodes - set(group.names)))
            try:
                return float(10 ** (-self.sqnr(path, self.images[:ALONE_IMAGES]) / 10))
            except ValueError:
                return None

        value: float | None = self.cached([*self.key, "alone", list(group.names)], build)
        if value is None and len(group.names) > 1:
            middle = len(group.names) // 2
            return sum(self.noise(_Group(part, 0)) for part in (group.names[:middle], group.names[middle:]))
        return 1.0 if value is None else value

    def judged(self, floats: Sequence[str]) -> Mapping[str, float]:
        """SQNR and loss of delta1 of the file with these nodes in float; as bad as can be where ONNX Runtime refuses it."""

        def build() -> dict[str, float]:
            path = self.folder / "judged.onnx"
            self.write(path, floats)
            try:
                sqnr = self.sqnr(path, self.images)
            except ValueError:
                return {"sqnr_db": 0.0, "delta1_loss": 1.0}
            if self.delta1 is None:
                self.delta1 = self.score(self.source)["delta1"]
            return {"sqnr_db": sqnr, "delta1_loss": self.delta1 - self.score(path)["delta1"]}

        value: Mapping[str, float] = self.cached([*self.key, "judged", sorted(floats)], build)
        return value

    def sqnr(self, path: Path, images: list[Image]) -> float:
        if self.exact is None:
            self.exact = outputs(self.source, self.images)
        return min(sqnr_db(self.exact[: len(images)], outputs(path, images)), 200.0)

    def write(self, out: Path, floats: Sequence[str]) -> None:
        nodes = quantizable(self.model, everything=self.everything, floats=set(floats))
        known = self.folder / "ranges.json"
        write_qdq(self.model, out, self.images, nodes, ranges=self.ranges, known_ranges=known)
