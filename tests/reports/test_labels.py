from __future__ import annotations

import itertools

import numpy as np

from depthbench.reports.labels import Box, nearest, place_labels


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes share, in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def test_no_label_covers_another_a_mark_or_the_edge() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in rng.uniform((60, 60), (540, 340), (25, 2))]
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    boxes = place_labels(points, [(90.0, 11.0)] * 25, marks, (0, 0, 600, 400), gap=8)
    placed = [box for box in boxes if box is not None]
    assert len(placed) >= 20
    for a, b in itertools.combinations(placed, 2):
        assert overlap(a, b) == 0
    for box in placed:
        assert all(overlap(box, mark) == 0 for mark in marks)
        assert min(box[:2]) >= 0
        assert box[2] <= 600
        assert box[3] <= 400


def test_a_lone_label_lies_close_and_off_the_line() -> None:
    above = (100.0, 100.0, 200.0, 100.0)
    below = (0.0, 0.0, 100.0, 100.0)
    (box,) = place_labels([(100.0, 100.0)], [(40.0, 10.0)], [], (0, 0, 300, 300), gap=6, lines=[above, below])
    assert box is not None
    x, y = nearest(box, 100, 100)
    assert np.hypot(x - 100, y - 100) < 8
    assert not (box[1] <= 100 <= box[3] and box[2] > 100)  # the horizontal line is clear


def test_a_label_without_room_is_left_out() -> None:
    boxes = place_labels([(10.0, 10.0)], [(50.0, 10.0)], [], (0, 0, 40, 40), gap=6)
    assert boxes == [None]
