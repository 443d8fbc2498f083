"""Names of the members of a front and the marks of forms that did not pay, placed so that none covers another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthbench.reports import theme as themes
from depthbench.reports.labels import Box, nearest, place_labels
from depthbench.reports.pareto import Front, cell_name
from depthbench.reports.payoff import FLAGGED, Notes
from depthbench.reports.surroundings import areas_of, comparable, mark_size, shown_points
from depthbench.reports.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

NAMED = 8
"""Up to so many members are named beside their marks; more are numbered, their names below the figure."""

Segment = tuple[float, float, float, float]


def member_names(front: Front, payoff: Notes) -> list[str]:
    """The name of each member, with the mark of its reason and, where it is unsure, the probability that it is one."""
    names = []
    for _, cell in front.members.iterrows():
        name = " ".join(filter(None, (cell_name(cell, usual_size=front.usual_size), payoff.mark(cell))))
        names.append(f"{name} ({cell['front_probability']:.0%})" if cell["ambiguous"] else name)
    return names


def key(front: Front, payoff: Notes) -> list[str]:
    """The numbered names of the members of a crowded front; empty where they stand beside their marks."""
    if len(front.members) <= NAMED:
        return []
    return [f"{number}  {name}" for number, name in enumerate(member_names(front, payoff), start=1)]


def name_cells(ax: Axes, front: Front, theme: Theme, payoff: Notes, lines: list[Segment], highest: float) -> None:
    """Write the name or the number of each member beside it, then the marks of other forms that did not pay.

    A thin leader leads to a name that had to be put further away. ``lines`` are segments in data units that names should keep
    off; cells above ``highest`` metres stand at the upper edge.
    """
    figure = themes.figure_of(ax)
    engine = figure.get_layout_engine()
    assert engine is not None
    for _ in range(2):  # settles the layout, which then stays: names are placed in pixels
        engine.execute(figure)
    figure.set_layout_engine(None)
    scale = figure.dpi / 72
    points, boxes = _marks(ax, front, highest, scale)
    crowded = bool(key(front, payoff))
    members = [int(i) for i in np.flatnonzero(front.cells["on_front"])]
    names = [str(i + 1) for i in range(len(members))] if crowded else member_names(front, payoff)
    texts = [ax.text(0.5, 0.5, name, fontsize=8, transform=ax.transAxes) for name in names]
    taken = [*boxes, *_stars(ax, front, scale)]
    segments = [_in_pixels(ax, line) for line in lines]
    taken += _place(ax, texts, [points[i] for i in members], taken, segments, theme, gap=(3 if crowded else 7) * scale)
    signs, where = [], []
    for i, (_, cell) in enumerate(front.cells.iterrows()):
        if cell["not_faster"] and not cell["on_front"]:
            signs.append(ax.text(0.5, 0.5, payoff.mark(cell), fontsize=6, transform=ax.transAxes, gid=FLAGGED))
            where.append(points[i])
    _place(ax, signs, where, taken, segments, theme, gap=1.5 * scale, always=True)


def _marks(ax: Axes, front: Front, highest: float, scale: float) -> tuple[list[tuple[float, float]], list[Box]]:
    """Centre of each cell's mark, and the box that it covers, in pixels."""
    areas = areas_of(front)
    points, boxes = [], []
    for _, cell in front.cells.iterrows():
        x, y = ax.transData.transform((cell[front.cost], cell["rmse_m"]))
        radius = mark_size(cell, areas) / 2 * scale + 1
        if cell["rmse_m"] > highest:
            y, radius = ax.transAxes.transform((0, 0.985))[1], 4 * scale
        points.append((float(x), float(y)))
        boxes.append((float(x - radius), float(y - radius), float(x + radius), float(y + radius)))
    return points, boxes


def _stars(ax: Axes, front: Front, scale: float) -> list[Box]:
    """The boxes of the stars at the lower edge, with their numbers."""
    stars = [(point.latency_ms, 0.0) for point in shown_points(front) if not comparable(point, front)]
    marks: list[tuple[float, float]] = ax.get_xaxis_transform().transform(stars).tolist() if stars else []
    return [(x - 6 * scale, y, x + 14 * scale, y + 16 * scale) for x, y in marks]


def _in_pixels(ax: Axes, line: Segment) -> Segment:
    (x0, y0), (x1, y1) = ax.transData.transform((line[:2], line[2:]))
    return float(x0), float(y0), float(x1), float(y1)


def _place(
    ax: Axes,
    texts: list[Text],
    anchors: list[tuple[float, float]],
    taken: list[Box],
    lines: list[Segment],
    theme: Theme,
    *,
    gap: float,
    always: bool = False,
) -> list[Box]:
    """Put each text beside its anchor (pixels), or drop it where there is no room; with ``always`` put it below even so."""
    from matplotlib.patheffects import withStroke

    figure = themes.figure_of(ax)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72
    frame = ax.get_window_extent(renderer).padded(-2)
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(extent.width + 3 * scale, extent.height + 1) for extent in extents]
    bounds = (frame.x0, frame.y0, frame.x1, frame.y1)
    boxes = place_labels(anchors, sizes, taken, bounds, gap=gap, lines=lines)
    to_axes = ax.transAxes.inverted().transform
    placed = []
    for text, found, (x, y), (width, height) in zip(texts, boxes, anchors, sizes, strict=True):
        below = (x - width / 2, y - 5 * scale - height, x + width / 2, y - 5 * scale)
        box = found or (below if always else None)
        if box is None:
            text.remove()
            continue
        placed.append(box)
        text.set(position=to_axes(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)), ha="center", va="center")
        text.set(color=theme.ink, zorder=7, in_layout=False)
        text.set_path_effects([withStroke(linewidth=2, foreground=theme.paper)])
        if not always:
            text.set_bbox(
                {"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.85, "pad": 0.4}
            )  # a line behind it
        end = nearest(box, x, y)
        if np.hypot(end[0] - x, end[1] - y) > 14 * scale:
            leader = to_axes(((x, y), end))
            ax.plot(*leader.T, transform=ax.transAxes, color=theme.quiet, linewidth=0.6, zorder=3.5, in_layout=False)
    return placed
