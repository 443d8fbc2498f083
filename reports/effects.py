"""Figures of latencies: speed-ups by compression, spread of the samples, time by operator class.

Each plot is two functions: a pure one that computes what is shown, and one that draws it and returns the Axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from depthbench.reports import theme as themes
from depthbench.reports.load import Run
from depthbench.reports.pareto import cell_name
from depthbench.reports.summary import significant
from depthbench.reports.theme import LIGHT, Theme, recipe_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++", "oooo")
"""Patterns that tell bars apart in black and white."""


def speedup_grid(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Speed-ups over the uncompressed form on one target, smallest input: a row per model, a column per recipe."""
    cells = table[(table["target"] == target) & table["speedup"].notna()]
    if cells.empty:
        return pd.DataFrame()
    area = cells["height"] * cells["width"]
    cells = cells[area == area.min()]
    grid: pd.DataFrame = cells.pivot_table(index="model", columns="recipe", values="speedup", sort=False)
    return grid.reindex(columns=sorted(grid.columns, key=recipe_rank))


def draw_speedups(table: pd.DataFrame, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """A heat map of :func:`speedup_grid`: orange where the compressed form is slower, blue where it is faster."""
    import matplotlib as mpl
    import seaborn as sns

    grid = speedup_grid(table, target)
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(4.6, 3.2)
        ax.set_title(f"Speed-up on {target}")
        if grid.empty:
            return nothing(ax, "nothing to compare yet")
        sns.heatmap(
            np.log2(grid),
            ax=ax,
            annot=grid,
            fmt=".2f",
            vmin=-1,
            vmax=1,
            cmap=sns.diverging_palette(30, 245, s=80, l=60, center=theme.name, as_cmap=True),
            cbar=False,
            linewidths=1,
            linecolor=theme.paper,
        )
        ax.set(xlabel="", ylabel="")
        ax.tick_params(axis="x", rotation=0)
        ax.tick_params(axis="y", rotation=0)
    return ax


def latency_samples(run: Run, target: str, most: int = 30) -> pd.DataFrame:
    """Timing samples of the ``most`` fastest measured cells of a target: columns ``cell``, ``family``, ``latency_ms``."""
    cells = run.cells[(run.cells["target"] == target) & (run.cells["latency_kind"] == "measured")]
    cells = cells.sort_values("latency_ms").head(most)
    by_id = {record.id: record for record in run.records}
    usual = tuple(cells[["height", "width"]].value_counts().index[0]) if len(cells) else None
    frames = []
    for _, cell in cells.iterrows():
        latency = by_id[cell["id"]].latency
        assert latency is not None
        name = cell_name(cell, usual_size=usual)
        frames.append(pd.DataFrame({"cell": name, "family": cell["family"], "latency_ms": latency.samples_ms}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["cell", "family", "latency_ms"])


def draw_latencies(run: Run, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """Distribution of the timing samples of each measured cell: boxes hold 50, 75, 87.5 … % of them (letter values)."""
    import matplotlib as mpl
    import seaborn as sns

    samples = latency_samples(run, target)
    order = list(dict.fromkeys(samples["cell"]))
    families = list(run.cells["family"])
    colours = {name: theme.families[themes.family_slot(name, families)] for name in set(families)}
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(6.6, 0.9 + 0.27 * max(len(order), 3))
        ax.set_title(f"{target}: timing samples")
        if not order:
            return nothing(ax, "nothing was measured here")
        # the slowest hundredth are single interruptions; the axis would be theirs alone
        shown = samples[samples["latency_ms"] <= samples.groupby("cell")["latency_ms"].transform("quantile", 0.99)]
        sns.boxenplot(
            shown,
            x="latency_ms",
            y="cell",
            order=order,
            hue="family",
            palette=colours,
            legend=False,
            showfliers=False,
            width=0.7,
            saturation=1,
            linewidth=0.4,
            line_kws={"color": theme.ink, "linewidth": 1.2},
            ax=ax,
        )
        ax.set_xscale("log")
        _plain_log(ax)
        ax.set(ylabel="", xlabel="wall time of one inference [ms], without the slowest 1 %")
    return ax


def class_times(run: Run, target: str, most: int = 24) -> pd.DataFrame:
    """Milliseconds by operator class: the ``most`` fastest cells of a target that tell them, fastest first."""
    by_id = {record.id: record for record in run.records}
    cells = run.cells[(run.cells["target"] == target) & run.cells["latency_ms"].notna()].sort_values("latency_ms")
    if cells.empty:
        return pd.DataFrame()
    usual = tuple(cells[["height", "width"]].value_counts().index[0])
    rows: dict[str, dict[str, float]] = {}
    for _, cell in cells.iterrows():
        latency = by_id[cell["id"]].latency
        shares: Mapping[str, float] = (latency.details.get("share_by_class") if latency else None) or {}
        if shares and len(rows) < most:
            name = cell_name(cell, usual_size=usual)
            rows[name] = {kind: share * cell["latency_ms"] for kind, share in shares.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(0.0)
    return table[table.sum().sort_values(ascending=False).index] if len(table) else table


def draw_classes(run: Run, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """Where the time goes: a bar per cell, its parts the operator classes, the commonest first."""
    import matplotlib as mpl

    table = class_times(run, target)
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(6.6, 1.5 + 0.27 * max(len(table), 3))
        ax.set_title(f"{target}: time by operator class")
        if table.empty:
            return nothing(ax, "no cell tells its operator classes")
        shares = table.div(table.sum(axis=1), axis=0)
        left = np.zeros(len(table))
        places = np.arange(len(table))[::-1]
        for i, kind in enumerate(table.columns):
            width = shares[kind].to_numpy()
            look: Any = {"color": theme.families[i % len(theme.families)], "hatch": HATCHES[i % len(HATCHES)]}
            ax.barh(places, width, left=left, label=kind, edgecolor=theme.paper, linewidth=0.5, height=0.78, **look)
            left += width
        for place, total in zip(places, table.sum(axis=1), strict=True):
            ax.text(1.01, place, f"{significant(total)} ms", va="center", fontsize=8.5)
        ax.set_yticks(places, list(table.index))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        ax.set(xlim=(0, 1), ylim=(-0.6, len(table) - 0.4), xlabel="share of the latency")
        ax.grid(visible=False, axis="y")
        figure = themes.figure_of(ax)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1.5)
    return ax


def _plain_log(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def nothing(ax: Axes, text: str) -> Axes:
    """Axes that say why they are empty."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return ax
