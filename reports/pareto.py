"""Trade-off curves between accuracy and latency, and what to choose from them. Pure computation; no drawing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from depthbench.reports.stats import interval
from depthbench.reports.uncertainty import AMBIGUOUS, Draws, front_probability, hypervolume

COSTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "latency_ms": ("latency", "ms"),
        "energy_mj": ("energy", "mJ"),
        "peak_mem_mb": ("peak memory", "MB"),
        "size_mb": ("file size", "MB"),
    }
)
"""What accuracy is traded for: column: (name, unit)."""

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
    filled; ``left_out`` counts the cells of the group that lack one of the two numbers. ``cost`` is the column of ``COSTS``
    that accuracy is traded for; where it is not the latency, read it for latency here.
    """

    target: str
    dataset: str
    protocol: str
    latency_kind: str
    cells: pd.DataFrame
    left_out: int
    slug: str
    cost: str = "latency_ms"

    @property
    def members(self) -> pd.DataFrame:
        """The cells on the front, fastest first."""
        return self.cells[self.cells["on_front"]]

    @property
    def usual_size(self) -> tuple[int, int]:
        """Height and width that most cells have: a cell's name tells only another size."""
        height, width = self.cells[["height", "width"]].value_counts().index[0]
        return int(height), int(width)


def fronts(table: pd.DataFrame, cost: str = "latency_ms") -> list[Front]:
    """The fronts of a tidy table, in the order in which its targets appear; a group without a full cell has none.

    ``cost`` is a column of ``COSTS``. The rows of each front keep their index in ``table``.
    """
    group = ["target", "dataset", "protocol", "latency_kind"]
    done = table[(table["status"] == "ok") & (table["latency_kind"] != "")]
    complete = done[cost].notna() & done["rmse_m"].notna()
    groups = {key: cells for key, cells in done.groupby(group, sort=False) if complete[cells.index].any()}
    result = []
    for key, everything in groups.items():
        target, dataset, protocol, kind = (str(part) for part in key)
        whole = complete[everything.index]
        cells = everything[whole].sort_values([cost, "rmse_m"], kind="stable")
        cells = cells.assign(on_front=pareto_mask(cells[cost], cells["rmse_m"]))
        alone = sum(other[0] == target for other in groups) == 1
        slug = target if alone else "_".join((target, dataset, protocol, kind))
        slug = slug if cost == "latency_ms" else f"{slug}_{cost}"
        slug = file_name(slug)
        result.append(Front(target, dataset, protocol, kind, cells, int((~whole).sum()), slug, cost))
    return result


def file_name(text: str) -> str:
    """A text as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


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
    the family's own best), ``rmse_m``, ``latency_ms``, ``not_faster`` and ``why_not_faster`` of that cell.
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
                "not_faster": best["not_faster"],
                "why_not_faster": best["why_not_faster"],
            }
        )
    return pd.DataFrame(rows).sort_values(["on_front", "rmse_m"], ascending=[False, True], ignore_index=True)


def judged(front: Front, draws: Draws) -> Front:
    """The same front with ``front_probability`` and ``ambiguous`` for its own cost; ``draws`` are those of the whole run.

    Costs other than the latency are taken as exact.
    """
    probability = front_probability(*_drawn(front, draws))
    unsure = (probability > AMBIGUOUS[0]) & (probability < AMBIGUOUS[1])
    return replace(front, cells=front.cells.assign(front_probability=probability, ambiguous=unsure))


def _drawn(front: Front, draws: Draws) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cost and RMSE of the cells of a front in each draw, (cells, draws) each."""
    here = front.cells.index.to_numpy()
    if front.cost == "latency_ms":
        return draws.latency_ms[here], draws.rmse_m[here]
    exact = front.cells[front.cost].to_numpy(dtype=np.float32)
    return np.repeat(exact[:, None], draws.rmse_m.shape[1], axis=1), draws.rmse_m[here]


def hypervolumes(front: Front, draws: Draws) -> pd.DataFrame:
    """How much of what the whole front spans each family dominates, the most first.

    Columns: ``family``, ``cells``, ``hypervolume`` (0 to 1) and its bootstrap 95 % interval ``lo``, ``hi``. The rectangle
    goes from the lowest cost and error of any cell of the front to the highest, cost by its logarithm. Predicted latencies
    are held where they are: the least of many predictions drawn apart would be less than any of them.
    """
    cells = front.cells
    best = float(cells[front.cost].min()), float(cells["rmse_m"].min())
    corner = float(cells[front.cost].max()), float(cells["rmse_m"].max())
    cost, error = _drawn(front, draws)
    if front.cost == "latency_ms" and front.latency_kind == "predicted":
        cost = np.repeat(cells["latency_ms"].to_numpy(dtype=np.float32)[:, None], cost.shape[1], axis=1)
    rows = []
    for family in dict.fromkeys(cells["family"]):
        own = (cells["family"] == family).to_numpy()
        point = [cells.loc[own, name].to_numpy(dtype=np.float64)[:, None] for name in (front.cost, "rmse_m")]
        low, high = interval(hypervolume(cost[own], error[own], corner, best))
        value = float(hypervolume(point[0], point[1], corner, best)[0])
        rows.append({"family": family, "cells": int(own.sum()), "hypervolume": value, "lo": low, "hi": high})
    return pd.DataFrame(rows).sort_values("hypervolume", ascending=False, ignore_index=True)


def cell_name(cell: pd.Series, *, usual_size: tuple[int, int] | None = None) -> str:
    """A short name of a cell on its target: ``tst-s int8``, with height×width unless that is ``usual_size``."""
    size = (cell["height"], cell["width"])
    name = f"{cell['model']} {cell['recipe']}"
    return name if size == usual_size else f"{name} {size[0]}×{size[1]}"
