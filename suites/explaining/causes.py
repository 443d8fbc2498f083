"""Why a compressed form is not as much faster as its arithmetic promises: every kernel's lost time, put down to a cause.

A kernel's lost time is what it took beyond its promise: the time of the same layer in the parent, divided by what fewer MACs
and narrower numbers should bring; a layer that kept its MACs was to share in the saving of the whole. Conversions were not
promised at all. Causes are ranked by the time they lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from depthbench.suites.explaining.kernels import Kernel, base_operator
from depthbench.suites.explaining.matching import matched
from depthbench.suites.explaining.sentences import SENTENCES

CAUSES: Mapping[str, str] = {
    "conversions": "time spent on quantizing, dequantizing and reordering between kernels",
    "float operators": "operators that stayed in floating point in a file meant for narrower numbers",
    "memory": "kernels that wait for memory, whatever their arithmetic",
    "launch": "kernels too small to be worth their launch",
    "padding": "channels that the kernels fill up to the next multiple",
    "unchanged layers": "layers whose multiply-accumulates did not fall",
    "kernels": "kernels that reach less of the attainable rate than those of the parent",
}
"""What can keep a form from being faster, by name."""

SLOW = 4.0
"""A kernel that takes more than this times what its limit allows is not held up by that limit but slow itself."""

PADDED = 0.9
"""Below this share of useful MACs a layer counts as padded."""

SECOND = 0.35
"""Another cause is told too when it lost this share of what the first one lost."""

LEAST = 0.02
"""A cause that lost less than this share of the child's time is not told."""

_COSTLY = frozenset(
    {"Elu", "Erf", "Exp", "Gelu", "GridSample", "Log", "Mish", "Pow", "Sigmoid", "Sin", "Softplus", "Tanh"}
)
"""Elementwise operators that compute more than they move."""


@dataclass(frozen=True)
class Cause:
    """One cause: ``lost_ms`` beyond the promise, ``ms`` and ``share`` of the child's time that it is about, and its sentence.

    ``nodes``: the kernels it is about, those first that lost most.
    """

    name: str
    lost_ms: float
    ms: float
    share: float
    nodes: tuple[Kernel, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The cause as JSON-ready values; of the nodes the first five alone."""
        return {
            "cause": self.name,
            "lost_ms": self.lost_ms,
            "ms": self.ms,
            "share": self.share,
            "nodes": len(self.nodes),
            "first": [node.name for node in self.nodes[:5]],
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Pair:
    """The two forms, their kernels judged by the machine's rates; ``gains``: rate of a precision over that of fp32.

    ``block``: to what multiple of channels the kernels fill up (1: not at all).
    """

    parent: Sequence[Kernel]
    child: Sequence[Kernel]
    gains: Mapping[str, float]
    block: int

    @property
    def child_ms(self) -> float:
        """Time of all of the child's kernels."""
        return sum(kernel.ms for kernel in self.child)

    @property
    def parent_ms(self) -> float:
        """Time of all of the parent's kernels."""
        return sum(kernel.ms for kernel in self.parent)

    @property
    def precision(self) -> str:
        """The narrowest precision that the child is meant to compute in: ``int8``, ``fp16`` or ``fp32``."""
        found = {kernel.precision for kernel in self.child if not kernel.is_conversion}
        before = {kernel.precision for kernel in self.parent if not kernel.is_conversion}
        if "int8" in found or (self._quantizes(self.child) > self._quantizes(self.parent)):
            return "int8"
        return "fp16" if "fp16" in found - before else "fp32"

    @property
    def label(self) -> str:
        """The child in words: ``INT8``, ``FP16``, or ``child``."""
        return {"int8": "INT8", "fp16": "FP16"}.get(self.precision, "child")

    @staticmethod
    def _quantizes(kernels: Iterable[Kernel]) -> int:
        return sum(kernel.op in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear") for kernel in kernels)


def causes(pair: Pair) -> list[Cause]:
    """The causes that lost time, the greatest loss first; empty when the child keeps every promise."""
    before = {id(child): parent for parent, child in matched(pair.parent, pair.child)}
    gain = max(pair.gains.get(pair.precision, 1.0), 1.0)
    fewer = _macs(pair.child) / max(_macs(pair.parent), 1)
    nodes: defaultdict[str, list[tuple[float, Kernel]]] = defaultdict(list)
    for kernel in pair.child:
        parent = before.get(id(kernel))
        name = _cause(kernel, parent, pair.precision)
        if kernel.is_conversion:
            promised = 0.0
        elif parent is not None:
            kept = kernel.useful_macs / max(parent.useful_macs, 1)
            promised = parent.ms * min(kept, fewer, 1.0) / gain
        else:
            promised = kernel.ms * (1 / gain if pair.precision != "fp32" else min(fewer, 1.0))
        nodes[name].append((kernel.ms - promised, kernel))
    found = []
    for name, members in nodes.items():
        lost = sum(ms for ms, _ in members)
        if name == "conversions":
            lost -= sum(kernel.ms for kernel in pair.parent if kernel.is_conversion)
        if lost > LEAST * pair.child_ms:
            own = tuple(kernel for _, kernel in sorted(members, key=lambda member: -member[0]))
            taken = sum(kernel.ms for kernel in own)
            share = taken / pair.child_ms
            found.append(Cause(name, lost, taken, share, own, SENTENCES[name](pair, own, share)))
    return sorted(found, key=lambda cause: -cause.lost_ms)


def _macs(kernels: Iterable[Kernel]) -> int:
    return sum(kernel.useful_macs for kernel in kernels)


def _cause(kernel: Kernel, parent: Kernel | None, precision: str) -> str:
    """The one cause that a kernel's lost time is put down to."""
    limited = kernel.ms <= SLOW * kernel.ideal_ms
    same = parent is not None and kernel.useful_macs >= 0.97 * parent.useful_macs
    signs = {
        "conversions": kernel.is_conversion,
        "launch": kernel.bound == "launch" and limited,
        "memory": kernel.bound == "memory" and limited and not _costly(kernel),
        "float operators": precision != "fp32" and kernel.precision not in (precision, "int8"),
        "padding": kernel.is_product and kernel.useful_macs < PADDED * kernel.macs,
        "unchanged layers": same and parent is not None and kernel.precision == parent.precision,
    }
    return next((name for name, seen in signs.items() if seen), "kernels")


def _costly(kernel: Kernel) -> bool:
    return base_operator(kernel.op) in _COSTLY or kernel.kind == "normalization"
