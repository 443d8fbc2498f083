"""What stands around a network when it is used: a picture becomes its input, its output becomes depth of the picture.

Timed apart from inference, step by step, on one fixed picture: ``room.jpg``, 640x480, image 0 of ``rooms``' test split
rendered at that size. The same picture is the input on which networks are timed.
"""

from __future__ import annotations

import io
import time
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

REPEATS = 20
"""How often each step is timed."""


def room() -> bytes:
    """The picture, as a JPEG file's bytes."""
    return resources.files("depthbench.suites.targets").joinpath("room.jpg").read_bytes()


def decoded(data: bytes) -> Image.Image:
    """A picture file's bytes as RGB pixels."""
    image = Image.open(io.BytesIO(data))
    return image.convert("RGB")


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at (height, width), bilinear."""
    height, width = size
    return image.resize((width, height), Image.Resampling.BILINEAR)


def normalised(image: Image.Image) -> NDArray[np.float32]:
    """A picture as a network's input: (1, 3, H, W) float32 in [0, 1]."""
    pixels = np.asarray(image, dtype=np.float32) / 255  # (H, W, 3)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])  # (1, 3, H, W)


def to_metres(depth: NDArray[np.float32], image: Image.Image) -> NDArray[np.float32]:
    """A network's output (1, 1, H, W) in metres at the size of its picture (height, width), bilinear."""
    plane = Image.fromarray(np.asarray(depth, dtype=np.float32).reshape(depth.shape[-2:]))  # (H, W)
    return np.asarray(plane.resize(image.size, Image.Resampling.BILINEAR))


def room_input(size: tuple[int, int]) -> NDArray[np.float32]:
    """The picture as a network's input: (1, 3, H, W) float32 in [0, 1]."""
    return normalised(resized(decoded(room()), size))


def processing_times(size: tuple[int, int], repeats: int = REPEATS) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each step around a network of input ``size`` (height, width), ``repeats`` times.

    ``pre_ms``: ``decode`` (JPEG to pixels), ``resize``, ``normalise``; ``post_ms``: ``to_metres``.
    """
    data = room()
    times: dict[str, list[float]] = {name: [] for name in ("decode", "resize", "normalise", "to_metres")}
    for _ in range(repeats + 1):
        marks = [time.perf_counter()]
        image = decoded(data)
        marks.append(time.perf_counter())
        small = resized(image, size)
        marks.append(time.perf_counter())
        ready = normalised(small)
        marks.append(time.perf_counter())
        to_metres(ready[:, :1], image)
        marks.append(time.perf_counter())
        for name, start, end in zip(times, marks, marks[1:], strict=False):
            times[name].append((end - start) * 1e3)
    kept = {name: values[1:] for name, values in times.items()}  # the first round warms up
    return {
        "pre_ms": {name: kept[name] for name in ("decode", "resize", "normalise")},
        "post_ms": {"to_metres": kept["to_metres"]},
    }
