"""Two simple latency models under the same rule, a whole family left out: a line through MACs and a plain roofline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from depthbench.suites.targets.predict_fit import Tables
from depthbench.suites.targets.predict_model import BOARDS, Floats, KernelTable
from depthbench.suites.targets.predict_points import Point


def macs_only(points: Sequence[Point], tables: Tables) -> Floats:
    """ms = a + b × MACs by board and precision, least squares of relative errors with a, b ≥ 0, each family left out (n,).

    With fewer than three other points of the board and precision, the rate is the median share of the peak elsewhere.
    """
    from scipy.optimize import nnls

    macs = np.array([_macs(tables[point.network]) for point in points])
    published = np.array([point.latency_ms for point in points])
    peaks = np.array([_peak(point) for point in points])
    result = np.zeros(len(points))
    for i, point in enumerate(points):
        others = [j for j, other in enumerate(points) if other.family != point.family]
        same = [j for j in others if (points[j].board, points[j].precision) == (point.board, point.precision)]
        if len(same) < 3:
            result[i] = macs[i] / peaks[i] * np.median((published * peaks / macs)[others])
            continue
        line = np.stack([np.ones(len(same)), macs[same]], axis=1) / published[same, None]  # (n, 2)
        (offset, slope), _ = nnls(line, np.ones(len(same)))
        result[i] = offset + slope * macs[i]
    return result


def roofline(points: Sequence[Point], tables: Tables) -> Floats:
    """The larger of MACs over peak and bytes over bandwidth, summed, times the median factor of the others (n,)."""
    ideal = np.array([_ideal_ms(point, tables[point.network]) for point in points])
    factors = np.array([point.latency_ms for point in points]) / ideal
    families = np.array([point.family for point in points])
    return np.array([ideal[i] * np.median(factors[families != family]) for i, family in enumerate(families)])


def _ideal_ms(point: Point, table: KernelTable) -> float:
    size = {"fp32": 4, "fp16": 2, "int8": 1}[point.precision]
    memory = table.elements * size / (BOARDS[point.board].mem_bw_gbs * 1e9)
    return float((table.count * np.maximum(table.macs / _peak(point), memory)).sum() * 1e3)


def _macs(table: KernelTable) -> float:
    return float((table.count * table.macs).sum())


def _peak(point: Point) -> float:
    """Multiply-accumulates per second at the highest clock."""
    board = BOARDS[point.board]
    peak = {"fp32": board.fp32_tflops, "fp16": board.fp16_tflops, "int8": board.int8_tops}[point.precision]
    assert peak is not None
    return peak * 1e12 / 2
