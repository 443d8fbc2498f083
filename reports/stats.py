"""Statistics derived from raw values when a run is read: intervals by bootstrap, percentiles only where samples allow.

Everything is seeded: the same run always gives the same numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_FOR_INTERVAL = 10
"""Fewer values than this give no interval: resampling them again and again would only look like knowledge."""

PERCENTILE_NEEDS = {90: 64, 95: 130, 99: 662}
"""Samples that a percentile needs (MLPerf's early-stopping rule at confidence 0.99); with fewer it is not given."""


def interval(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of resampled statistics."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return float(low), float(high)


def bootstrap_medians(samples: ArrayLike, *, seed: int = 0) -> NDArray[np.float64]:
    """Medians of ``RESAMPLES`` bootstrap resamples of ``samples`` (n,), returned as (RESAMPLES,).

    The middle order statistics of n uniform draws are Beta distributed, so that a resample's median is drawn directly
    and exactly, at a cost that does not grow with n (a sustained run has a hundred thousand samples).
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        raise ValueError("no samples: a median needs at least one")
    rng = np.random.default_rng(seed)
    half = n // 2
    if n % 2:
        return ordered[_rank(rng.beta(half + 1, half + 1, RESAMPLES), n)]
    lower = rng.beta(half, half + 1, RESAMPLES)
    upper = 1 - (1 - lower) * rng.random(RESAMPLES) ** (1 / half)  # the least of the `half` draws above `lower`
    return (ordered[_rank(lower, n)] + ordered[_rank(upper, n)]) / 2


def _rank(uniform: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    return np.minimum((uniform * n).astype(np.intp), n - 1)


@lru_cache(maxsize=8)
def resample_weights(n: int) -> NDArray[np.float32]:
    """How often each of n values is drawn in each resample, over n: (RESAMPLES, n)."""
    rng = np.random.default_rng(0)
    return (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n).astype(np.float32)


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Bootstrap interval of the mean of ``values`` (n,); (nan, nan) below ``MIN_FOR_INTERVAL`` values."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < MIN_FOR_INTERVAL:
        return float("nan"), float("nan")
    return interval(resample_weights(len(array)) @ array)


def median_interval(samples: ArrayLike) -> tuple[float, float]:
    """Bootstrap interval of the median of ``samples`` (n,); (nan, nan) below ``MIN_FOR_INTERVAL`` samples."""
    array = np.asarray(samples, dtype=np.float64)
    if len(array) < MIN_FOR_INTERVAL:
        return float("nan"), float("nan")
    return interval(bootstrap_medians(array))


def median_ratio_interval(above: ArrayLike, below: ArrayLike) -> tuple[float, float]:
    """Bootstrap interval of median(above) / median(below), the two resampled independently."""
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    if min(len(top), len(bottom)) < MIN_FOR_INTERVAL:
        return float("nan"), float("nan")
    return interval(bootstrap_medians(top, seed=1) / bootstrap_medians(bottom, seed=2))


def percentile(samples: ArrayLike, q: int) -> float:
    """The q-th percentile (q in ``PERCENTILE_NEEDS``), or nan where the samples are too few to support it."""
    array = np.asarray(samples, dtype=np.float64)
    return float(np.percentile(array, q)) if len(array) >= PERCENTILE_NEEDS[q] else float("nan")


def paired_difference(ours: ArrayLike, theirs: ArrayLike) -> tuple[float, tuple[float, float], int]:
    """Mean of ``ours`` - ``theirs`` (n,), its bootstrap interval over the pairs, and the number of pairs.

    Value i of both belongs to the same image; pairs in which one is nan are left out. Resampling pairs, not each side alone,
    keeps what makes an image hard for everyone out of the interval. The interval is (nan, nan) below
    ``MIN_FOR_INTERVAL`` pairs, the mean is nan without any. ``ValueError`` when the lengths differ.
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values against {len(second)}: pairs need as many of each")
    difference = (first - second)[~np.isnan(first - second)]
    mean = float(difference.mean()) if len(difference) else float("nan")
    return mean, mean_interval(difference), len(difference)
