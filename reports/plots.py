"""Figures of a run.

Each plot is two functions: a pure one that computes what is shown (:func:`depthbench.reports.pareto.fronts`,
:func:`speedup_grid`), and one that draws it and returns the Axes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from depthbench.reports import theme as themes
from depthbench.reports.labels import nearest, place_labels
from depthbench.reports.pareto import Front, cell_name
from depthbench.reports.theme import DARK, LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DARK", "LIGHT", "draw_front", "draw_speedups", "front_title", "speedup_grid"]


def front_title(front: Front) -> str:
    """The title of a front; it says whether its latencies were measured or predicted."""
    return f"{front.target}: {front.latency_kind} latency"


def draw_front(
    front: Front, ax: Axes | None = None, *, theme: Theme = LIGHT, families: list[str] | None = None
) -> Axes:
    """RMSE against latency of the cells of a front, its members joined and named.

    Colour and mark tell the family, the filling of the mark the recipe, its size the input's; bars are 95 % intervals,
    or the interval of a prediction. ``families`` are those of the whole run, so that colours agree between figures.
    """
    import matplotlib as mpl

    families = families or list(front.cells["family"])
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(6.6, 5.2)
        _set_scales(ax, front)
        _draw_cells(ax, front, theme, families)
        _draw_line(ax, front, theme)
        _legend(ax, front, theme, families)
        ax.set_title(front_title(front), pad=8)
        ax.set_xlabel(f"{front.latency_kind} latency [ms], batch 1")
        ax.set_ylabel(f"RMSE [m] on {front.dataset} ({front.protocol})")
        _name_members(ax, front, theme, _staircase(ax, front) + _bars(front))
    return ax


def _set_scales(ax: Axes, front: Front) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    cells = front.cells
    low = cells["latency_lo_ms"].fillna(cells["latency_ms"]).min()
    high = cells["latency_hi_ms"].fillna(cells["latency_ms"]).max()
    ax.set_xscale("log")
    ax.set_xlim(low / 1.35, high * 1.3)
    decades = np.log10(high / low)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    bottom, top = cells["rmse_m"].min(), cells["rmse_m"].max()
    room = max(top - bottom, 0.05 * top)
    ax.set_ylim(bottom - 0.16 * room, top + 0.22 * room)


def _mark_size(cell: pd.Series, areas: list[int]) -> float:
    return 6.5 + 2.5 * areas.index(cell["height"] * cell["width"])


def _areas(front: Front) -> list[int]:
    return sorted(set(front.cells["height"] * front.cells["width"]))


def _draw_cells(ax: Axes, front: Front, theme: Theme, families: list[str]) -> None:
    areas = _areas(front)
    for _, cell in front.cells[::-1].iterrows():  # larger inputs are slower: drawn first, under the small marks
        slot = themes.family_slot(cell["family"], families)
        colour, member = theme.families[slot], bool(cell["on_front"])
        ax.errorbar(
            cell["latency_ms"],
            cell["rmse_m"],
            xerr=_bar(cell, "latency_ms", "latency_lo_ms", "latency_hi_ms"),
            yerr=_bar(cell, "rmse_m", "rmse_lo_m", "rmse_hi_m") if member else None,
            fmt="none",
            ecolor=colour,
            elinewidth=0.9,
            alpha=0.45 if member else 0.16,
            zorder=2,
        )
        ax.plot(
            cell["latency_ms"],
            cell["rmse_m"],
            marker=themes.MARKERS[slot],
            markersize=_mark_size(cell, areas),
            fillstyle=themes.FILLS.get(cell["recipe"], "top"),
            color=colour,
            markerfacecoloralt=theme.paper,
            markeredgewidth=1.2,
            alpha=1.0 if member else 0.55,
            linestyle="none",
            zorder=5 if member else 4,
        )


def _bar(cell: pd.Series, value: str, low: str, high: str) -> Any:
    if pd.isna(cell[low]) or pd.isna(cell[high]):
        return None
    return [[max(cell[value] - cell[low], 0)], [max(cell[high] - cell[value], 0)]]


def _draw_line(ax: Axes, front: Front, theme: Theme) -> None:
    x0, y0, x1, y1 = np.array(_staircase(ax, front)).T
    ax.plot(np.append(x0, x1[-1]), np.append(y0, y1[-1]), color=theme.ink, linewidth=1.1, alpha=0.75, zorder=3)


def _staircase(ax: Axes, front: Front) -> list[tuple[float, float, float, float]]:
    """The front as segments: at each latency, the lowest RMSE that is reachable."""
    x = np.append(front.members["latency_ms"], ax.get_xlim()[1])
    y = front.members["rmse_m"].to_numpy()
    flat = [(x[i], y[i], x[i + 1], y[i]) for i in range(len(y))]
    down = [(x[i + 1], y[i], x[i + 1], y[i + 1]) for i in range(len(y) - 1)]
    return [segment for pair in itertools.zip_longest(flat, down) for segment in pair if segment]


def _bars(front: Front) -> list[tuple[float, float, float, float]]:
    """The error bars of the members as segments."""
    cells = front.members
    across = cells[["latency_lo_ms", "rmse_m", "latency_hi_ms", "rmse_m"]]
    upright = cells[["latency_ms", "rmse_lo_m", "latency_ms", "rmse_hi_m"]]
    return [tuple(bar) for bars in (across, upright) for bar in bars.to_numpy() if not np.isnan(bar).any()]


def _legend(ax: Axes, front: Front, theme: Theme, families: list[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, colour: str, marker: str, size: float = 7.5, fill: str = "full") -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            markersize=size,
            fillstyle=fill,  # type: ignore[arg-type]
            color=colour,
            markerfacecoloralt=theme.paper,
            markeredgewidth=1.2,
            label=label,
        )

    cells = front.cells
    columns = [
        [
            mark(themes.family_name(name), theme.families[slot], themes.MARKERS[slot])
            for name in themes.family_order(cells["family"])
            for slot in [themes.family_slot(name, families)]
        ],
        [
            mark(recipe, theme.quiet, "o", fill=themes.FILLS.get(recipe, "top"))
            for recipe in sorted(set(cells["recipe"]), key=_recipe_rank)
        ],
    ]
    areas = _areas(front)
    sizes = cells.drop_duplicates(["height", "width"]).sort_values("height")
    last = [
        mark(f"{cell['height']}×{cell['width']}", theme.quiet, "o", _mark_size(cell, areas))
        for _, cell in sizes.iterrows()
    ]
    columns.append([*last, Line2D([], [], color=theme.ink, linewidth=1.1, label="Pareto front")])
    rows = max(len(column) for column in columns)
    blank = Line2D([], [], linestyle="none", label=" ")
    ax.legend(
        handles=[entry for column in columns for entry in column + [blank] * (rows - len(column))],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=len(columns),
        columnspacing=3,
        handletextpad=0.5,
        labelspacing=0.45,
    )


def _recipe_rank(recipe: str) -> tuple[int, str]:
    known = list(themes.FILLS)
    return (known.index(recipe) if recipe in known else len(known), recipe)


def _name_members(ax: Axes, front: Front, theme: Theme, lines: list[tuple[float, float, float, float]]) -> None:
    """Write the name of each member beside it, with a thin leader where it had to be put further away.

    ``lines`` are segments in data units that names should keep off.
    """
    from matplotlib.patheffects import withStroke

    figure = themes.figure_of(ax)
    figure.draw_without_rendering()  # settles the layout, which then stays: names are placed in pixels
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72
    areas, usual = _areas(front), front.usual_size
    points = ax.transData.transform(front.cells[["latency_ms", "rmse_m"]].to_numpy())
    radii = [_mark_size(cell, areas) / 2 * scale + 1 for _, cell in front.cells.iterrows()]
    members = np.flatnonzero(front.cells["on_front"])
    names = [cell_name(front.cells.iloc[i], usual_size=usual) for i in members]
    texts = [ax.text(0.5, 0.5, name, fontsize=8, transform=ax.transAxes) for name in names]
    extents = [text.get_window_extent(renderer) for text in texts]
    frame = ax.get_window_extent(renderer).padded(-2)
    boxes = place_labels(
        [(float(points[i][0]), float(points[i][1])) for i in members],
        [(extent.width + 3 * scale, extent.height + 1) for extent in extents],
        [(x - r, y - r, x + r, y + r) for (x, y), r in zip(points, radii, strict=True)],
        (frame.x0, frame.y0, frame.x1, frame.y1),
        gap=7 * scale,
        lines=[tuple(ax.transData.transform((line[:2], line[2:])).ravel()) for line in lines],
    )
    to_axes = ax.transAxes.inverted().transform
    for text, box, i in zip(texts, boxes, members, strict=True):
        if box is None:
            text.remove()
            continue
        x, y = points[i]
        text.set(position=to_axes(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)), ha="center", va="center")
        text.set(color=theme.ink, zorder=7, in_layout=False)
        text.set_path_effects([withStroke(linewidth=2, foreground=theme.paper)])
        end = nearest(box, x, y)
        if np.hypot(end[0] - x, end[1] - y) > 14 * scale:
            leader = to_axes(((x, y), end))
            ax.plot(*leader.T, transform=ax.transAxes, color=theme.quiet, linewidth=0.6, zorder=3.5, in_layout=False)


def speedup_grid(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Speed-ups over the uncompressed form on one target, smallest input: a row per model, a column per recipe."""
    cells = table[(table["target"] == target) & table["speedup"].notna()]
    if cells.empty:
        return pd.DataFrame()
    area = cells["height"] * cells["width"]
    cells = cells[area == area.min()]
    grid: pd.DataFrame = cells.pivot_table(index="model", columns="recipe", values="speedup", sort=False)
    return grid.reindex(columns=sorted(grid.columns, key=_recipe_rank))


def draw_speedups(table: pd.DataFrame, target: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """A heat map of :func:`speedup_grid`: orange where the compressed form is slower, blue where it is faster."""
    import matplotlib as mpl
    import seaborn as sns

    grid = speedup_grid(table, target)
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(4.6, 3.2)
        ax.set_title(f"Speed-up on {target}")
        if grid.empty:
            ax.set_axis_off()
            ax.text(0.5, 0.5, "nothing to compare yet", ha="center", va="center", transform=ax.transAxes)
            return ax
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
