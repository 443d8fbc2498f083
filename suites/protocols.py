"""Evaluation protocols: what the network sees of an image, and where its prediction is compared with ground truth.

Results under different protocols are not comparable; a record names its protocol. A prediction returns to the ground
truth's size bilinearly, is cropped, and is scored per image (:mod:`depthbench.suites.metrics`). It is floored at 1 cm
and never capped: a depth beyond the range of a protocol counts as the error that it is. BTS and monodepth2 clip predictions
to the range first (monodepth2 after scaling), which changes nothing for predictions that stay inside it.

A protocol takes the ground truth as a data set has it: the .mat file of ``nyu-labeled`` holds in-painted depth, BTS's official
test images the raw depth with holes, so ``nyu-eigen`` of the one is not comparable with ``nyu-eigen`` of the other.

Each protocol has a variant ``NAME+median-scale`` for networks that know depth up to a factor only: the prediction of each
image is first multiplied by median(g) / median(p) over the pixels that count (Zhou et al. 2017, section 4.2). That uses the
ground truth, so its numbers stand under their own name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depthbench.suites.data import Sample
from depthbench.suites.metrics import FLOOR_M, Truth, valid_mask

Crop = tuple[slice, slice]
_WHOLE: Crop = (slice(None), slice(None))
MEDIAN_SCALE = "+median-scale"
"""The ending of the protocols that scale each prediction to the median of its ground truth."""


@dataclass(frozen=True)
class Prepared:
    """An image under a protocol.

    ``input``: (1, 3, h, w) float32 in [0, 1], for the network. ``rgb``: (3, H, W) and ``depth``: (H, W) metres, 0 = missing, in
    the geometry of the ground truth. ``crop``: the rows and columns that count.
    """

    input: NDArray[np.float32]
    rgb: NDArray[np.float32]
    depth: NDArray[np.float32]
    crop: Crop
    min_depth: float
    max_depth: float
    median_scale: bool = False

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W): inside the crop, with ground truth, inside the depth range."""
        mask = np.zeros(self.depth.shape, np.bool_)
        mask[self.crop] = valid_mask(self.depth[self.crop], min_depth=self.min_depth, max_depth=self.max_depth)
        return mask

    @cached_property
    def truth(self) -> Truth:
        """The ground truth laid out for scoring; made once, whatever the number of predictions."""
        return Truth(self.depth, self.mask)

    def resized(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The image as an input of ``size`` (height, width): (1, 3, height, width)."""
        return self.input if self.input.shape[2:] == size else network_input(self.rgb, size)

    def restore(self, prediction: NDArray[np.float32]) -> NDArray[np.float32]:
        """A prediction (h, w) or (1, 1, h, w) in metres at the ground truth's size (H, W), floored at 1 cm.

        Where the protocol says so it is scaled to the ground truth's median.
        """
        full = self._enlarged(prediction)
        return np.maximum(full, np.float32(FLOOR_M))

    def score(self, prediction: NDArray[np.float32]) -> dict[str, float]:
        """The metrics of a prediction (h, w) or (1, 1, h, w) in metres; nan when nothing in the crop is valid."""
        return self.truth.score(self._enlarged(prediction))

    def _enlarged(self, prediction: NDArray[np.float32]) -> NDArray[np.float32]:
        full = resize(prediction.reshape(prediction.shape[-2:]), *self.depth.shape)  # (H, W)
        if not self.median_scale:
            return full
        floored = np.maximum(full, np.float32(FLOOR_M))
        return floored * np.float32(self.truth.median_ratio(floored))


@dataclass(frozen=True)
class Protocol:
    """A row of ``PROTOCOLS``.

    ``view`` brings a sample into the geometry of the evaluation. ``size``: the network's input when none is asked for
    (None: the nearest multiples of 32). ``crop``: of (height, width) of the ground truth. Depth counts strictly between
    ``min_depth`` and ``max_depth`` metres. ``median_scale``: each prediction is scaled to the median of its ground truth.
    """

    name: str
    summary: str
    view: Callable[[Sample], Sample] = lambda sample: sample
    size: tuple[int, int] | None = None
    crop: Callable[[int, int], Crop] = lambda _height, _width: _WHOLE
    min_depth: float = 0.0
    max_depth: float = math.inf
    median_scale: bool = False

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input for images of ``height`` x ``width``, when none is asked for."""
        return self.size or (nearest_32(height), nearest_32(width))

    def prepare(self, sample: Sample, size: tuple[int, int] | None = None) -> Prepared:
        """A sample as the network's input of ``size`` (height, width) and its ground truth."""
        seen = self.view(sample)
        height, width = seen.depth.shape[1:]
        return Prepared(
            network_input(seen.rgb, size or self.input_size(height, width)),
            seen.rgb,
            seen.depth[0],
            self.crop(height, width),
            self.min_depth,
            self.max_depth,
            self.median_scale,
        )


def network_input(rgb: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(3, H, W) as a batch of one image of ``size``: (1, 3, height, width), bilinear."""
    if rgb.shape[1:] == size:
        return rgb[None]
    resized = np.empty((1, 3, *size), np.float32)
    for channel, out in zip(rgb, resized[0], strict=True):
        out[:] = resize(channel, *size)
    return resized


def resize(
    image: NDArray[np.float32],
    height: int,
    width: int,
    how: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[np.float32]:
    """(H, W) to (``height``, ``width``); bilinear is antialiased where it makes an image smaller."""
    if image.shape == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), how))


def nearest_32(side: int) -> int:
    """The multiple of 32 nearest to ``side``, at least 32; the larger one of two."""
    return max(32, (side + 16) // 32 * 32)


def _fastdepth_view(sample: Sample) -> Sample:
    """FastDepth's own transform (Wofk et al. 2019, its data loader), rgb and depth alike."""

    def view(channel: NDArray[np.float32]) -> NDArray[np.float32]:
        cropped = resize(channel, 250, 333, Image.Resampling.NEAREST)[11:239, 14:318]
        return resize(np.ascontiguousarray(cropped), 224, 224, Image.Resampling.NEAREST)

    return Sample(np.stack([view(channel) for channel in sample.rgb]), view(sample.depth[0])[None])


def _eigen_crop(height: int, width: int) -> Crop:
    """Rows 45:471 and columns 41:601 of 480x640, as Eigen et al. 2014 evaluate NYU; in proportion at other sizes."""
    rows = slice(round(45 / 480 * height), round(471 / 480 * height))
    return rows, slice(round(41 / 640 * width), round(601 / 640 * width))


def _kitti_crop(top: float, bottom: float, left: float, right: float) -> Callable[[int, int], Crop]:
    """A crop in shares of height and width, cut off to whole pixels as Garg's and Eigen's evaluations do."""
    return lambda height, width: (
        slice(int(top * height), int(bottom * height)),
        slice(int(left * width), int(right * width)),
    )


_KITTI_SIZE = (352, 1216)
_PLAIN = (
    Protocol("native", "the data's own size, every pixel with ground truth"),
    Protocol(
        "nyu-fastdepth",
        "nearest to 333x250, crop box (14, 11, 318, 239), nearest to 224x224, rgb and depth alike; no cap",
        view=_fastdepth_view,
        size=(224, 224),
    ),
    Protocol(
        "nyu-eigen",
        "480x640, rows 45:471, columns 41:601, 1e-3 < depth < 10 m; no cap",
        size=(224, 224),
        crop=_eigen_crop,
        min_depth=1e-3,
        max_depth=10.0,
    ),
    Protocol(
        "kitti-garg",
        "rows .40810811-.99189189, columns .03594771-.96405229 (Garg et al. 2016), 1e-3 < depth < 80 m; "
        "whole images resized, no cap",
        size=_KITTI_SIZE,
        crop=_kitti_crop(0.40810811, 0.99189189, 0.03594771, 0.96405229),
        min_depth=1e-3,
        max_depth=80.0,
    ),
    Protocol(
        "kitti-eigen",
        "rows .3324324-.91351351, columns .0359477-.96405229 (Eigen et al. 2014), 1e-3 < depth < 80 m; "
        "whole images resized, no cap",
        size=_KITTI_SIZE,
        crop=_kitti_crop(0.3324324, 0.91351351, 0.0359477, 0.96405229),
        min_depth=1e-3,
        max_depth=80.0,
    ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for plain in _PLAIN
        for protocol in (
            plain,
            replace(
                plain,
                name=plain.name + MEDIAN_SCALE,
                summary=f"{plain.summary}; each prediction scaled to its median",
                median_scale=True,
            ),
        )
    }
)
