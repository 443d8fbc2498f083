"""Placing labels beside points so that none covers another, a mark or the edge. Pure geometry, in pixels, y upwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

Box = tuple[float, float, float, float]
"""left, bottom, right, top."""

ANGLES = (225, 45, 210, 240, 30, 60, 195, 15, 255, 75, 180, 0, 270, 90, 135, 315)
"""Directions in which a label is tried, in degrees, the best first: below and left of a front nothing lies."""

REACHES = (1.0, 1.8, 2.8, 4.0, 5.5, 7.0, 9.0, 11.0, 14.0)
"""Distances that are tried, in multiples of the gap, the nearest first."""


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Iterable[Box],
    bounds: Box,
    *,
    gap: float,
    lines: Iterable[tuple[float, float, float, float]] = (),
) -> list[Box | None]:
    """A box for each label, in the order given (the first chooses first).

    ``anchors`` are the labelled points, ``sizes`` the labels' widths and heights, ``obstacles`` boxes to keep free,
    ``lines`` segments (x0, y0, x1, y1): of the free places near the point, the one that the fewest of them cross, and
    whose leader to the point crosses the fewest others, is taken. A label that finds no free place within ``bounds``
    gets None and is better left out than drawn over another.
    """
    taken = list(obstacles)
    segments = list(lines)
    placed: list[Box | None] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        chosen: Box | None = None
        least = math.inf
        for rank, (reach, angle) in enumerate(itertools.product(REACHES, ANGLES)):
            box = _beside((x, y), (width, height), angle, reach * gap)
            if rank >= least * len(ANGLES):  # no later place can be better
                break
            left, bottom, right, top = box
            if not _contains(bounds, box) or any(
                left < other[2] and other[0] < right and bottom < other[3] and other[1] < top for other in taken
            ):
                continue
            leader = (x, y, *nearest(box, x, y))
            hidden = sum(_crosses(leader, other) for other in taken if nearest(other, x, y) != (x, y))
            cost = rank / len(ANGLES) + 2 * sum(_crosses(segment, box) for segment in segments) + 2 * hidden
            if cost < least:
                chosen, least = box, cost
        placed.append(chosen)
        if chosen is not None:
            taken.append(chosen)
            segments.append((x, y, *nearest(chosen, x, y)))
    return placed


def nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """The point of a box that is nearest to (x, y): where its leader ends."""
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])


def _beside(anchor: tuple[float, float], size: tuple[float, float], angle: float, distance: float) -> Box:
    """The box of ``size`` whose nearest edge or corner is ``distance`` from the anchor in direction ``angle``."""
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    left = anchor[0] + dx * distance - size[0] * (1 - dx) / 2
    bottom = anchor[1] + dy * distance - size[1] * (1 - dy) / 2
    return (left, bottom, left + size[0], bottom + size[1])


def _contains(outer: Box, box: Box) -> bool:
    return box[0] >= outer[0] and box[1] >= outer[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _crosses(segment: tuple[float, float, float, float], box: Box) -> bool:
    """Whether a segment passes through a box (clipped by the box's four sides in turn)."""
    x0, y0, x1, y1 = segment
    enter, leave = 0.0, 1.0
    for start, delta, low, high in ((x0, x1 - x0, box[0], box[2]), (y0, y1 - y0, box[1], box[3])):
        if delta == 0:
            if not low <= start <= high:
                return False
            continue
        first, last = sorted(((low - start) / delta, (high - start) / delta))
        enter, leave = max(enter, first), min(leave, last)
    return enter <= leave
