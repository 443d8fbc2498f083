"""Accuracy of a depth map against ground truth, as published for NYU and KITTI; numpy alone.

Definitions of Eigen et al. 2014 (section 4.2): p prediction, g ground truth, over the valid pixels of one image;
e = ln p - ln g. A metric of a data set is the mean over its images.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

METRICS = ("rmse_m", "abs_rel", "sq_rel", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
FLOOR_M = 0.01
"""Predictions below 1 cm count as 1 cm, so that logarithms and ratios exist."""


def valid_mask(gt: NDArray[np.float32], *, min_depth: float = 0.0, max_depth: float = math.inf) -> NDArray[np.bool_]:
    """Where ground truth counts: above 0 AND inside (``min_depth``, ``max_depth``) metres."""
    mask: NDArray[np.bool_] = (gt > 0) & (gt > min_depth) & (gt < max_depth)
    return mask


def image_metrics(
    pred: NDArray[np.float32],
    gt: NDArray[np.float32],
    *,
    min_depth: float = 0.0,
    max_depth: float = math.inf,
) -> dict[str, float]:
    """All of ``METRICS`` for one image.

    ``pred``, ``gt``: (H, W), metres; ``gt`` 0 = missing. Returned: ``rmse_m`` and ``sq_rel`` (p - g)²/g in metres,
    ``abs_rel`` |p - g|/g, ``rmse_log`` (ln), ``log10``, ``silog`` 100·√(mean e² - (mean e)²), ``delta1`` to ``delta3`` the
    share of pixels with max(p/g, g/p) < 1.25, 1.25², 1.25³. All are nan when no pixel is valid. Raises ``ValueError`` for
    shapes that differ and for a prediction that is not finite at a valid pixel.
    """
    if pred.shape != gt.shape:
        raise ValueError(f"prediction is {_size(pred)}, ground truth is {_size(gt)}")
    mask = valid_mask(gt, min_depth=min_depth, max_depth=max_depth)
    if not mask.any():
        return dict.fromkeys(METRICS, math.nan)
    p, g = pred[mask].astype(np.float64), gt[mask].astype(np.float64)  # (N,)
    if not np.isfinite(p).all():
        raise ValueError(f"the prediction is not finite at {np.count_nonzero(~np.isfinite(p))} of {len(p)} pixels")
    p = np.maximum(p, FLOOR_M)
    error, ratio = p - g, p / g
    log_error, worse = np.log(ratio), np.maximum(ratio, 1 / ratio)
    mean_log, mean_log_squared = log_error.mean(), np.square(log_error).mean()
    values = {
        "rmse_m": math.sqrt(np.square(error).mean()),
        "abs_rel": (np.abs(error) / g).mean(),
        "sq_rel": (np.square(error) / g).mean(),
        "rmse_log": math.sqrt(mean_log_squared),
        "log10": np.abs(log_error).mean() / math.log(10),
        "silog": 100 * math.sqrt(max(mean_log_squared - mean_log**2, 0.0)),
        "delta1": (worse < 1.25).mean(),
        "delta2": (worse < 1.25**2).mean(),
        "delta3": (worse < 1.25**3).mean(),
    }
    return {name: float(value) for name, value in values.items()}


def _size(array: NDArray[np.float32]) -> str:
    return "x".join(str(side) for side in array.shape)
