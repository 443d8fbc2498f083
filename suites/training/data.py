"""Batches for training: decoded images in memory-mapped files, cropped, resized and varied as tensors.

A batch is a function of (seed, step) alone, so a resumed training sees the batches of an unbroken one.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from depthbench.suites.data import DepthDataset, Sample
from depthbench.suites.data.rooms_dataset import DEPTH_UNITS, HEIGHT, SEED, SIZES, WIDTH, RoomsDataset, open_records
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.disk import reserve, writing_to
from depthbench.suites.training.config import Augment, TrainConfig

FARTHEST = 2**16 - 1
"""Depth units that are stored stay below it."""
LOOKED_AT = 9
"""Images of a data set by whose median its aspect ratio is taken."""


def depth_units(max_depth: float, crop: float = 1.0) -> int:
    """Stored depth units per metre: 5000, 13.1 m in all, up to a ``max_depth`` of 10 m; beyond it as many as there is room for.

    A crop of ``crop`` of an image's sides brings a depth of ``max_depth / crop`` metres to ``max_depth``.
    """
    return DEPTH_UNITS if max_depth <= 10 else min(DEPTH_UNITS, math.floor((FARTHEST - 1) * crop / max_depth))


def stored_size(dataset: DepthDataset) -> tuple[int, int]:
    """(height, width) in which a data set is kept: 240×320 for images of about 4:3, else 240 px on the shorter side."""
    indices = sorted({i * (len(dataset) - 1) // (LOOKED_AT - 1) for i in range(LOOKED_AT)})
    shapes = sorted((dataset[i].depth.shape[1:] for i in indices), key=lambda shape: shape[1] / shape[0])
    height, width = shapes[len(shapes) // 2]
    if abs(width / height * HEIGHT / WIDTH - 1) < 0.05:
        return HEIGHT, WIDTH
    scale = HEIGHT / min(height, width)
    return round(height * scale), round(width * scale)


def decoded(dataset: DepthDataset, units: int = DEPTH_UNITS) -> Pictures:
    """The data set as a memory-mapped array of images of :func:`stored_size`: decoded once, kept in the cache by digest.

    Depth is kept in ``units`` per metre; what does not fit into 16 bits counts as missing.
    """
    if isinstance(dataset, RoomsDataset):
        return Pictures(dataset.chunks, len(dataset))
    height, width = stored_size(dataset)
    name = f"{dataset.digest[:32]}-{height}x{width}" + ("" if units == DEPTH_UNITS else f"-{units}")
    path = cache_dir() / "decoded" / f"{name}.npy"
    if not path.is_file():
        record = np.dtype([("rgb", np.uint8, (3, height, width)), ("depth", np.uint16, (height, width))])
        part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                records = np.lib.format.open_memmap(part, mode="w+", dtype=record, shape=(len(dataset),))
                reserve(part)
                with ThreadPoolExecutor(
                    os.cpu_count()
                ) as pool:  # Pillow and NumPy decode outside the interpreter's lock
                    for _ in pool.map(lambda i: _decode(dataset[i], records, i, units), range(len(dataset))):
                        pass
                records.flush()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    return Pictures([open_records(path)], len(dataset), units)


def _decode(sample: Sample, records: NDArray[np.void], index: int, units: int) -> None:
    height, width = records["depth"].shape[1:]
    picture = Image.fromarray((np.moveaxis(sample.rgb, 0, 2) * 255).round().astype(np.uint8))
    depth = np.asarray(Image.fromarray(sample.depth[0]).resize((width, height), Image.Resampling.NEAREST)) * units
    small = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    records["rgb"][index] = np.moveaxis(small, 2, 0)
    records["depth"][index] = np.where(depth < FARTHEST, depth.round(), 0)


@dataclass(frozen=True)
class Pictures:
    """Decoded images: memory-mapped arrays of records ``rgb`` and ``depth``, all but the last of one length.

    ``units``: stored depth units per metre.
    """

    chunks: list[NDArray[np.void]]
    count: int
    units: int = DEPTH_UNITS

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """A random one: rgb (3, H, W), depth (H, W) in ``units``."""
        index = int(rng.integers(self.count))
        record = self.chunks[index // len(self.chunks[0])][index % len(self.chunks[0])]
        return record["rgb"], record["depth"]


@dataclass(frozen=True)
class RenderedRooms:
    """``rooms`` without end: every picture is rendered on ``device`` when it is drawn, and hardly ever drawn twice."""

    device: str
    units: int = DEPTH_UNITS

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """As :meth:`Pictures.draw`; a picture is a function of the index alone, so a resumed training sees the same ones."""
        from depthbench.suites.data.rooms import render

        index = int(rng.integers(SIZES["train"], 2**31))  # the first ones are those of the fixed split
        rgb, depth = render(SEED, "train", [index], height=HEIGHT, width=WIDTH, device=self.device)
        return rgb[0].cpu().numpy(), (depth[0, 0] * DEPTH_UNITS).round().cpu().numpy().astype(np.uint16)


class Batches:
    """Random batches of a mixture of data sets.

    ``datasets``: what is mixed; ``weights``: by data set name, in proportion to the share of samples drawn from it.
    ``max_depth``: metres; depth beyond it counts as missing. ``device``: on ``cuda``, ``rooms`` is rendered as it is drawn.
    """

    def __init__(
        self,
        datasets: list[DepthDataset],
        weights: Mapping[str, float],
        augment: Augment,
        *,
        batch: int,
        seed: int,
        max_depth: float = 10.0,
        device: str = "cpu",
    ) -> None:
        units = depth_units(max_depth, augment.crop)
        self.parts = [
            RenderedRooms(device) if device != "cpu" and isinstance(dataset, RoomsDataset) else decoded(dataset, units)
            for dataset in datasets
        ]
        shares = np.array([weights[dataset.name] for dataset in datasets], np.float64)
        self.shares = shares / shares.sum()
        self.augment, self.batch, self.seed, self.max_depth = augment, batch, seed, max_depth

    def __call__(self, step: int, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Batch number ``step`` at one of ``sizes`` (height, width).

        Returns rgb (B, 3, h, w) float32 in [0, 1] and depth (B, 1, h, w) float32 in metres, 0 = missing.
        """
        rng = np.random.default_rng([self.seed, step])
        height, width = sizes[rng.integers(len(sizes))]
        rgb = torch.empty(self.batch, 3, height, width)
        depth = torch.empty(self.batch, 1, height, width)
        for i in range(self.batch):
            part = self.parts[rng.choice(len(self.parts), p=self.shares)]
            picture, units = part.draw(rng)
            share, top, left = rng.uniform(self.augment.crop, 1), rng.random(), rng.random()
            flip = self.augment.flip and bool(rng.integers(2))
            rgb[i], depth[i] = crop(
                picture, units, share, (top, left), (height, width), flip=flip, per_metre=part.units
            )
        depth[depth > self.max_depth] = 0
        return vary(rgb, self.augment, rng), depth


@contextmanager
def feed(batches: Batches, config: TrainConfig, step: int) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """The batches of a training from ``step`` on, in order; prepared ahead by ``config.ahead`` threads, if any."""
    numbers = range(step * config.accumulate, config.steps * config.accumulate)
    calls = ((number, config.sizes_at(number // config.accumulate)) for number in numbers)
    workers = config.ahead
    if not workers:
        yield (batches(*call) for call in calls)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(batches, *call) for call in islice(calls, 2 * workers))

        def stream() -> Iterator[tuple[Tensor, Tensor]]:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(batches, *call) for call in islice(calls, 1))
                yield batch

        try:
            yield stream()
        finally:
            pool.shutdown(cancel_futures=True)


def crop(
    rgb: NDArray[np.uint8],
    units: NDArray[np.uint16],
    share: float,
    place: tuple[float, float],
    size: tuple[int, int],
    *,
    flip: bool = False,
    per_metre: int = DEPTH_UNITS,
) -> tuple[Tensor, Tensor]:
    """Cut ``share`` of both sides of an image and resize it to ``size``; depth is multiplied by the crop's real share.

    A crop blown up to the full image looks as if taken with a focal length 1/share as long; with the data's own focal length
    a scene that looks so is nearer by ``share``. ``rgb`` (3, H, W) is resized with antialiasing, ``units`` (H, W) takes the
    nearest value; ``per_metre`` units are a metre. ``place``: (top, left) in [0, 1], of the room there is. Returns
    rgb (3, h, w) in [0, 1] and depth (1, h, w) in metres.
    """
    full_height, full_width = units.shape
    height, width = round(full_height * share), round(full_width * share)
    top, left = round((full_height - height) * place[0]), round((full_width - width) * place[1])
    rows = top + ((np.arange(size[0]) + 0.5) * (height / size[0])).astype(np.intp)
    columns = left + ((np.arange(size[1]) + 0.5) * (width / size[1])).astype(np.intp)
    metres = units[rows[:, None], columns].astype(np.float32) * np.float32(height / full_height / per_metre)
    part = torch.from_numpy(np.array(rgb[:, top : top + height, left : left + width])).unsqueeze(0)
    picture = F.interpolate(part, size, mode="bilinear", antialias=True).squeeze(0).float() / 255
    depth = torch.from_numpy(metres).unsqueeze(0)
    return (picture.flip(2), depth.flip(2)) if flip else (picture, depth)


def vary(rgb: Tensor, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Gamma, brightness, contrast, colour, grey, blur and noise, drawn per image; (B, 3, H, W) in [0, 1] in and out."""
    count = len(rgb)

    def around_one(spread: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(1 - spread, 1 + spread, (count, channels, 1, 1)).astype(np.float32))

    gamma, gain = around_one(augment.gamma), around_one(augment.brightness) * around_one(augment.colour, 3)
    contrast, saturation = around_one(augment.contrast), around_one(min(4 * augment.colour, 1))
    saturation *= torch.from_numpy((rng.random((count, 1, 1, 1)) >= augment.gray).astype(np.float32))
    deviation = torch.from_numpy(rng.uniform(0, augment.noise, (count, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(rgb.shape, dtype=np.float32))
    if augment.blur:
        rgb = blurred(rgb, torch.from_numpy(rng.uniform(0, augment.blur, count).astype(np.float32)))
    rgb = rgb.pow(gamma) * gain
    gray = rgb.mean(dim=1, keepdim=True)  # (B, 1, H, W)
    rgb = gray + saturation * (rgb - gray)
    middle = gray.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    return (middle + contrast * (rgb - middle) + deviation * noise).clamp_(0, 1)


def blurred(rgb: Tensor, deviation: Tensor) -> Tensor:
    """Each image of (B, 3, H, W) under a Gaussian of its own standard deviation (B,) in pixels; edges are repeated."""
    reach = max(1, math.ceil(3 * float(deviation.max())))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / deviation[:, None].clamp_min(1e-3)) ** 2)  # (B, k)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # (3B, k)
    image = F.pad(rgb, (reach,) * 4, mode="replicate").flatten(0, 1).unsqueeze(0)  # (1, 3B, H + 2 reach, W + 2 reach)
    image = F.conv2d(image, kernel[:, None, :, None], groups=len(kernel))
    image = F.conv2d(image, kernel[:, None, None, :], groups=len(kernel))
    return image.view(rgb.shape)  # (B, 3, H, W)
