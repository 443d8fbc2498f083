"""Why a compressed network is, or is not, faster than its parent: where the time of both goes, and what that means.

``explain`` runs two ONNX files in turn under ONNX Runtime's profiler, or takes the kernels of a board that
:mod:`depthbench.suites.explaining.board` predicts or reads from trtexec's files. See docs/explain.md for what the classes mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.explaining.causes import SECOND, Cause, Pair, causes
from depthbench.suites.explaining.kernels import CLASSES, Kernel, base_operator, by_class
from depthbench.suites.explaining.matching import matched
from depthbench.suites.names import unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAYS = 1.2
"""A form that is less than this times as fast as its parent has not paid: the reports flag it and ask for the reason."""

CHANGED = 8
"""How many layers that changed most are told."""


@dataclass(frozen=True)
class Side:
    """One file as it runs: its kernels, and the latency of an inference in ms.

    ``how``: ``measured``, ``predicted`` or ``trtexec``. ``wall_ms``: median wall time without the profiler, None where only
    kernels are known. Times of kernels are lower quartiles, so they hold also while other programs interrupt.
    """

    name: str
    how: str
    kernels: tuple[Kernel, ...]
    wall_ms: float | None = None

    @property
    def kernel_ms(self) -> float:
        """Time of all kernels."""
        return sum(kernel.ms for kernel in self.kernels)

    def gmacs(self) -> dict[str, float]:
        """MACs by the precision they are executed in, in 1e9, without those of padding channels."""
        found: defaultdict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            if kernel.macs:
                found[kernel.precision] += kernel.useful_macs / 1e9
        return dict(sorted(found.items()))

    def share(self, chosen: Callable[[Kernel], bool]) -> float:
        """Share of the kernels' time that those chosen take, 0 to 1."""
        return sum(kernel.ms for kernel in self.kernels if chosen(kernel)) / max(self.kernel_ms, 1e-12)

    def bounds(self) -> dict[str, float]:
        """Share of the time by what limits the kernels: arithmetic, memory, launch."""
        limits = dict.fromkeys(kernel.bound for kernel in self.kernels if kernel.bound)
        return {bound: self.share(lambda kernel, bound=bound: kernel.bound == bound) for bound in sorted(limits)}  # type: ignore[misc]

    def reached(self) -> dict[str, float]:
        """By class, the share of the attainable rate that its kernels reach, 0 to 1."""
        ideal: defaultdict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            ideal[kernel.kind] += kernel.ideal_ms
        return {kind: min(1.0, ideal[kind] / ms) for kind, ms in by_class(self.kernels).items() if ms > 0}

    def to_json(self) -> dict[str, Any]:
        """The side as JSON-ready values."""
        return {
            "name": self.name,
            "how": self.how,
            "wall_ms": self.wall_ms,
            "kernel_ms": self.kernel_ms,
            "kernels": len(self.kernels),
            "ms_by_class": by_class(self.kernels),
            "gmacs_by_precision": self.gmacs(),
            "conversion_share": self.share(lambda kernel: kernel.is_conversion),
            "share_by_bound": self.bounds(),
            "reached_by_class": self.reached(),
        }


@dataclass(frozen=True)
class Explanation:
    """Where the time of two forms goes and why the child is not faster.

    ``speedup``: kernel time of the parent over that of the child; ``wall_speedup``: of wall times measured in turn, with a
    95 % interval, None where none were. ``causes``: by lost time, the first is the reason. ``sentences``: one to three, to
    act on. ``notes``: what to bear in mind. ``block``: channels should be multiples of it.
    """

    target: str
    parent: Side
    child: Side
    causes: tuple[Cause, ...]
    sentences: list[str]
    block: int
    wall_speedup: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def speedup(self) -> float:
        """Kernel time of the parent over that of the child."""
        return self.parent.kernel_ms / max(self.child.kernel_ms, 1e-12)

    @property
    def cause(self) -> str | None:
        """The name of what lost most of the time; None when nothing did."""
        return self.causes[0].name if self.causes else None

    def changes(self, most: int = CHANGED) -> list[dict[str, Any]]:
        """What changed most: layers that both have, and the other kernels by operator; ms before and after."""
        pairs = matched(self.parent.kernels, self.child.kernels)
        rows: list[dict[str, Any]] = [
            {
                "layer": child.name,
                "class": child.kind,
                "precision": child.precision,
                "before_ms": a.ms,
                "after_ms": child.ms,
            }
            for a, child in pairs
        ]
        known = {id(kernel) for pair in pairs for kernel in pair}
        rest: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        for place, side in enumerate((self.parent, self.child)):
            for kernel in side.kernels:
                if id(kernel) not in known:
                    entry = rest[base_operator(kernel.op), kernel.kind]
                    entry[place] += kernel.ms
                    entry[2] += place
        for (op, kind), (before, after, count) in rest.items():
            row = {"layer": f"{op} ×{int(count)}" if count else op, "class": kind, "precision": ""}
            rows.append({**row, "before_ms": before, "after_ms": after})
        return sorted(rows, key=lambda row: -abs(row["after_ms"] - row["before_ms"]))[:most]

    def off_grid(self) -> list[dict[str, Any]]:
        """The child's convolutions whose output channels are no multiple of the grid, but for those of one channel."""
        grid = max(self.block, 8)
        return [
            {"layer": kernel.name, "class": kernel.kind, "channels": kernel.channels, "executed": kernel.executed}
            for kernel in self.child.kernels
            if kernel.window and kernel.channels > 1 and kernel.channels % grid
        ]

    def to_json(self) -> dict[str, Any]:
        """The explanation as JSON-ready values."""
        return {
            "target": self.target,
            "how": self.child.how,
            "speedup": self.speedup,
            "wall_speedup": list(self.wall_speedup) if self.wall_speedup else None,
            "cause": self.cause,
            "sentences": self.sentences,
            "causes": [cause.to_json() for cause in self.causes],
            "parent": self.parent.to_json(),
            "child": self.child.to_json(),
            "changes": self.changes(),
            "channel_grid": max(self.block, 8),
            "off_grid": self.off_grid(),
            "classes": dict(CLASSES),
            "notes": list(self.notes),
        }


def explain(
    parent: Path,
    child: Path,
    *,
    target: str = "desktop-cpu",
    names: tuple[str, str] | None = None,
    precisions: tuple[str, str] | None = None,
    seconds: float = 2.0,
    image: NDArray[np.float32] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Explanation:
    """Explain the difference between two ONNX files on a target.

    ``target``: ``desktop-cpu`` (one thread) and ``desktop-cpu-all`` are measured here, ``seconds`` a file; a Jetson board is
    predicted, in ``precisions`` (left out: fp16, and int8 for a file with quantized nodes). ``image``: the network's input
    (1, 3, H, W); random when left out. ``names``: how the two are called; their files' names when left out.

    Raises:
        ValueError: a file that is not there, not ONNX or refused by the runtime, or a target that cannot be explained.
    """
    from depthbench.suites.targets import TARGETS
    from depthbench.suites.targets.predict_model import BOARDS

    for path in (parent, child):
        if not path.is_file():
            raise ValueError(f"{path}: no such ONNX file")
    called = names or (parent.name, child.name)
    if target in BOARDS:
        from depthbench.suites.explaining.board import predicted_pair

        return predicted_pair((parent, child), called, target, precisions)
    if target not in ("desktop-cpu", "desktop-cpu-all"):
        choices = ["desktop-cpu", "desktop-cpu-all", *BOARDS]
        if target in TARGETS:
            raise ValueError(
                f"target {target} has no profile here: give trtexec's layer profiles, or one of {', '.join(choices)}"
            )
        raise ValueError(unknown("target", target, choices))
    from depthbench.suites.explaining.profiles import measured_rates, run_pair
    from depthbench.suites.targets.desktop_cpu import thread_count
    from depthbench.suites.targets.intervals import paired_ratio

    threads = thread_count("all" if target == "desktop-cpu-all" else "one")
    rates = measured_rates(threads)
    runs = run_pair([parent, child], threads=threads, seconds=seconds, image=image, progress=progress)
    sides = [
        Side(name, "measured", tuple(rates.judged(kernel) for kernel in ran.kernels), _median(ran.measured.samples_ms))
        for name, ran in zip(called, runs, strict=True)
    ]
    ratio, (low, high) = paired_ratio(runs[0].measured, runs[1].measured)
    gains = {"int8": min(max(rates.macs["int8"] / rates.macs["fp32"], 1.5), 4.0)}
    made = explained(target, sides, gains, rates.channel_block, wall=(ratio, low, high))
    return made


def explained(
    target: str,
    sides: Sequence[Side],
    gains: Mapping[str, float],
    block: int,
    *,
    wall: tuple[float, float, float] | None = None,
    notes: Sequence[str] = (),
) -> Explanation:
    """The explanation of two sides whose kernels are judged; ``gains``: rate of a precision over that of fp32."""
    parent, child = sides
    found = causes(Pair(parent.kernels, child.kernels, gains, block))
    return Explanation(
        target=target,
        parent=parent,
        child=child,
        causes=tuple(found),
        sentences=_sentences(parent, child, found),
        block=block,
        wall_speedup=wall,
        notes=tuple(notes),
    )


def _sentences(parent: Side, child: Side, found: Sequence[Cause]) -> list[str]:
    speedup = parent.kernel_ms / max(child.kernel_ms, 1e-12)
    said = {"measured": "", "predicted": " (predicted)", "trtexec": ""}[child.how]
    told = [cause.sentence for cause in found[:1]]
    told += [cause.sentence for cause in found[1:2] if cause.lost_ms >= SECOND * found[0].lost_ms]
    if not told and speedup < PAYS:
        kept = sum(child.gmacs().values()) / max(sum(parent.gmacs().values()), 1e-12)
        where = " and ".join(child.gmacs()) or "no products"
        return [
            f"{child.name} executes {kept:.0%} of the multiply-accumulates of {parent.name}, in {where}{said}: there is "
            "nothing in it that could make it faster."
        ]
    if not told:
        return [
            f"{child.name} takes {1 / speedup:.2f} times the time of {parent.name}{said}, as its arithmetic promises."
        ]
    if speedup >= PAYS:
        return [f"{child.name} is {speedup:.2f}× as fast as {parent.name}{said}; this holds it up most:", *told]
    return told if not said else [*told, f"These times are predicted for {child.name}, not measured."]


def _median(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.median(values))
