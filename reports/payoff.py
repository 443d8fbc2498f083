"""Compressed forms that did not pay: less than 1.2 times as fast as their parent, each with the flag and the reason.

Every table and figure that shows such a form marks it and tells why. Pure computation.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from depthbench.suites.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAYS = 1.2
"""Below this many times the parent's speed a compressed form has not paid."""

SLOWER, HARDLY = "▼", "▽"
"""Marks of a form that is slower than its parent, and of one that is less than ``PAYS`` times as fast."""

LEGEND = f"{SLOWER} slower than its uncompressed form, {HARDLY} less than {PAYS:g} times as fast"

FLAGGED = "not-faster"
"""``gid`` of what a figure says of such forms."""

_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_BOUNDS = {"launch": "launching its kernels, not arithmetic", "memory": "memory, not arithmetic"}
_SAME_MACS = 0.97
_MOSTLY = 0.9


def mark(speedup: float) -> str:
    """The mark of a speed-up over the parent; empty when the form paid, or has no parent."""
    return SLOWER if speedup < 1 else HARDLY if speedup < PAYS else ""


def reason(record: Record, parent: Record) -> str:
    """Why a form is hardly faster than its parent: the first sentence of its explanation, else what its costs tell.

    Where neither tells, the command that will.
    """
    told = (record.explanation or {}).get("sentences") or []
    if told:
        first = str(told[0])
        return f"{first} {told[1]}" if first.endswith(":") and len(told) > 1 else first
    return _static_reason(record, parent) or f"reason unknown: run {_command(record, parent)}"


def _command(record: Record, parent: Record) -> str:
    size = f" --size {record.size[0]}x{record.size[1]}"
    forms = [f"{each.model}:{each.recipe}" for each in (parent, record)]
    return f"depthbench explain {' '.join(forms)} --target {record.target}{size}"


def _static_reason(record: Record, parent: Record) -> str:
    """What the counts of the two files and a prediction's bound say; empty when they say nothing."""
    share = next((step["int8_macs_share"] for step in record.compression if "int8_macs_share" in step), None)
    if share is not None and share < _MOSTLY:
        return f"only {share:.0%} of its multiply-accumulates are executed in INT8"
    products = _products(record.profile)
    quantized = int(record.profile.get("quantized_nodes") or 0)
    if (record.precision or "").startswith("int8") and products and quantized < _MOSTLY * products:
        return f"only {quantized} of {products} convolutions and matrix products are in INT8"
    bound = record.latency.bound if record.latency else None
    if bound in _BOUNDS and record.latency and record.latency.kind == "predicted":
        return f"predicted to be bound by {_BOUNDS[bound]}"
    before, after = (_macs(each.profile) for each in (parent, record))
    if record.precision == parent.precision and before and after and after > _SAME_MACS * before:
        return f"it executes {after / before:.0%} of its parent's multiply-accumulates"
    return ""


def _products(profile: Mapping[str, Any]) -> int:
    nodes = profile.get("nodes") or {}
    kinds = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
    return sum(int(nodes.get(kind, 0)) for kind in kinds)


def _macs(profile: Mapping[str, Any]) -> float | None:
    counts = profile.get("gmacs") or {}
    return next((counts[name] for name in ("onnx", "fvcore", "ptflops") if counts.get(name)), None)


def fact(why: str) -> str:
    """A reason without its remedy, for figures."""
    if why.startswith("reason unknown"):
        return why
    return why.rpartition(": ")[0] or why.rstrip(".")


def brief(why: str) -> str:
    """A fact without the names of the files, so that many forms can share its number."""
    return "reason unknown: run depthbench explain" if why.startswith("reason unknown") else fact(why)


class Notes:
    """The reasons of the flagged cells of a table, numbered in the order in which they are first met."""

    def __init__(self, cells: pd.DataFrame, told: Callable[[str], str] = str) -> None:
        """``told``: how a reason is worded, :func:`brief` in a crowded figure."""
        self._told = told
        reasons = dict.fromkeys(map(self._told, cells.loc[cells["not_faster"], "why_not_faster"]))
        self._numbers = {why: number for number, why in enumerate(reasons, start=1)}

    def mark(self, cell: pd.Series) -> str:
        """The mark of a cell with the number of its reason as a superscript; empty when it paid."""
        if not cell["not_faster"]:
            return ""
        return mark(cell["speedup"]) + str(self._numbers[self._told(cell["why_not_faster"])]).translate(_DIGITS)

    def lines(self, width: int | None = None) -> list[str]:
        """What the marks mean, then a line a reason, more where it is wider than ``width``; empty when no cell is flagged."""
        told = [f"{str(number).translate(_DIGITS)} {why}" for why, number in self._numbers.items()]
        lines = [f"{LEGEND}:", *told] if told else []
        return [
            part for line in lines for part in (textwrap.wrap(line, width, subsequent_indent="  ") if width else [line])
        ]


def write_below(ax: Axes, lines: Sequence[str]) -> None:
    """Write ``lines`` below the axes and what their label says."""
    told = [text for text in (ax.get_xlabel(), *lines) if text]
    if lines:
        ax.set_xlabel("\n".join(told), x=0, ha="left", fontsize=7.5, linespacing=1.4)


def figure_lines(cells: pd.DataFrame, names: Iterable[str], width: int = 118) -> list[str]:
    """The reasons of the flagged ``cells`` as lines of at most ``width`` characters, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, (_, cell) in zip(names, cells.iterrows(), strict=True):
        if cell["not_faster"]:
            by_reason.setdefault(fact(cell["why_not_faster"]), []).append(f"{name} {cell['speedup']:.2f}×")
    lines = textwrap.wrap(LEGEND, width) if by_reason else []
    for why, members in by_reason.items():
        lines += textwrap.wrap(f"{', '.join(members)}: {why}", width, subsequent_indent="   ")
    return lines
