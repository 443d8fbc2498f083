"""Looking a name up in a table, with an error that helps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """One line that names the wrong ``name``, the nearest choice if one is near, and all choices, sorted."""
    ordered = sorted(choices)
    near = difflib.get_close_matches(name[:100], ordered, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    return f"unknown {kind} {shown!r}{hint} (choices: {', '.join(ordered)})"


def lookup(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """``table[name]``; ``ValueError`` with :func:`unknown`'s line when it is not there."""
    if name not in table:
        raise ValueError(unknown(kind, name, table))
    return table[name]
