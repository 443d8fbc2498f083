"""Training losses on metric depth. Depths are (B, 1, H, W) in metres; a depth of 0 is missing.

Every loss is a mean over the valid pixels (or valid pairs of neighbours) of the whole batch, and 0 with zero gradient
when there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Metres; predictions are clamped to it before a logarithm."""


def _log_error(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """ln(pred / target) in float32, 0 where ``mask`` is False."""
    pred, target = pred.float().clamp_min(SMALLEST), target.float()
    return torch.where(mask, pred.log() - torch.where(mask, target, 1.0).log(), 0.0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask``; 0 when it is empty."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def silog_loss(pred: Tensor, target: Tensor, mask: Tensor, *, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant logarithmic loss: √(mean e² − variance_focus · (mean e)²) with e = ln(pred / target).

    Eigen et al. 2014, section 3.2, under a root as in Lee et al. 2019 (BTS), equation 4. ``pred``, ``target``, ``mask``
    (bool): (B, 1, H, W). Returns a scalar ≥ 0.
    """
    error = _log_error(pred, target, mask)
    squared = _mean(error**2, mask) - variance_focus * _mean(error, mask) ** 2
    # The root has no finite slope at 0: below the bound the loss is 0 and flat.
    return torch.where(squared > SMALLEST**2, squared.clamp_min(SMALLEST**2).sqrt(), 0.0)


def gradient_loss(pred: Tensor, target: Tensor, mask: Tensor, *, scales: int = 4) -> Tensor:
    """Mean absolute difference of neighbouring log errors, horizontally plus vertically, averaged over ``scales``.

    Li and Snavely 2018 (MegaDepth), section 4.1: e = ln(pred / target), |e[x + 1] − e[x]| + |e[y + 1] − e[y]|, at full
    resolution and at every 2nd, 4th, ... pixel. A pair counts when both its pixels are valid. Shapes as in
    :func:`silog_loss`.
    """
    error = _log_error(pred, target, mask)
    total = error.sum() * 0.0
    for scale in range(scales):
        e, m = error[..., :: 2**scale, :: 2**scale], mask[..., :: 2**scale, :: 2**scale]
        total = total + _mean((e[..., 1:] - e[..., :-1]).abs(), m[..., 1:] & m[..., :-1])
        total = total + _mean((e[..., 1:, :] - e[..., :-1, :]).abs(), m[..., 1:, :] & m[..., :-1, :])
    return total / scales


def edge_aware_loss(pred: Tensor, rgb: Tensor, mask: Tensor | None = None, *, sharpness: float = 10.0) -> Tensor:
    """Smooth depth where the image is smooth: |∂ ln pred| · exp(−sharpness · |∂ rgb|), horizontally plus vertically.

    The source names an edge-aware loss of depth and edges and gives no formula. It is read in the form of Godard et al. 2017
    (Monodepth), equation 5: the image's own differences in place of the source's Sobel map, which the refinement sees; on
    log depth, so that it does not depend on scale. |∂ rgb| is the mean over the three channels of ``rgb`` (B, 3, H, W) in
    [0, 1]. It needs no ground truth; a pair counts when ``mask`` (bool, B × 1 × H × W) holds at both its pixels, or always
    without a mask.
    """
    log_depth, rgb = pred.float().clamp_min(SMALLEST).log(), rgb.float()
    if mask is None:
        mask = torch.ones_like(log_depth, dtype=torch.bool)
    weight_x = torch.exp(-sharpness * (rgb[..., 1:] - rgb[..., :-1]).abs().mean(dim=1, keepdim=True))
    weight_y = torch.exp(-sharpness * (rgb[..., 1:, :] - rgb[..., :-1, :]).abs().mean(dim=1, keepdim=True))
    along_x = (log_depth[..., 1:] - log_depth[..., :-1]).abs() * weight_x
    along_y = (log_depth[..., 1:, :] - log_depth[..., :-1, :]).abs() * weight_y
    return _mean(along_x, mask[..., 1:] & mask[..., :-1]) + _mean(along_y, mask[..., 1:, :] & mask[..., :-1, :])


def metric_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Root mean square of pred − target over each image's valid pixels, averaged over the images that have any.

    The logarithm minds an error at 5 m as little as the fifth of it at 1 m; this is the error in metres itself, as RMSE is
    reported. ``pred``, ``target``, ``mask`` (bool): (B, 1, H, W), metres. Returns a scalar ≥ 0 in metres.
    """
    difference = torch.where(mask, pred.float() - target.float(), 0.0)
    count = mask.sum(dim=(1, 2, 3))  # (B,)
    mean = (difference**2).sum(dim=(1, 2, 3)) / count.clamp_min(1)
    # As in silog_loss: flat where the root has no finite slope.
    root = torch.where(mean > SMALLEST**2, mean.clamp_min(SMALLEST**2).sqrt(), 0.0)
    return _mean(root, count > 0)


@dataclass(frozen=True)
class DepthLoss:
    """The training loss: a weighted sum of its terms. A weight of 0 leaves its term out.

    ``variance_focus``: of :func:`silog_loss`; 1 leaves the overall scale of the predictions free, 0 is the plain log error.
    ``metric``: of :func:`metric_loss`, per metre.
    """

    silog: float = 1.0
    gradient: float = 0.5
    edge: float = 0.1
    variance_focus: float = 0.85
    metric: float = 0.0

    def __call__(self, pred: Tensor, depth: Tensor, rgb: Tensor) -> Tensor:
        """``pred``, ``depth`` (B, 1, H, W) metres, 0 = invalid; ``rgb`` (B, 3, H, W) in [0, 1]. Returns a scalar.

        Only valid pixels contribute, to the edge-aware term too.
        """
        mask = depth > 0
        total = pred.float().sum() * 0.0
        if self.silog:
            total = total + self.silog * silog_loss(pred, depth, mask, variance_focus=self.variance_focus)
        if self.gradient:
            total = total + self.gradient * gradient_loss(pred, depth, mask)
        if self.metric:
            total = total + self.metric * metric_loss(pred, depth, mask)
        if self.edge:
            total = total + self.edge * edge_aware_loss(pred, rgb, mask)
        return total
