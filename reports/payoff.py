"""Compressed forms that did not pay: less than 1.2 times as fast as their parent, each with the flag and the reason.

Every table and figure that shows such a form marks it and tells why. Pure computation.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from depthbench.suites.results import Record

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
    """A reason without its remedy."""
    if why.startswith("reason unknown"):
        return why
    return why.rpartition(": ")[0] or why.rstrip(".")


def general(why: str) -> str:
    """A reason without the names of the files, so that many forms can share its number."""
    return "reason unknown: run depthbench explain on the two forms" if why.startswith("reason unknown") else why


def brief(why: str) -> str:
    """A general reason without its remedy, for figures."""
    return fact(general(why))


class Notes:
    """The reasons of the flagged cells of a table, numbered in the order in which they are first met.

    Reasons that differ in their numbers alone are one, with the range of each number.
    """

    def __init__(self, cells: pd.DataFrame, told: Callable[[str], str] = general) -> None:
        """``told``: how a reason is worded, :func:`brief` in a figure."""
        self._told = told
        self._alike: dict[str, dict[str, None]] = {}
        for why in cells.loc[cells["not_faster"], "why_not_faster"]:
            self._alike.setdefault(_pattern(told(why)), {})[why] = None

    def mark(self, cell: Mapping[str, Any] | pd.Series) -> str:
        """The mark of a cell with the number of its reason as a superscript; empty when it paid."""
        if not cell["not_faster"]:
            return ""
        number = list(self._alike).index(_pattern(self._told(cell["why_not_faster"]))) + 1
        return mark(cell["speedup"]) + str(number).translate(_DIGITS)

    def reasons(self) -> list[str]:
        """A line a reason, its number before it; empty when no cell is flagged."""
        lone = fact if self._told is brief else str  # a command that no other form shares can be told in full
        told = [
            lone(*alike) if len(alike) == 1 else _merged(dict.fromkeys(map(self._told, alike)))
            for alike in self._alike.values()
        ]
        return [f"{str(number).translate(_DIGITS)} {why}" for number, why in enumerate(told, start=1)]

    def lines(self, width: int | None = None) -> list[str]:
        """What the marks mean, then the reasons, each more lines where it is wider than ``width``; empty without any."""
        told = self.reasons()
        lines = [f"{LEGEND}:", *told] if told else []
        return [
            part for line in lines for part in (textwrap.wrap(line, width, subsequent_indent="  ") if width else [line])
        ]


_NUMBER = re.compile(r"(\(?)(\d+(?:\.\d+)?)(%?[,;:.)]*)")
"""A word that is a number: those within the name of a layer are none."""


def _pattern(why: str) -> str:
    """What reasons that differ in their numbers alone have in common."""
    return " ".join(_NUMBER.sub(r"\1#\3", word) if _NUMBER.fullmatch(word) else word for word in why.split())


def _merged(alike: Iterable[str]) -> str:
    """Reasons of one pattern as one, each number the range of theirs."""
    words = []
    for column in zip(*(why.split() for why in alike), strict=True):
        numbers = [number for word in column if (number := _NUMBER.fullmatch(word))]
        if len(set(column)) == 1 or not numbers:
            words.append(column[0])
            continue
        before, _, after = numbers[0].groups()
        values = sorted((number[2] for number in numbers), key=float)
        words.append(f"{before}{values[0]}–{values[-1]}{after}")
    return " ".join(words)
