"""Batches for training: decoded images in memory-mapped files, cropped, resized and varied as tensors.

A batch is a function of (seed, step) alone, so a resumed training sees the batches of an unbroken one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from depthbench.suites.cache import cache_dir
from depthbench.suites.data import DepthDataset
from depthbench.suites.data.rooms_dataset import DEPTH_UNITS, HEIGHT, RECORD, WIDTH, RoomsDataset, open_records
from depthbench.suites.results import write_atomic


class Augment(BaseModel, frozen=True, extra="forbid"):
    """How far a training image is varied; a range's width, 0 switches that variation off."""

    crop: float = Field(default=0.75, gt=0, le=1)
    """Smallest side of the random crop as a share of the image; the crop keeps the image's aspect ratio."""
    flip: bool = True
    gamma: float = Field(default=0.25, ge=0, lt=1)
    brightness: float = Field(default=0.25, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    colour: float = Field(default=0.1, ge=0, lt=1)
    """Gain of each channel; saturation varies four times as far."""
    gray: float = Field(default=0.05, ge=0, lt=1)
    """Share of images without colour."""
    noise: float = Field(default=0.02, ge=0, lt=1)
    """Largest standard deviation of the noise, of a range of 1."""


def decoded(dataset: DepthDataset) -> list[NDArray[np.void]]:
    """The data set as memory-mapped ``RECORD`` arrays of 240×320 images: decoded once, kept in the cache by digest.

    Depth is kept in 0.2 mm steps; beyond 13.1 m it counts as missing.
    """
    if isinstance(dataset, RoomsDataset):
        return dataset.chunks
    path = cache_dir() / "decoded" / f"{dataset.digest[:32]}-{HEIGHT}x{WIDTH}.npy"
    if not path.is_file():
        records = np.empty(len(dataset), RECORD)
        for i in range(len(dataset)):
            sample = dataset[i]
            picture = Image.fromarray((np.moveaxis(sample.rgb, 0, 2) * 255).round().astype(np.uint8))
            depth = Image.fromarray(sample.depth[0]).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
            units = np.asarray(depth) * DEPTH_UNITS
            records["rgb"][i] = np.moveaxis(
                np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)), 2, 0
            )
            records["depth"][i] = np.where(units < np.iinfo(np.uint16).max, units.round(), 0)
        buffer = io.BytesIO()
        np.save(buffer, records)
        write_atomic(path, buffer.getvalue())
    return [open_records(path)]


class Batches:
    """Random batches of a mixture of data sets.

    ``datasets``: what is mixed; ``weights``: by data set name, in proportion to the share of samples drawn from it.
    ``max_depth``: metres; depth beyond it counts as missing.
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
    ) -> None:
        self.parts = [(decoded(dataset), len(dataset)) for dataset in datasets]
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
            chunks, count = self.parts[rng.choice(len(self.parts), p=self.shares)]
            index = int(rng.integers(count))
            record = chunks[index // len(chunks[0])][index % len(chunks[0])]
            share, top, left = rng.uniform(self.augment.crop, 1), rng.random(), rng.random()
            flip = self.augment.flip and bool(rng.integers(2))
            rgb[i], depth[i] = crop(record["rgb"], record["depth"], share, (top, left), (height, width), flip=flip)
        depth[depth > self.max_depth] = 0
        return vary(rgb, self.augment, rng), depth


def crop(
    rgb: NDArray[np.uint8],
    units: NDArray[np.uint16],
    share: float,
    place: tuple[float, float],
    size: tuple[int, int],
    *,
    flip: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cut ``share`` of both sides of an image and resize it to ``size``; depth is multiplied by the crop's real share.

    A crop blown up to the full image looks as if taken with a focal length 1/share as long; with the data's own focal length
    a scene that looks so is nearer by ``share``. ``rgb`` (3, H, W) is resized with antialiasing, ``units`` (H, W) takes the
    nearest value. ``place``: (top, left) in [0, 1], of the room there is. Returns rgb (3, h, w) in [0, 1] and depth
    (1, h, w) in metres.
    """
    full_height, full_width = units.shape
    height, width = round(full_height * share), round(full_width * share)
    top, left = round((full_height - height) * place[0]), round((full_width - width) * place[1])
    rows = top + ((np.arange(size[0]) + 0.5) * (height / size[0])).astype(np.intp)
    columns = left + ((np.arange(size[1]) + 0.5) * (width / size[1])).astype(np.intp)
    metres = units[rows[:, None], columns].astype(np.float32) * np.float32(height / full_height / DEPTH_UNITS)
    part = torch.from_numpy(np.array(rgb[:, top : top + height, left : left + width])).unsqueeze(0)
    picture = F.interpolate(part, size, mode="bilinear", antialias=True).squeeze(0).float() / 255
    depth = torch.from_numpy(metres).unsqueeze(0)
    return (picture.flip(2), depth.flip(2)) if flip else (picture, depth)


def vary(rgb: Tensor, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Gamma, brightness, contrast, colour, grey and noise, drawn per image; (B, 3, H, W) in [0, 1] in and out."""
    count = len(rgb)

    def around_one(spread: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(1 - spread, 1 + spread, (count, channels, 1, 1)).astype(np.float32))

    gamma, gain = around_one(augment.gamma), around_one(augment.brightness) * around_one(augment.colour, 3)
    contrast, saturation = around_one(augment.contrast), around_one(min(4 * augment.colour, 1))
    saturation *= torch.from_numpy((rng.random((count, 1, 1, 1)) >= augment.gray).astype(np.float32))
    deviation = torch.from_numpy(rng.uniform(0, augment.noise, (count, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(rgb.shape, dtype=np.float32))
    rgb = rgb.pow(gamma) * gain
    gray = rgb.mean(dim=1, keepdim=True)  # (B, 1, H, W)
    rgb = gray + saturation * (rgb - gray)
    middle = gray.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    return (middle + contrast * (rgb - middle) + deviation * noise).clamp_(0, 1)
