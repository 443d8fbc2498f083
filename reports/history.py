"""How the values of artefacts moved over stored runs: one tidy table, a trend and change points per series, a plot.

Advisory only: latencies of different days are of different machine states, and no gate is built on them. Trends are
Theil-Sen slopes (scipy), change points are found by PELT with the cost of least absolute deviations, which one odd run does
not move (ruptures; Killick, Fearnhead and Eckley, *Optimal Detection of Changepoints With a Linear Computational Cost*,
JASA 2012).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from depthbench.reports import theme as themes
from depthbench.reports.load import load_run
from depthbench.reports.theme import LIGHT, Theme
from depthbench.suites.results import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

METRICS = (
    "latency_ms",
    "rmse_m",
    "abs_rel",
    "delta1",
    "params_m",
    "gmacs",
    "size_mb",
    "peak_activation_mb",
)
SERIES = ("artefact", "target", "dataset", "protocol", "metric")
"""What makes two values points of one series; a gate's have no data set and no protocol."""
COLUMNS = ("source", "when", *SERIES, "value")
MIN_FOR_TREND = 3
MIN_FOR_CHANGES = 6
SEGMENT = 2
"""The fewest points that a level needs: a single odd run is an outlier, not a change."""
LEAST_CHANGE = 0.005
GATE_TARGET = "gate"
GATE_VALUES: Mapping[str, tuple[str, float]] = {
    "params": ("params_m", 1e-6),
    "macs": ("gmacs", 1e-9),
    "size": ("size_mb", 1e-6),
    "activation_peak": ("peak_activation_mb", 1e-6),
    "latency_ms": ("latency_ms", 1.0),
}
"""A gate's own counts: the metric of a run that each is, and the factor between them."""


@dataclass(frozen=True)
class ChangePoint:
    """From ``source`` on (the first run of the new level) a series stands at ``after`` where it stood at ``before``."""

    source: str
    when: str
    index: int
    before: float
    after: float


@dataclass(frozen=True)
class Trend:
    """One series: ``slope`` and its 95 % interval are shares of the median per run (None below three runs)."""

    artefact: str
    target: str
    dataset: str
    protocol: str
    metric: str
    n: int
    first: float
    last: float
    slope: float | None
    slope_interval: tuple[float, float] | None
    changes: tuple[ChangePoint, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @property
    def data(self) -> str:
        """The data set and protocol of the run's cells, ``rooms (native)``; empty for a gate."""
        return f"{self.dataset} ({self.protocol})" if self.dataset else ""

    def row(self) -> dict[str, str]:
        """The series as a row of a table for people."""
        told = [f"{c.before:.4g} → {c.after:.4g} at {c.source}" for c in self.changes]
        return {
            "artefact": self.artefact,
            "target": self.target,
            "data": self.data,
            "metric": self.metric,
            "runs": str(self.n),
            "first": f"{self.first:.4g}",
            "last": f"{self.last:.4g}",
            "per run": "" if self.slope is None else f"{self.slope:+.2%}",
            "changes": "; ".join(told),
        }


def load_history(places: Iterable[Path]) -> pd.DataFrame:
    """A row per value (``COLUMNS``), in order of time, of runs and ``gate.json`` files at or below the given places.

    ``ValueError`` when there are none.
    """
    rows: list[dict[str, Any]] = []
    asked = list(places)
    for place in asked:
        if not place.exists():
            raise ValueError(f"{place}: no such file or folder")
        for path in [place] if place.is_file() else sorted([*place.rglob("run.json"), *place.rglob("*gate*.json")]):
            rows += _of_run(path.parent) if path.name == "run.json" else _of_gate(path)
    if not rows:
        raise ValueError(f"{', '.join(map(str, asked))}: no run with finished cells and no gate.json")
    table = pd.DataFrame(rows, columns=list(COLUMNS)).drop_duplicates()
    return table.sort_values("when", kind="stable", ignore_index=True)


def _of_run(folder: Path) -> list[dict[str, Any]]:
    run = load_run(folder)
    when, source = run.manifest.get("started") or "", folder.name
    cells = run.cells[run.cells["status"] == "ok"]
    return [
        {
            "source": source,
            "when": when,
            "artefact": f"{cell['model']}--{cell['recipe']}--{cell['height']}x{cell['width']}",
            "target": cell["target"],
            "dataset": cell["dataset"],
            "protocol": cell["protocol"],
            "metric": metric,
            "value": float(cell[metric]),
        }
        for _, cell in cells.iterrows()
        for metric in METRICS
        if metric in cell.index and not np.isnan(cell[metric])
    ]


def _of_gate(path: Path) -> list[dict[str, Any]]:
    value = read_json(path)
    if not isinstance(value, dict) or value.get("kind") != "gate":
        return []
    rows = []
    for artefact, values in value["values"].items():
        found = {name: values[key] * scale for key, (name, scale) in GATE_VALUES.items() if key in values}
        found |= values.get("accuracy", {})
        source, when = path.parent.name if path.name == "gate.json" else path.stem, value["finished"]
        rows += [
            {
                "source": source,
                "when": when,
                "artefact": artefact,
                "target": GATE_TARGET,
                "dataset": "",
                "protocol": "",
                "metric": name,
                "value": number,
            }
            for name, number in found.items()
        ]
    return rows


def trends(table: pd.DataFrame, metrics: Sequence[str] | None = None) -> list[Trend]:
    """The trend of every series; with ``metrics``, of those alone."""
    return [
        _trend(tuple(map(str, key)), series)
        for key, series in table.groupby(list(SERIES), sort=False)
        if not metrics or key[-1] in metrics
    ]


def _trend(key: tuple[str, ...], series: pd.DataFrame) -> Trend:
    from scipy.stats import theilslopes

    values = series["value"].to_numpy(dtype=np.float64)
    slope, ends = None, None
    if len(values) >= MIN_FOR_TREND:
        scale = abs(float(np.median(values))) or 1.0
        fitted = theilslopes(values)
        slope, ends = float(fitted[0]) / scale, (float(fitted[2]) / scale, float(fitted[3]) / scale)
    places = [0, *change_points(values), len(values)]
    levels = [float(np.median(values[a:b])) for a, b in pairwise(places)]
    changes = tuple(
        ChangePoint(str(series["source"].iloc[at]), str(series["when"].iloc[at]), at, before, after)
        for at, before, after in zip(places[1:-1], levels, levels[1:], strict=False)
    )
    artefact, target, dataset, protocol, metric = key
    return Trend(
        artefact,
        target,
        dataset,
        protocol,
        metric,
        len(values),
        float(values[0]),
        float(values[-1]),
        slope,
        ends,
        changes,
    )


def change_points(values: NDArray[np.float64]) -> list[int]:
    """Indices at which a series (n,) changes its level, in units of its own noise; none below six values.

    The noise is the median absolute difference of neighbours; the penalty, 3 ln n, is that of three more parameters a level
    (place, level and noise) in Schwarz's criterion. Steps below 0.5 % are not told.
    """
    import ruptures

    n = len(values)
    if n < MIN_FOR_CHANGES:
        return []
    scale = abs(float(np.median(values))) or 1.0
    noise = 1.4826 * float(np.median(np.abs(np.diff(values)))) / np.sqrt(2)
    signal = values / max(noise, 1e-3 * scale)
    found = (
        ruptures.Pelt(model="l1", min_size=SEGMENT, jump=1).fit(signal.reshape(-1, 1)).predict(pen=3 * np.log(n))
    )  # (n, 1)
    places = [0, *found]
    levels = [float(np.median(values[a:b])) for a, b in pairwise(places)]
    return [
        int(at)
        for at, before, after in zip(found, levels, levels[1:], strict=False)
        if abs(after - before) > LEAST_CHANGE * scale
    ]


def artefact_series(place: Path) -> dict[tuple[str, str], list[float]]:
    """Earlier values by (artefact, check of a gate), for sparklines; those of gates where there are any, else of runs.

    Of an artefact with cells on several targets or data sets, those of the first alone.
    """
    table = load_history([place])
    gates = table[table["target"] == GATE_TARGET]
    table = gates if len(gates) else table
    checks = {metric: key.removesuffix("_ms") for key, (metric, _) in GATE_VALUES.items()}
    found: dict[tuple[str, str], list[float]] = {}
    for (artefact, *_, metric), series in table.groupby(list(SERIES), sort=False):
        found.setdefault((str(artefact), checks.get(str(metric), str(metric))), series["value"].tolist())
    return found


MOST_NAMED = 6


def draw_history(table: pd.DataFrame, found: Sequence[Trend], ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """Every series relative to its first value, in per cent; the six that moved most are named, changes are marked."""
    import matplotlib as mpl

    moved = sorted(found, key=lambda one: -abs(one.last / one.first - 1) if one.first else 0)
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(7.5, 4.2)
        ax.set_title("Change since the first stored run")
        for i, one in reversed(list(enumerate(moved))):
            chosen = (table[list(SERIES)] == [getattr(one, name) for name in SERIES]).all(axis=1)
            values = table[chosen]["value"].to_numpy(dtype=np.float64)
            relative = 100 * (values / values[0] - 1) if values[0] else values
            named = i < MOST_NAMED
            colour = theme.families[i % len(theme.families)] if named else theme.grid
            where = ", ".join(filter(None, (one.target, one.data)))
            label = f"{one.artefact} {one.metric}" + (f" ({where})" if where else "")
            ax.plot(relative, color=colour, marker="o" if named else "", markersize=3.5, label=label if named else None)
            for change in one.changes:
                ax.axvline(change.index - 0.5, color=colour, linewidth=0.8, linestyle=":")
        ax.set(xlabel="stored run", ylabel="change [%]")
        handles, labels = ax.get_legend_handles_labels()
        if handles:
            ax.legend(handles[::-1], labels[::-1], loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)
    return ax
