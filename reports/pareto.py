"""Trade-off curves between accuracy and latency, and what to choose from them. Pure computation; no drawing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

TOLERANCE = 0.05
"""The best choice may have this much more RMSE, relatively, than the most accurate cell."""


def pareto_mask(cost: ArrayLike, error: ArrayLike) -> NDArray[np.bool_]:
    """True where no other point is at least as good in both of ``cost`` and ``error`` (n,) and better in one.

    Both are minimised. Points that are equal in both stand or fall together.
    """
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(error, dtype=np.float64)
    mask = np.zeros(len(x), dtype=bool)
    best_before, best_here, here = np.inf, np.inf, -np.inf
    for i in np.lexsort((y, x)):
        if x[i] > here:
            best_before, best_here, here = min(best_before, best_here), y[i], x[i]
        mask[i] = y[i] < best_before and y[i] == best_here
    return mask


@dataclass(frozen=True)
class Front:
    """Cells that may be compared: one target, one data set and protocol, and one kind of latency.

    ``cells`` has the rows of the tidy table with status ok, a latency and an RMSE, by rising latency, ``on_front``
    filled; ``left_out`` counts the cells of the group that lack one of the two numbers.
    """

    target: str
    dataset: str
    protocol: str
    latency_kind: str
    cells: pd.DataFrame
    left_out: int
    slug: str

    @property
    def members(self) -> pd.DataFrame:
        """The cells on the front, fastest first."""
        return self.cells[self.cells["on_front"]]

    @property
    def usual_size(self) -> tuple[int, int]:
        """Height and width that most cells have: a cell's name tells only another size."""
        height, width = self.cells[["height", "width"]].value_counts().index[0]
        return int(height), int(width)


def fronts(table: pd.DataFrame) -> list[Front]:
    """The fronts of a tidy table, in the order in which its targets appear; a group without a full cell has none."""
    group = ["target", "dataset", "protocol", "latency_kind"]
    done = table[(table["status"] == "ok") & (table["latency_kind"] != "")]
    complete = done["latency_ms"].notna() & done["rmse_m"].notna()
    groups = {key: cells for key, cells in done.groupby(group, sort=False) if complete[cells.index].any()}
    result = []
    for key, everything in groups.items():
        target, dataset, protocol, kind = (str(part) for part in key)
        whole = complete[everything.index]
        cells = everything[whole].sort_values(["latency_ms", "rmse_m"], kind="stable")
        cells = cells.assign(on_front=pareto_mask(cells["latency_ms"], cells["rmse_m"]))
        alone = sum(other[0] == target for other in groups) == 1
        slug = target if alone else "_".join((target, dataset, protocol, kind))
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", slug)
        result.append(Front(target, dataset, protocol, kind, cells, int((~whole).sum()), slug))
    return result


@dataclass(frozen=True)
class Choice:
    """What to take from a front, each a row of its cells.

    ``best`` is the fastest cell whose RMSE is at most ``TOLERANCE`` above that of ``most_accurate``.
    """

    best: pd.Series
    most_accurate: pd.Series
    fastest: pd.Series


def choose(front: Front) -> Choice:
    """The three choices of a front that has at least one cell."""
    members = front.members  # by rising latency, so by falling RMSE
    limit = members["rmse_m"].min() * (1 + TOLERANCE)
    return Choice(
        best=members[members["rmse_m"] <= limit].iloc[0], most_accurate=members.iloc[-1], fastest=members.iloc[0]
    )


def families(front: Front) -> pd.DataFrame:
    """How the families of networks compare on a front: one row each, the one with most of the front first.

    Columns: ``family``, ``on_front`` and ``cells`` (counts), ``best`` (fastest id whose RMSE is within ``TOLERANCE`` of
    the family's own best), ``rmse_m`` and ``latency_ms`` of that cell.
    """
    rows = []
    for family, cells in front.cells.groupby("family", sort=False):
        best = cells[cells["rmse_m"] <= cells["rmse_m"].min() * (1 + TOLERANCE)].iloc[0]
        rows.append(
            {
                "family": family,
                "on_front": int(cells["on_front"].sum()),
                "cells": len(cells),
                "best": best["id"],
                "rmse_m": best["rmse_m"],
                "latency_ms": best["latency_ms"],
            }
        )
    return pd.DataFrame(rows).sort_values(["on_front", "rmse_m"], ascending=[False, True], ignore_index=True)


def cell_name(cell: pd.Series, *, usual_size: tuple[int, int] | None = None) -> str:
    """A short name of a cell on its target: ``tst-s int8``, with height×width unless that is ``usual_size``."""
    size = (cell["height"], cell["width"])
    name = f"{cell['model']} {cell['recipe']}"
    return name if size == usual_size else f"{name} {size[0]}×{size[1]}"
