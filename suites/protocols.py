"""Evaluation protocols: what the network sees of an image, and where its prediction is compared with ground truth.

Results under different protocols are not comparable; a record names its protocol. A prediction returns to the ground
truth's size bilinearly, is cropped, and is scored per image (:mod:`depthbench.suites.metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depthbench.suites.data import Sample
from depthbench.suites.metrics import FLOOR_M, image_metrics, valid_mask

Crop = tuple[slice, slice]
_WHOLE: Crop = (slice(None), slice(None))


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

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W): inside the crop, with ground truth, inside the depth range."""
        mask = np.zeros(self.depth.shape, np.bool_)
        mask[self.crop] = valid_mask(self.depth[self.crop], min_depth=self.min_depth, max_depth=self.max_depth)
        return mask

    def restore(self, prediction: NDArray[np.float32]) -> NDArray[np.float32]:
        """A prediction (h, w) or (1, 1, h, w) in metres at the ground truth's size (H, W), floored at 1 cm."""
        full = resize(prediction.reshape(prediction.shape[-2:]), *self.depth.shape)  # (H, W)
        return np.maximum(full, np.float32(FLOOR_M))

    def score(self, prediction: NDArray[np.float32]) -> dict[str, float]:
        """The metrics of a prediction (h, w) or (1, 1, h, w) in metres; nan when nothing in the crop is valid."""
        restored = self.restore(prediction)
        return image_metrics(
            restored[self.crop], self.depth[self.crop], min_depth=self.min_depth, max_depth=self.max_depth
        )


@dataclass(frozen=True)
class Protocol:
    """A row of ``PROTOCOLS``.

    ``view`` brings a sample into the geometry of the evaluation. ``size``: the network's input when none is asked for
    (None: the nearest multiples of 32). ``crop``: of (height, width) of the ground truth. Depth counts strictly between
    ``min_depth`` and ``max_depth`` metres.
    """

    name: str
    summary: str
    view: Callable[[Sample], Sample] = lambda sample: sample
    size: tuple[int, int] | None = None
    crop: Callable[[int, int], Crop] = lambda _height, _width: _WHOLE
    min_depth: float = 0.0
    max_depth: float = math.inf

    def prepare(self, sample: Sample, size: tuple[int, int] | None = None) -> Prepared:
        """A sample as the network's input of ``size`` (height, width) and its ground truth."""
        seen = self.view(sample)
        height, width = seen.depth.shape[1:]
        rows, columns = size or self.size or (nearest_32(height), nearest_32(width))
        channels = [resize(channel, rows, columns) for channel in seen.rgb]
        crop = self.crop(height, width)
        return Prepared(np.stack(channels)[None], seen.rgb, seen.depth[0], crop, self.min_depth, self.max_depth)


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


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol("native", "the data's own size, every pixel with ground truth"),
            Protocol(
                "nyu-fastdepth",
                "nearest to 333x250, crop box (14, 11, 318, 239), nearest to 224x224, rgb and depth alike; no cap",
                view=_fastdepth_view,
                size=(224, 224),
            ),
            Protocol(
                "nyu-eigen",
                "480x640, rows 45:471, columns 41:601, 1e-3 < depth < 10 m",
                size=(224, 224),
                crop=_eigen_crop,
                min_depth=1e-3,
                max_depth=10.0,
            ),
        )
    }
)
