"""Calibration images, and how the range of a tensor follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod

from depthbench.compression.options import unknown

Image = NDArray[np.float32]

RANGES: Mapping[str, tuple[CalibrationMethod, Mapping[str, Any]]] = MappingProxyType(
    {
        "minmax": (CalibrationMethod.MinMax, {}),
        "mean": (CalibrationMethod.MinMax, {"CalibMovingAverage": True}),
        "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
        "entropy": (CalibrationMethod.Entropy, {}),
    }
)
"""How a tensor's range follows from the calibration images: the extremes of all images; the mean over images of each image's
extremes; their 99.99th percentile; least Kullback-Leibler divergence. The last two hold every activation of every image in
memory and take minutes where the first two take seconds. "mean" forgives an odd image, and cuts off the far end of any room
that is deeper than most: at 64 images it costs the depth networks here 7 to 13 dB of what "minmax" reaches."""

DEFAULT_RANGES = "minmax"


def method(ranges: str) -> tuple[CalibrationMethod, Mapping[str, Any]]:
    """ONNX Runtime's calibration method and its options; ``ValueError`` for a name that is not in ``RANGES``."""
    if ranges not in RANGES:
        raise ValueError(f"ranges: {unknown('value', ranges, RANGES)}")
    return RANGES[ranges]


def checked(calibration: Iterable[Image], model: onnx.ModelProto) -> list[Image]:
    """The images of a calibration set.

    ``ValueError`` when there are none, all are constant, or one does not fit the model's input.
    """
    images = list(calibration)
    if not images:
        raise ValueError("calibration: no images, at least one is needed")
    shape = tuple(axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim)
    for i, image in enumerate(images):
        if image.shape != shape or image.dtype != np.float32:
            raise ValueError(
                f"calibration: image {i} is {image.dtype} {image.shape}, the network takes float32 {shape}"
            )
        if not np.isfinite(image).all():
            raise ValueError(f"calibration: image {i} holds values that are not finite")
    if all(image.min() == image.max() for image in images):
        raise ValueError(
            f"calibration: every image is constant ({len(images)} in all), ranges cannot be told from them"
        )
    return images


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images in the form that ONNX Runtime's calibrators read."""

    def __init__(self, name: str, images: list[Image]) -> None:
        self.feeds: Iterator[dict[str, Image]] = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, Image] | None:
        """The next image by the name of the input; None behind the last."""
        return next(self.feeds, None)
