"""The figure of a front; what it shows is computed by :func:`depthbench.reports.pareto.fronts`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from depthbench.reports import theme as themes
from depthbench.reports.naming import NAMED, key, name_cells
from depthbench.reports.pareto import COSTS, Front
from depthbench.reports.payoff import FLAGGED, Notes, brief
from depthbench.reports.surroundings import (
    MANY,
    areas_of,
    draw_legend,
    draw_published,
    legend_height,
    mark_size,
    published_lines,
    shown_points,
)
from depthbench.reports.theme import BELOW, DARK, LIGHT, LINE, Theme, write_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REACH = 1.5
"""Errors up to this many times the lowest are in the picture: who would take more? Cells beyond stand at its upper edge."""

__all__ = ["DARK", "LIGHT", "draw_front", "front_title"]


def front_title(front: Front) -> str:
    """The title of a front; it says whether its latencies were measured or predicted."""
    return f"{front.target}: {cost_name(front)}"


def cost_name(front: Front) -> str:
    """``measured latency``, ``predicted latency``, or the name of another cost."""
    name, _ = COSTS[front.cost]
    return f"{front.latency_kind} {name}" if front.cost == "latency_ms" else name


def draw_front(
    front: Front, ax: Axes | None = None, *, theme: Theme = LIGHT, families: list[str] | None = None
) -> Axes:
    """RMSE against the cost of the cells of a front, its members joined and named.

    Colour and mark tell the family, the filling of the mark the recipe, its size the input's; bars are 95% intervals, or the
    interval of a prediction. A ring marks a cell that may or may not be on the front, with the probability that it is; thin
    lines lead from a cell to those made from it; hollow stars are published points. A triangle marks a form that is hardly
    faster than its parent, or slower; why stands below. More than ``NAMED`` members are numbered, and named below.
    ``families`` are those of the whole run, so that colours agree between figures. Marks carry the cell's id as their ``gid``.
    A cell with more than ``REACH`` times the lowest RMSE is a caret at the upper edge.
    """
    import matplotlib as mpl

    families = families or list(front.cells["family"])
    with mpl.rc_context(themes.rc(theme)):
        payoff = Notes(front.cells, brief)
        slow, names = payoff.lines(100), key(front, payoff)
        rows = -(-len(names) // 2)  # of two columns
        under = BELOW + LINE * rows + (LINE / 2 if names else 0)
        notes = published_lines(front) + _beyond_line(front)
        below = under + LINE * (len(notes) + len(slow))
        ax = ax or themes.new_axes(6.6, 4.0 + (0.4 if names else 0) + (below + legend_height(front)) / 72)
        _set_scales(ax, front)
        _draw_descent(ax, front, theme, families)
        _draw_bars(ax, front, theme, families)
        _draw_cells(ax, front, theme, families)
        _draw_line(ax, front, theme)
        draw_published(ax, front, theme)
        ax.set_title(front_title(front), pad=8)
        batch = ", batch 1" if front.cost == "latency_ms" else ""
        ax.set_xlabel(f"{cost_name(front)} [{COSTS[front.cost][1]}]{batch}")
        ax.set_ylabel(f"RMSE [m] on {front.dataset} ({front.protocol})")
        write_lines(ax, names[:rows], BELOW, gid="key")
        write_lines(ax, names[rows:], BELOW, gid="key", x=0.5)
        write_lines(ax, notes, under, gid="published")
        write_lines(ax, slow, under + LINE * len(notes), gid=FLAGGED)
        draw_legend(ax, front, theme, families, below)
        name_cells(ax, front, theme, payoff, _staircase(ax, front) + _bars(front), _highest(front))
    return ax


def _beyond_line(front: Front) -> list[str]:
    """A line on the cells that are off the picture, when there are any."""
    beyond = front.cells.loc[front.cells["rmse_m"] > _highest(front), "rmse_m"]
    if beyond.empty:
        return []
    are = "cell is" if len(beyond) == 1 else "cells are"
    return [f"⌃ {len(beyond)} {are} off the picture, with an RMSE up to {beyond.max():.2f} m"]


def _highest(front: Front) -> float:
    """The largest error that is in the picture, in metres: of the cells within ``REACH``."""
    errors = front.cells["rmse_m"]
    return float(errors[errors <= REACH * errors.min()].max())


def _set_scales(ax: Axes, front: Front) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    cells = front.cells
    points = [point.latency_ms for point in shown_points(front)]
    low, high = cells[front.cost].min(), cells[front.cost].max()
    if front.cost == "latency_ms":
        low, high = (
            min([low, cells["latency_lo_ms"].min(), *points]),
            max([high, cells["latency_hi_ms"].max(), *points]),
        )
    ax.set_xscale("log")
    ax.set_xlim(low / 1.35, high * 1.3)
    decades = np.log10(high / low)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    bottom, top = cells["rmse_m"].min(), _highest(front)
    room = max(top - bottom, 0.05 * top)
    ax.set_ylim(bottom - 0.16 * room, top + 0.22 * room)


def _draw_cells(ax: Axes, front: Front, theme: Theme, families: list[str]) -> None:
    from matplotlib.markers import CARETUPBASE

    areas, highest = areas_of(front), _highest(front)
    for _, cell in front.cells[::-1].iterrows():  # larger inputs are slower: drawn first, under the small marks
        slot = themes.family_slot(cell["family"], families)
        colour, sure = theme.families[slot], bool(cell["on_front"] or cell["ambiguous"])
        look: dict[str, Any] = {
            "gid": f"at-{cell['id']}",
            "color": colour,
            "linestyle": "none",
            "alpha": 1.0 if sure else 0.6,
        }
        x, y, where, size = cell[front.cost], cell["rmse_m"], ax.transData, mark_size(cell, areas)
        if beyond := y > highest:
            y, where, size = 0.985, ax.get_xaxis_transform(), 6.0
            look |= {"marker": CARETUPBASE}
        else:
            look |= {"marker": themes.MARKERS[slot], "fillstyle": themes.FILLS.get(cell["recipe"], "top")}
        if cell["ambiguous"] and not beyond:
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": theme.ink, "markeredgewidth": 0.8}
            ax.plot(x, y, marker="o", markersize=size + 5.5, linestyle="none", zorder=3.8, **ring)
        ax.plot(
            x,
            y,
            markersize=size,
            markerfacecoloralt=theme.paper,
            markeredgewidth=1.2,
            transform=where,
            zorder=5 if cell["on_front"] else 4,
            **look,
        )


def _draw_bars(ax: Axes, front: Front, theme: Theme, families: list[str]) -> None:
    """Intervals in both directions, those of members stronger; of members alone where there are ``MANY`` cells."""
    from matplotlib.colors import to_rgba

    cells = front.cells if len(front.cells) < MANY else front.members
    cells = cells[cells["rmse_m"] <= _highest(front)]
    slots = [themes.family_slot(family, families) for family in cells["family"]]
    strength = np.where(cells["on_front"], 0.45 if len(front.members) <= NAMED else 0.3, 0.12)
    colours = [to_rgba(theme.families[slot], alpha) for slot, alpha in zip(slots, strength, strict=True)]
    ax.vlines(cells[front.cost], cells["rmse_lo_m"], cells["rmse_hi_m"], colors=colours, linewidth=0.9, zorder=2)
    if front.cost == "latency_ms":
        ax.hlines(
            cells["rmse_m"], cells["latency_lo_ms"], cells["latency_hi_ms"], colors=colours, linewidth=0.9, zorder=2
        )


def _draw_descent(ax: Axes, front: Front, theme: Theme, families: list[str]) -> None:
    """A thin line from each cell to the one it was made from, where both are on the figure."""
    cells = front.cells[front.cells["rmse_m"] <= _highest(front)].set_index("id")
    if len(front.cells) >= MANY:
        return
    for name, cell in cells[cells["made_from"].isin(cells.index)].iterrows():
        ends = cells.loc[[cell["made_from"], name]]
        colour = theme.families[themes.family_slot(cell["family"], families)]
        ax.plot(
            ends[front.cost], ends["rmse_m"], color=colour, linewidth=0.8, alpha=0.4, linestyle=(0, (4, 2)), zorder=1.5
        )


def _draw_line(ax: Axes, front: Front, theme: Theme) -> None:
    x0, y0, x1, y1 = np.array(_staircase(ax, front)).T
    ax.plot(np.append(x0, x1[-1]), np.append(y0, y1[-1]), color=theme.ink, linewidth=1.1, alpha=0.75, zorder=3)


def _staircase(ax: Axes, front: Front) -> list[tuple[float, float, float, float]]:
    """The front as segments: at each latency, the lowest RMSE that is reachable."""
    x = np.append(front.members[front.cost], ax.get_xlim()[1])
    y = front.members["rmse_m"].to_numpy()
    flat = [(x[i], y[i], x[i + 1], y[i]) for i in range(len(y))]
    down = [(x[i + 1], y[i], x[i + 1], y[i + 1]) for i in range(len(y) - 1)]
    return [segment for pair in itertools.zip_longest(flat, down) for segment in pair if segment]


def _bars(front: Front) -> list[tuple[float, float, float, float]]:
    """The error bars of the members as segments."""
    cells = front.members
    across = cells[["latency_lo_ms", "rmse_m", "latency_hi_ms", "rmse_m"]] if front.cost == "latency_ms" else cells[:0]
    upright = cells[[front.cost, "rmse_lo_m", front.cost, "rmse_hi_m"]]
    return [tuple(bar) for bars in (across, upright) for bar in bars.to_numpy() if not np.isnan(bar).any()]
