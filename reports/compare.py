"""Two runs side by side: what differs between where they were made, then cell by cell with intervals. Pure computation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from depthbench.reports import stats
from depthbench.reports.decide import json_value, paired_difference
from depthbench.reports.environment import environment_rows
from depthbench.reports.load import Run
from depthbench.suites.results import Latency, Record

PLACE = ("model", "recipe", "height", "width", "target", "dataset", "protocol")
"""What makes two cells of different runs the same question."""

EXACT = ("params_m", "gmacs", "size_mb", "n_nodes", "n_quantized_nodes")
MARGIN = 0.05
"""Latencies of two runs that differ by less than this say nothing: they were not measured in turn, and machines drift."""

VOLATILE = frozenset({"argv", "load_1min", "memory_free_mb", "cpu_mhz", "git_revision"})
"""Facts of an environment that differ from run to run without saying anything about the machine."""


@dataclass(frozen=True)
class Comparison:
    """B against A.

    ``environment``: (name, in A, in B) of what differs; ``cells``: a row per cell that both have, with ``COLUMNS``: ``ratio``
    is latency B / A (below 1 is faster), ``change_m`` RMSE B - A, paired per image, ``exact`` the static costs that differ;
    ``speedup``, ``not_faster`` and ``why_not_faster`` are those of B over its own parent;
    ``appeared`` and ``vanished``: rows of ``PLACE`` that only B, or only A, has.
    """

    environment: tuple[tuple[str, str, str], ...]
    cells: pd.DataFrame
    appeared: pd.DataFrame
    vanished: pd.DataFrame

    @property
    def changed(self) -> pd.DataFrame:
        """The cells whose verdict is another than ``same``."""
        return self.cells[self.cells["verdict"] != "same"]


COLUMNS = (
    *PLACE,
    "status_a",
    "status_b",
    "latency_kind",
    "latency_a_ms",
    "latency_b_ms",
    "ratio",
    "ratio_lo",
    "ratio_hi",
    "rmse_a_m",
    "rmse_b_m",
    "change_m",
    "change_lo_m",
    "change_hi_m",
    "images",
    "exact",
    "verdict",
    "speedup",
    "not_faster",
    "why_not_faster",
)


def compare_runs(a: Run, b: Run) -> Comparison:
    """Compare run ``b`` with run ``a``; cells are matched by ``PLACE``, the last one counting where a run has several."""
    left, right = _places(a), _places(b)
    rows = [_compare(a, b, place, left[place], right[place]) for place in left if place in right]
    return Comparison(
        environment=environment_differences(a, b),
        cells=pd.DataFrame(rows, columns=list(COLUMNS)),
        appeared=pd.DataFrame([place for place in right if place not in left], columns=list(PLACE)),
        vanished=pd.DataFrame([place for place in left if place not in right], columns=list(PLACE)),
    )


def _places(run: Run) -> dict[tuple[Any, ...], int]:
    return {tuple(row): i for i, row in enumerate(run.cells[list(PLACE)].itertuples(index=False, name=None))}


def environment_differences(a: Run, b: Run) -> tuple[tuple[str, str, str], ...]:
    """(name, in A, in B) of every fact of the machines, programs, data and suites that differs, one without it having ``–``."""
    sides = []
    for run in (a, b):
        facts = {name: text for name, text, _ in environment_rows(run) if name.rsplit(".", 1)[-1] not in VOLATILE}
        data = run.manifest.get("dataset") or {}
        facts |= {f"dataset.{name}": str(value) for name, value in data.items()}
        suite = run.manifest.get("suite") or {}
        facts |= {"measure": str((suite.get("measure") or {}).get("profile", ""))} if isinstance(suite, Mapping) else {}
        sides.append(facts)
    names = dict.fromkeys((*sides[0], *sides[1]))
    pairs = ((name, sides[0].get(name, "–"), sides[1].get(name, "–")) for name in names)
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def _compare(a: Run, b: Run, place: tuple[Any, ...], i: int, j: int) -> dict[str, Any]:
    old, new = a.cells.iloc[i], b.cells.iloc[j]
    records = a.records[i], b.records[j]
    row: dict[str, Any] = dict(zip(PLACE, place, strict=True))
    row |= {"status_a": old["status"], "status_b": new["status"]}
    row |= {"latency_a_ms": old["latency_ms"], "latency_b_ms": new["latency_ms"]}
    row |= {"rmse_a_m": old["rmse_m"], "rmse_b_m": new["rmse_m"]}
    row |= _latency(old, new, records)
    change = paired_difference(a.evaluation(records[0]), b.evaluation(records[1]), "rmse_m")
    row |= {
        "change_m": change.mean,
        "change_lo_m": change.low,
        "change_hi_m": change.high,
        "images": change.images,
    }
    row["exact"] = "; ".join(_exact(old, new))
    row["verdict"] = _verdict(row)
    return row | {name: new[name] for name in ("speedup", "not_faster", "why_not_faster")}


def _latency(old: pd.Series, new: pd.Series, records: tuple[Record, Record]) -> dict[str, Any]:
    kinds = [kind for kind in dict.fromkeys((old["latency_kind"], new["latency_kind"])) if kind]
    row: dict[str, Any] = {"latency_kind": " → ".join(kinds)}
    if len(kinds) == 1 and pd.notna(old["latency_ms"]) and pd.notna(new["latency_ms"]):
        row["ratio"] = new["latency_ms"] / old["latency_ms"]
        before, after = (record.latency or Latency("measured") for record in records)
        if kinds == ["measured"]:
            row["ratio_lo"], row["ratio_hi"] = stats.median_ratio_interval(after.samples_ms, before.samples_ms)
    return row


def _exact(old: pd.Series, new: pd.Series) -> list[str]:
    pairs = ((name, float(old[name]), float(new[name])) for name in EXACT)
    return [
        f"{name} {x:.4g} → {y:.4g}"
        for name, x, y in pairs
        if not (math.isnan(x) or math.isnan(y)) and not np.isclose(x, y, rtol=1e-6)
    ]


def _verdict(row: Mapping[str, Any]) -> str:
    """What differs for certain: an interval that excludes no change (for latency, no change beyond ``MARGIN``)."""
    if row["status_a"] != row["status_b"]:
        return f"{row['status_a']} → {row['status_b']}"
    words = []
    low, high = row.get("ratio_lo", math.nan), row.get("ratio_hi", math.nan)
    if math.isnan(low) and row["latency_kind"] == "predicted":
        low = high = row.get("ratio", 1.0)
    words += ["faster"] if high < 1 - MARGIN else ["slower"] if low > 1 + MARGIN else []
    words += ["more accurate"] if row["change_hi_m"] < 0 else ["less accurate"] if row["change_lo_m"] > 0 else []
    words += ["other file"] if row["exact"] else []
    return ", ".join(words) or "same"


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON-ready values; what is unknown is None."""

    def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
        return [{str(k): json_value(v) for k, v in row.items()} for row in table.to_dict("records")]

    return {
        "environment": [{"name": name, "a": a, "b": b} for name, a, b in comparison.environment],
        "cells": rows(comparison.cells),
        "appeared": rows(comparison.appeared),
        "vanished": rows(comparison.vanished),
    }
