"""How sure a run is: every number as it would be, had other images and other timing samples been drawn.

A cell's RMSE is drawn again by resampling its images (all cells share each resample, so that what is hard for one network
is hard for all), its measured latency by resampling its timing samples, its predicted latency from the prediction's
interval. Predictions are drawn independently of each other: errors that two predictions share would leave their order
alone, so this is the cautious choice.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthbench.reports import stats
from depthbench.suites.results import Latency

AMBIGUOUS = (0.1, 0.9)
"""A cell whose probability of being on the front is between these is neither clearly on it nor clearly off it."""

PREDICTED_LEVEL = 0.80
"""Share of boards' true latencies that a prediction's interval holds (``Latency.interval_note``)."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """``latency_ms`` and ``rmse_m``, each (cells, ``stats.RESAMPLES``) float32 in the order of the table; nan where absent."""

    latency_ms: Array
    rmse_m: Array


def seed_of(name: str) -> int:
    """A seed of its own for each cell, the same in every process."""
    return zlib.crc32(name.encode())


def latency_draws(latency: Latency | None, name: str) -> Array:
    """The latency in each draw, (RESAMPLES,) ms; one repeated value where nothing tells how sure it is, else nan."""
    if latency is None:
        return np.full(stats.RESAMPLES, np.nan, dtype=np.float32)
    if latency.kind == "measured" and len(latency.samples_ms) >= stats.MIN_FOR_INTERVAL:
        return stats.bootstrap_medians(latency.samples_ms, seed=seed_of(name)).astype(np.float32)
    value = float(np.median(latency.samples_ms)) if latency.samples_ms else latency.latency_ms
    if value is None or latency.kind == "measured" or latency.interval_ms is None:
        return np.full(stats.RESAMPLES, np.nan if value is None else value, dtype=np.float32)
    low, high = latency.interval_ms
    quantile = NormalDist().inv_cdf((1 + PREDICTED_LEVEL) / 2)
    z = np.random.default_rng(seed_of(name)).standard_normal(stats.RESAMPLES) / quantile
    below, above = np.log(value / max(low, 1e-9)), np.log(max(high, value) / value)
    drawn: Array = (value * np.exp(np.where(z < 0, z * below, z * above))).astype(np.float32)
    return drawn


def mean_draws(values: ArrayLike) -> Array:
    """The mean of per-image ``values`` (n,) in each draw, (RESAMPLES,); images without a value (nan) are passed over.

    Equal numbers of images are resampled alike, whichever cell they belong to. Below ``stats.MIN_FOR_INTERVAL`` images the
    mean itself is repeated.
    """
    array = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(array)
    if not known.any():
        return np.full(stats.RESAMPLES, np.nan, dtype=np.float32)
    if known.sum() < stats.MIN_FOR_INTERVAL:
        return np.full(stats.RESAMPLES, array[known].mean(), dtype=np.float32)
    weights = stats.resample_weights(len(array))
    total = weights @ np.where(known, array, 0.0)
    return (total if known.all() else total / (weights @ known.astype(np.float64))).astype(np.float32)


def front_masks(cost: NDArray[Any], error: NDArray[Any]) -> NDArray[np.bool_]:
    """Per draw, which points are on the front: ``cost`` and ``error`` (points, draws), both minimised; (points, draws).

    What :func:`depthbench.reports.pareto.pareto_mask` says of each column, for all columns at once.
    """
    by_error = np.argsort(error, axis=0, kind="stable")
    by_cost = np.argsort(np.take_along_axis(cost, by_error, 0), axis=0, kind="stable")
    order = np.take_along_axis(by_error, by_cost, 0)
    x, y = np.take_along_axis(cost, order, 0), np.take_along_axis(error, order, 0)
    least = np.minimum.accumulate(y, axis=0)
    new = np.vstack([np.ones((1, y.shape[1]), dtype=bool), y[1:] < least[:-1]])
    first = np.maximum.accumulate(np.where(new, np.arange(len(y))[:, None], 0), axis=0)
    on = (y == least) & (x == np.take_along_axis(x, first, 0))
    result: NDArray[np.bool_] = np.empty_like(on)
    np.put_along_axis(result, order, on, 0)
    return result


def front_probability(cost: NDArray[Any], error: NDArray[Any]) -> NDArray[np.float64]:
    """Share of draws in which each point is on the front, (points,); arguments as of :func:`front_masks`."""
    if not len(cost):
        return np.zeros(0)
    probability: NDArray[np.float64] = front_masks(cost, error).mean(axis=1)
    return probability


def hypervolume(
    cost: NDArray[Any], error: NDArray[Any], corner: tuple[float, float], best: tuple[float, float]
) -> NDArray[np.float64]:
    """Per draw, the share of the rectangle between ``best`` and ``corner`` (cost, error) that some point dominates.

    ``cost`` and ``error`` are (points, draws); cost counts by its logarithm, as it is drawn. 0: nothing, 1: all of it. (Zitzler
    and Thiele 1998, in two dimensions, normalized.)
    """
    span = np.log(corner[0] / best[0]), corner[1] - best[1]
    if span[0] <= 0 or span[1] <= 0:
        return np.zeros(cost.shape[1])
    x = np.clip(np.log(corner[0] / cost) / span[0], 0, 1)  # reach: 1 is the best
    y = np.clip((corner[1] - error) / span[1], 0, 1)
    order = np.argsort(-x, axis=0, kind="stable")
    x, y = np.take_along_axis(x, order, 0), np.take_along_axis(y, order, 0)
    height = np.maximum.accumulate(y, axis=0)
    step = x - np.vstack([x[1:], np.zeros((1, x.shape[1]))])
    area: NDArray[np.float64] = (step * height).sum(axis=0)
    return area
