"""Accuracy of a depth map against ground truth, per image; numpy alone.

Throughout, p is a prediction and g its ground truth in metres, over the valid pixels of one image; e = ln p - ln g. A metric
of a data set is the mean over its images that have a value.

``METRICS``, as published for NYU and KITTI (Eigen, Puhrsch and Fergus 2014, section 4.2):

* ``rmse_m`` √mean (p - g)², metres; ``abs_rel`` mean |p - g|/g; ``sq_rel`` mean (p - g)²/g, metres;
* ``rmse_log`` √mean e² (natural logarithm); ``log10`` mean |log10 p - log10 g|;
* ``silog`` 100·√(mean e² - (mean e)²): the error that no common factor explains (KITTI's depth benchmark);
* ``delta1``, ``delta2``, ``delta3``: share of pixels with max(p/g, g/p) < 1.25, 1.25², 1.25³.

``DETAILS``, where the error lies:

* ``rmse_m``, ``abs_rel`` and ``delta1`` with the endings ``_0_1m``, ``_1_3m``, ``_over_3m``: the same over the pixels with
  0 < g <= 1, 1 < g <= 3 and g > 3 metres. An average over all pixels is ruled by the far ones;
* the same with the ending ``_edge``: over the pixels near a depth edge (:func:`edge_band`), where networks blur;
* ``obstacles_too_far``: of the pixels with g <= 3 metres, the share with p > 1.25·g. Whatever is within reach counts as an
  obstacle. It is one side of ``delta1``, the one that lets a robot drive into things; 25 % is the margin that ``delta1``
  already uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

METRICS = ("rmse_m", "abs_rel", "sq_rel", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
RANGES = {"0_1m": (0.0, 1.0), "1_3m": (1.0, 3.0), "over_3m": (3.0, math.inf)}
"""Ranges of ground truth in metres: above the first number, up to and with the second."""
WITHIN_REACH = ("0_1m", "1_3m")

BY_PLACE = ("rmse_m", "abs_rel", "delta1")
_PLACES = (*RANGES, "edge")


class _Part(NamedTuple):
    """Pixels of a range of depth, near a depth edge or not: every pixel that counts is in one of them."""

    range: str
    edge: bool

    def of(self, place: str) -> bool:
        return self.edge if place == "edge" else self.range == place


_PARTS = tuple(_Part(name, edge) for name in RANGES for edge in (False, True))
DETAILS = (*(f"{metric}_{place}" for place in _PLACES for metric in BY_PLACE), "obstacles_too_far")
ALL_METRICS = (*METRICS, *DETAILS)

FLOOR_M = 0.01
"""Predictions below 1 cm count as 1 cm, so that logarithms and ratios exist."""
EDGE_RATIO = 1.1
EDGE_WIDTH = 240
"""The band at an edge reaches (height of the image) / ``EDGE_WIDTH`` pixels, at least one, to each side of it."""

_TIMES = 1.25
_WITHIN = tuple(k * math.log(_TIMES) * (1 - 1e-12) for k in (1, 2, 3))
"""max(p/g, g/p) < 1.25^k as a bound of |e|. Ratios of two float32 that are not 1.25^k themselves are farther from it than the
last factor, which leaves out those that are, whatever the logarithm rounds to."""

_BLOCK = 1 << 13
"""Pixels at a time: their temporaries are small enough to be reused and stay in the cache, and OpenBLAS takes no second thread
for a dot product of up to 10,000."""


def valid_mask(gt: NDArray[np.float32], *, min_depth: float = 0.0, max_depth: float = math.inf) -> NDArray[np.bool_]:
    """Where ground truth counts: above 0 AND inside (``min_depth``, ``max_depth``) metres."""
    mask: NDArray[np.bool_] = (gt > 0) & (gt > min_depth) & (gt < max_depth)
    return mask


def edge_band(gt: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels near a depth edge of ``gt`` (H, W) in metres, 0 = missing; (H, W).

    An edge lies between two neighbours in a row or column, both with ground truth, one more than 10 % farther than the other
    (``EDGE_RATIO``): a step between surfaces, where a slanted plane has none but at its horizon. The band is every pixel within
    max(1, round(H / 240)) rows and columns of either neighbour, 2 at 480x640, so that it covers the same part of the
    picture at any size. Ground truth as sparse as a laser scanner's has few neighbours and few edges.
    """
    jump = np.zeros(gt.shape, np.bool_)
    for top in range(0, len(gt), 32):
        rows, marks = gt[top : top + 33], jump[top : top + 33]
        down, across = _jumps(rows[:-1], rows[1:]), _jumps(rows[:, :-1], rows[:, 1:])
        marks[:-1] |= down
        marks[1:] |= down
        marks[:, :-1] |= across
        marks[:, 1:] |= across
    reach = max(1, round(len(gt) / EDGE_WIDTH))
    return _widen(jump, reach)


def _jumps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    near, far = np.minimum(a, b), np.maximum(a, b)
    found: NDArray[np.bool_] = (far > near * np.float32(EDGE_RATIO)) & (near > 0)
    return found


def _widen(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Each mark spread over the square of ``reach`` pixels to every side of it."""
    tall = mask.copy()
    for step in range(1, reach + 1):
        tall[step:] |= mask[:-step]
        tall[:-step] |= mask[step:]
    wide = tall.copy()
    for step in range(1, reach + 1):
        wide[:, step:] |= tall[:, :-step]
        wide[:, :-step] |= tall[:, step:]
    return wide


class _Sums(NamedTuple):
    """Sums over pixels: what every metric is made of. ``far``: pixels with p/g > 1.25."""

    n: float = 0.0
    squares: float = 0.0
    relative: float = 0.0
    relative_squares: float = 0.0
    logs: float = 0.0
    log_magnitudes: float = 0.0
    log_squares: float = 0.0
    within1: float = 0.0
    within2: float = 0.0
    within3: float = 0.0
    far: float = 0.0

    def named(self) -> dict[str, float]:
        """``METRICS`` over these pixels; nan when there are none."""
        if not self.n:
            return dict.fromkeys(METRICS, math.nan)
        mean_log, mean_log_squared = self.logs / self.n, self.log_squares / self.n
        return {
            "rmse_m": math.sqrt(self.squares / self.n),
            "abs_rel": self.relative / self.n,
            "sq_rel": self.relative_squares / self.n,
            "rmse_log": math.sqrt(mean_log_squared),
            "log10": self.log_magnitudes / self.n / math.log(10),
            "silog": 100 * math.sqrt(max(mean_log_squared - mean_log**2, 0.0)),
            "delta1": self.within1 / self.n,
            "delta2": self.within2 / self.n,
            "delta3": self.within3 / self.n,
        }


def _within(gt: NDArray[np.float32], name: str) -> NDArray[np.bool_]:
    low, high = RANGES[name]
    inside: NDArray[np.bool_] = (gt > low) & (gt <= high)
    return inside


def _total(parts: Iterable[_Sums]) -> _Sums:
    return _Sums(*(sum(column) for column in zip(_Sums(), *parts, strict=True)))


class Truth:
    """The ground truth of one image, laid out once to score any number of predictions.

    ``gt``: (H, W) metres, 0 = missing; ``mask``: (H, W), the pixels that count, all with ground truth.
    """

    def __init__(self, gt: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        self.shape = gt.shape
        near_edge = edge_band(gt)
        counted = {True: mask & near_edge, False: mask & ~near_edge}
        self._pixels = {part: np.flatnonzero(counted[part.edge] & _within(gt, part.range)) for part in _PARTS}
        self._depths = {part: gt.take(pixels).astype(np.float64) for part, pixels in self._pixels.items()}

    @property
    def n(self) -> int:
        """Number of pixels that count."""
        return sum(len(pixels) for pixels in self._pixels.values())

    def median_ratio(self, pred: NDArray[np.float32]) -> float:
        """median(g) / median(p) over the pixels that count, p floored at 1 cm; 1 when none counts."""
        if not self.n:
            return 1.0
        true = np.concatenate(list(self._depths.values()))
        return float(np.median(true) / np.median(np.maximum(self._predicted(pred), FLOOR_M)))

    def score(self, pred: NDArray[np.float32]) -> dict[str, float]:
        """All of ``ALL_METRICS`` for a prediction (H, W) in metres; nan where no pixel counts.

        ``ValueError`` for a prediction of another shape, and for one that is not finite at a pixel that counts.
        """
        if pred.shape != self.shape:
            raise ValueError(f"prediction is {_size(pred.shape)}, ground truth is {_size(self.shape)}")
        flat = pred.ravel()
        sums = {part: self._sums(flat, part) for part in _PARTS}
        whole = _total(sums.values())
        if not math.isfinite(whole.squares):
            values = self._predicted(pred)
            bad = np.count_nonzero(~np.isfinite(values))
            raise ValueError(f"the prediction is not finite at {bad} of {len(values)} pixels")
        scores = whole.named()
        for place in _PLACES:
            named = _total(found for part, found in sums.items() if part.of(place)).named()
            scores |= {f"{metric}_{place}": named[metric] for metric in BY_PLACE}
        reach = _total(found for part, found in sums.items() if part.range in WITHIN_REACH)
        return {**scores, "obstacles_too_far": reach.far / reach.n if reach.n else math.nan}

    def _predicted(self, pred: NDArray[np.float32]) -> NDArray[np.float32]:
        """The prediction at the pixels that count, in the order of their depths."""
        return pred.take(np.concatenate(list(self._pixels.values())))

    def _sums(self, flat: NDArray[np.float32], part: _Part) -> _Sums:
        pixels, depths = self._pixels[part], self._depths[part]
        starts = range(0, len(pixels), _BLOCK)
        return _total(_block(flat.take(pixels[i : i + _BLOCK]), depths[i : i + _BLOCK]) for i in starts)


def _block(pred: NDArray[np.float32], g: NDArray[np.float64]) -> _Sums:
    """Arrays are overwritten as soon as they are done with, and sums of products are dot products: memory is what costs."""
    lowest = pred.min()
    if not lowest > -math.inf:  # nan too; the squares show positive infinities
        return _Sums(squares=math.inf)
    p = pred.astype(np.float64)
    if lowest < FLOOR_M:
        np.maximum(p, FLOOR_M, out=p)
    ratio, error = p / g, np.subtract(p, g, out=p)
    squares, far = float(error @ error), int(np.count_nonzero(ratio > _TIMES))
    error = np.abs(error, out=error)
    log_error = np.log(ratio, out=ratio)
    logs, log_squares = float(log_error.sum()), float(log_error @ log_error)
    magnitude = np.abs(log_error, out=log_error)
    within1, within2, within3 = (int(np.count_nonzero(magnitude < bound)) for bound in _WITHIN)
    log_magnitudes = float(magnitude.sum())
    relative = np.divide(error, g, out=magnitude)
    return _Sums(
        n=len(p),
        squares=squares,
        relative=float(relative.sum()),
        relative_squares=float(relative @ error),
        logs=logs,
        log_magnitudes=log_magnitudes,
        log_squares=log_squares,
        within1=within1,
        within2=within2,
        within3=within3,
        far=far,
    )


def image_metrics(
    pred: NDArray[np.float32],
    gt: NDArray[np.float32],
    *,
    min_depth: float = 0.0,
    max_depth: float = math.inf,
) -> dict[str, float]:
    """All of ``ALL_METRICS`` for one image.

    ``pred``, ``gt``: (H, W), metres; ``gt`` 0 = missing; it counts inside (``min_depth``, ``max_depth``). A metric without a
    pixel is nan. Raises ``ValueError`` for shapes that differ and for a prediction that is not finite at a valid pixel.
    """
    return Truth(gt, valid_mask(gt, min_depth=min_depth, max_depth=max_depth)).score(pred)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
