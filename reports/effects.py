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
from depthbench.reports.payoff import FLAGGED, Notes, brief
from depthbench.reports.summary import significant
from depthbench.reports.theme import LIGHT, Theme, recipe_rank, write_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++", "oooo")
"""Patterns that tell bars apart in black and white."""


def speedup_grid(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Speed-ups over the uncompressed form on one target, smallest input: a row per model, a column per recipe.

    Which of them did not pay and why stands in :func:`speedup_cells`.
    """
    cells = speedup_cells(table, target)
    if cells.empty:
        return pd.DataFrame()
    grid: pd.DataFrame = cells.pivot_table(index="model", columns="recipe", values="speedup", sort=False)
    return grid.reindex(columns=sorted(grid.columns, key=recipe_rank))


def speedup_cells(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """The cells of one target that :func:`speedup_grid` shows: those with a parent, smallest input."""
    cells = table[(table["target"] == target) & table["speedup"].notna()]
    area = cells["height"] * cells["width"]
    smallest: pd.DataFrame = cells[area == area.min()]
    return smallest


def draw_speedups(table: pd.DataFrame, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """A heat map of :func:`speedup_grid`: orange where the compressed form is slower, blue where it is faster.

    Forms that did not pay are marked with the number of their reason; the reasons stand below.
    """
    import matplotlib as mpl
    import seaborn as sns

    grid = speedup_grid(table, target)
    cells = speedup_cells(table, target)
    notes = Notes(cells, brief)
    slow = notes.lines(80)
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(4.6, 1 + 0.36 * max(len(grid), 3) + 0.15 * len(slow))
        ax.set_title(f"Speed-up on {target}")
        if grid.empty:
            return nothing(ax, "nothing to compare yet")
        sns.heatmap(
            np.log2(grid),
            ax=ax,
            annot=marked_grid(table, target, notes).reindex_like(grid).fillna(""),
            fmt="",
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
        write_lines(ax, slow, 20, gid=FLAGGED, x=0.01, across="figure fraction")
    return ax


def marked_grid(table: pd.DataFrame, target: str, notes: Notes) -> pd.DataFrame:
    """The speed-ups of :func:`speedup_grid` as text, each with its mark; ``notes`` are those of :func:`speedup_cells`."""
    cells = speedup_cells(table, target)
    texts = [f"{cell['speedup']:.2f}\N{NO-BREAK SPACE}{notes.mark(cell)}".strip() for _, cell in cells.iterrows()]
    marked: pd.DataFrame = cells.assign(text=texts).pivot_table(
        index="model", columns="recipe", values="text", aggfunc="first", sort=False
    )
    return marked


def latency_samples(run: Run, target: str, most: int = 30) -> pd.DataFrame:
    """Timing samples of the ``most`` fastest measured cells of a target.

    Columns: ``cell``, ``family``, ``latency_ms``, and ``why_not_faster`` of cells that did not pay.
    """
    cells = measured_cells(run, target, most)
    by_id = {record.id: record for record in run.records}
    names = marked_names(cells)
    frames = []
    for name, (_, cell) in zip(names, cells.iterrows(), strict=True):
        latency = by_id[cell["id"]].latency
        assert latency is not None
        columns = {"cell": name, "family": cell["family"], "latency_ms": latency.samples_ms}
        frames.append(pd.DataFrame({**columns, "why_not_faster": cell["why_not_faster"]}))
    empty = pd.DataFrame(columns=["cell", "family", "latency_ms", "why_not_faster"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def measured_cells(run: Run, target: str, most: int = 30) -> pd.DataFrame:
    """The ``most`` fastest measured cells of a target."""
    cells = run.cells[(run.cells["target"] == target) & (run.cells["latency_kind"] == "measured")]
    return cells.sort_values("latency_ms").head(most)


def marked_names(cells: pd.DataFrame) -> list[str]:
    """Short names of cells of one target, those that did not pay with the mark and number of ``Notes(cells, brief)``."""
    if cells.empty:
        return []
    height, width = cells[["height", "width"]].value_counts().index[0]
    notes = Notes(cells, brief)
    return [f"{cell_name(cell, usual_size=(height, width))} {notes.mark(cell)}".strip() for _, cell in cells.iterrows()]


def draw_latencies(run: Run, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """Distribution of the timing samples of each measured cell: boxes hold 50, 75, 87.5 … % of them (letter values)."""
    import matplotlib as mpl
    import seaborn as sns

    samples = latency_samples(run, target)
    order = list(dict.fromkeys(samples["cell"]))
    slow = Notes(measured_cells(run, target), brief).lines(115)
    families = list(run.cells["family"])
    colours = {name: theme.families[themes.family_slot(name, families)] for name in set(families)}
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(6.6, 0.9 + 0.27 * max(len(order), 3) + 0.15 * len(slow))
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
        write_lines(ax, slow, gid=FLAGGED, x=0.01, across="figure fraction")
    return ax


def class_times(run: Run, target: str, most: int = 14) -> pd.DataFrame:
    """Milliseconds by operator class: the ``most`` fastest cells of a target that tell them, fastest first.

    A row is named by its cell, marked where that did not pay; the reasons are those of :func:`class_cells`.
    """
    cells = class_cells(run, target, most)
    if cells.empty:
        return pd.DataFrame()
    shares = _shares(run)
    rows = {
        name: {kind: share * cell["latency_ms"] for kind, share in shares[cell["id"]].items()}
        for name, (_, cell) in zip(marked_names(cells), cells.iterrows(), strict=True)
    }
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(0.0)
    return table[[kind for kind in operator_classes(run) if kind in table]]


def operator_classes(run: Run) -> list[str]:
    """The operator classes that a run tells times of, those that take the most of it first: one order for every figure."""
    shares = pd.DataFrame(list(_shares(run).values())).fillna(0.0)
    return list(shares.sum().sort_values(ascending=False, kind="stable").index)


def class_cells(run: Run, target: str, most: int = 14) -> pd.DataFrame:
    """The cells of :func:`class_times`: the ``most`` fastest of a target that tell their time by operator class."""
    shares = _shares(run)
    told = run.cells["id"].map(lambda name: bool(shares.get(name)))
    cells = run.cells[(run.cells["target"] == target) & run.cells["latency_ms"].notna() & told.astype(bool)]
    return cells.sort_values("latency_ms").head(most)


def _shares(run: Run) -> dict[str, Mapping[str, float]]:
    """Time by operator class of the records that tell it, as shares."""
    details = {record.id: record.latency.details for record in run.records if record.latency}
    return {name: told["share_by_class"] for name, told in details.items() if told.get("share_by_class")}


def draw_classes(run: Run, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """Where the time goes: a bar per cell, its parts the operator classes, which look the same in every figure of a run."""
    import matplotlib as mpl

    table = class_times(run, target)
    slow = Notes(class_cells(run, target), brief).lines(115)
    order = operator_classes(run)
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(6.6, 1.5 + 0.27 * max(len(table), 3) + 0.15 * len(slow))
        ax.set_title(f"{target}: time by operator class")
        if table.empty:
            return nothing(ax, "no cell tells its operator classes")
        shares = table.div(table.sum(axis=1), axis=0)
        left = np.zeros(len(table))
        places = np.arange(len(table))[::-1]
        for kind in table.columns:
            i = order.index(kind)
            width = shares[kind].to_numpy()
            look: Any = {"color": theme.families[i % len(theme.families)], "hatch": HATCHES[i % len(HATCHES)]}
            ax.barh(places, width, left=left, label=kind, edgecolor=theme.paper, linewidth=0.5, height=0.78, **look)
            left += width
        for place, total in zip(places, table.sum(axis=1), strict=True):
            ax.text(1.01, place, f"{significant(total)} ms", va="center", fontsize=8.5)
        ax.set_yticks(places, list(table.index))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        ax.set(xlim=(0, 1), ylim=(-0.6, len(table) - 0.4), xlabel="share of the latency")
        write_lines(ax, slow, gid=FLAGGED, x=0.01, across="figure fraction")
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
