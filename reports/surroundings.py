"""What stands around the marks of a front: its legend, and the published points of other authors."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

import pandas as pd

from depthbench.reports import theme as themes
from depthbench.reports.pareto import Front
from depthbench.reports.published import Published, published_on
from depthbench.reports.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 60
"""From this many cells on, lines between parents and children would be a thicket and are left out."""


def mark_size(cell: pd.Series, areas: list[int]) -> float:
    """Diameter in points of a cell's mark; ``areas`` are the input sizes of its front, rising."""
    return 6.5 + 2.5 * areas.index(cell["height"] * cell["width"])


def areas_of(front: Front) -> list[int]:
    """The input sizes of a front in pixels, rising."""
    return sorted(set(front.cells["height"] * front.cells["width"]))


def draw_legend(ax: Axes, front: Front, theme: Theme, families: list[str], below: float) -> None:
    """Families, recipes, input sizes and lines, in columns ``below`` points under the axes."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

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
            for recipe in sorted(set(cells["recipe"]), key=themes.recipe_rank)
        ],
    ]
    areas = areas_of(front)
    sizes = cells.drop_duplicates(["height", "width"]).sort_values("height")
    last = [
        mark(f"{cell['height']}×{cell['width']}", theme.quiet, "o", mark_size(cell, areas))
        for _, cell in sizes.iterrows()
    ]
    extra = [Line2D([], [], color=theme.ink, linewidth=1.1, label="Pareto front")]
    if cells["ambiguous"].any():
        ring = mark("perhaps on the front", theme.ink, "o", 11, "none")
        ring.set_markeredgewidth(0.8)
        extra.append(ring)
    if len(cells) < MANY and cells["made_from"].isin(cells["id"]).any():
        extra.append(Line2D([], [], color=theme.quiet, linewidth=0.8, linestyle=(0, (4, 2)), label="made from"))
    columns += [last, extra]
    rows = max(len(column) for column in columns)
    blank = Line2D([], [], linestyle="none", label=" ")
    lowered = ScaledTranslation(0, -below / 72, themes.figure_of(ax).dpi_scale_trans)
    ax.legend(
        handles=[entry for column in columns for entry in column + [blank] * (rows - len(column))],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + lowered,
        ncols=len(columns),
        columnspacing=2.2,
        handletextpad=0.5,
        labelspacing=0.45,
    )


def legend_height(front: Front) -> float:
    """Height of the legend of a front in points."""
    cells = front.cells
    return 14.0 * max(4, cells["recipe"].nunique(), cells["family"].nunique(), len(areas_of(front)))


def shown_points(front: Front) -> tuple[Published, ...]:
    """The published points that belong on a front."""
    return published_on(front.target) if front.cost == "latency_ms" else ()


def comparable(point: Published, front: Front) -> bool:
    """Whether a published error may stand on the front's axis: same data, same protocol as its authors'."""
    return point.rmse_m is not None and front.dataset.startswith(point.data) and front.protocol == "nyu-fastdepth"


def draw_published(ax: Axes, front: Front, theme: Theme) -> None:
    """Hollow stars, lettered. On the lower edge where the error is not comparable."""
    for letter, point in zip(ascii_lowercase, shown_points(front), strict=False):
        placed = comparable(point, front)
        y = point.rmse_m if placed and point.rmse_m else 0.0
        where = ax.transData if placed else ax.get_xaxis_transform()
        ax.plot(
            point.latency_ms,
            y,
            marker="*",
            markersize=11,
            markerfacecolor=theme.paper,
            markeredgecolor=theme.ink,
            markeredgewidth=1,
            linestyle="none",
            transform=where,
            clip_on=False,
            zorder=6,
        )
        ax.text(
            point.latency_ms, y + (0 if placed else 0.035), f" {letter}", fontsize=8, transform=where, gid="published"
        )


def published_lines(front: Front) -> list[str]:
    """What the lettered stars of a front are, with their sources."""
    lines = []
    for letter, point in zip(ascii_lowercase, shown_points(front), strict=False):
        cite = point.source.split(",", maxsplit=1)[0]
        error = f"{point.rmse_m} m on NYU" if point.rmse_m else "error not published"
        aside = "" if comparable(point, front) or not point.rmse_m else ": not comparable"
        lines.append(f"☆ {letter} {point.name}, {point.latency_ms:.3g} ms, {point.how} ({cite}); {error}{aside}")
    return lines
