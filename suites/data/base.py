"""What every data set yields, and the data set of files on disk that all loaders but ``rooms`` return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depthbench.suites.data.files import check_inside, files_digest, fixed_subset, read_depth, read_rgb

Split = Literal["train", "calibration", "test"]

CALIBRATION_IMAGES = 64
MILLIMETRES = 1000.0
_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Sample:
    """One image with its depth.

    ``rgb``: (3, H, W) float32 in [0, 1]. ``depth``: (1, H, W) float32 in metres, 0 = no ground truth.
    """

    rgb: NDArray[np.float32]
    depth: NDArray[np.float32]


class DepthDataset(Protocol):
    """A split of a data set: indexable, with a name for each image and a digest of its content."""

    @property
    def name(self) -> str:
        """The data set's name in ``DATASETS``."""

    @property
    def split(self) -> str:
        """``train``, ``calibration`` or ``test``."""

    @property
    def digest(self) -> str:
        """Hexadecimal fingerprint of the content; of files as :func:`depthbench.suites.data.files.files_digest` takes it."""

    @property
    def groups(self) -> Sequence[str]:
        """The group (camera, kind of room) of each image, by which results are also shown; empty when there are none."""

    @property
    def skipped(self) -> list[str]:
        """One line for each broken image that was left out, naming its file."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def label(self, index: int) -> str:
        """A short name of one image, unique within the split."""


@dataclass(frozen=True)
class Item:
    """One image of a :class:`FileDataset`: the files that hold it, all below the root; the depth is in the last one.

    ``index``: its place in a file that holds many images. ``group``: see :attr:`DepthDataset.groups`.
    """

    label: str
    files: tuple[Path, ...]
    index: int | None = None
    group: str = ""

    def __str__(self) -> str:
        return str(self.files[-1]) if self.index is None else f"{self.files[-1]}: image {self.index}"


class Reader(Protocol):
    """How an item is decoded."""

    @property
    def key(self) -> str:
        """What of the decoding enters the digest."""

    def __call__(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """rgb (3, H, W) uint8 and depth (H, W) float32 in metres, 0 = missing; ``ValueError`` names a bad file."""


@dataclass(frozen=True)
class PairReader:
    """An RGB image file, and a depth PNG of ``bits`` bits in ``scale`` stored units per metre.

    ``missing``: a stored value that means no ground truth, beside 0. ``fit_rgb``: the colour camera has more pixels than the
    depth camera; its image is resized (bilinear) to the depth's size when both have the same aspect ratio within 1 %.
    """

    scale: float = MILLIMETRES
    bits: int = 16
    missing: int | None = None
    fit_rgb: bool = False

    @property
    def key(self) -> str:
        """The fields that are not at their defaults; the scale always."""
        text = f"scale {self.scale!r}"
        if self.bits != 16:
            text += f" bits {self.bits}"
        if self.missing is not None:
            text += f" missing {self.missing}"
        return text + (" fit" if self.fit_rgb else "")

    def __call__(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See :class:`Reader`."""
        rgb, units = read_rgb(item.files[0]), read_depth(item.files[1], self.bits)
        depth = units.astype(np.float32) / np.float32(self.scale)
        if self.missing is not None:
            depth[units == self.missing] = 0
        if self.fit_rgb and _same_aspect(rgb.shape[1:], depth.shape):
            picture = Image.fromarray(np.moveaxis(rgb, 0, 2))
            size = (depth.shape[1], depth.shape[0])
            rgb = np.moveaxis(np.asarray(picture.resize(size, Image.Resampling.BILINEAR)), 2, 0)  # (3, H, W)
        return rgb, depth


def _same_aspect(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= _ASPECT_TOLERANCE


@dataclass(frozen=True)
class FileDataset:
    """Images in files below ``root``, decoded when they are asked for; safe to read from several threads.

    ``layout``: what was found, in words.
    """

    name: str
    split: str
    root: Path
    items: Sequence[Item]
    read: Reader
    layout: str = ""
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """``ValueError``, one line, names a file that is missing or damaged, or whose depth is of another size or unusable."""
        item = self.items[index]
        check_inside(self.root, item.files)
        check_there(item)
        rgb, depth = self.read(item)
        if rgb.shape[1:] != depth.shape:
            raise ValueError(
                f"{item}: depth is {depth.shape[0]}x{depth.shape[1]}, "
                f"its image {item.files[0].name} is {rgb.shape[1]}x{rgb.shape[2]}"
            )
        if wrong := int(np.count_nonzero(~(depth >= 0) | np.isinf(depth))):
            raise ValueError(f"{item}: depth is NaN, infinite or negative at {wrong} of {depth.size} pixels")
        if not depth.any():
            raise ValueError(f"{item}: depth is 0 at every pixel")
        return Sample(rgb.astype(np.float32) / np.float32(255), depth[None])

    def label(self, index: int) -> str:
        """The image's path below the root, without its ending; its number in a file that holds many."""
        return self.items[index].label

    @cached_property
    def groups(self) -> list[str]:
        """The group of each image; empty when the data set has none."""
        names = [item.group for item in self.items]
        return names if any(names) else []

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the files (:func:`files_digest`), of how they are decoded, and of which images of a file count."""
        files = dict.fromkeys(path for item in self.items for path in item.files)
        numbers = [item.index for item in self.items if item.index is not None]
        return files_digest(self.root, files, self.read.key + (f" images {numbers}" if numbers else ""))

    def first(self, limit: int | None) -> FileDataset:
        """Only the first ``limit`` images."""
        return replace(self, items=self.items[:limit])

    def calibration(self) -> FileDataset:
        """The fixed choice of 64 images of a training split that calibrates INT8 networks."""
        chosen = fixed_subset(len(self.items), CALIBRATION_IMAGES)
        return replace(self, split="calibration", items=[self.items[i] for i in chosen])

    def check(self, *, existence: bool = True) -> None:
        """``ValueError`` for the first file that leads outside the root or, with ``existence``, is not there."""
        check_inside(self.root, (path for item in self.items for path in item.files))
        if existence:
            for item in self.items:
                check_there(item)


def check_there(item: Item) -> None:
    """``ValueError`` names the first file of an item that does not exist."""
    for place, path in enumerate(item.files):
        if not path.is_file():
            raise ValueError(f"{path}: no such file" + (f" (the depth of {item.files[0].name})" if place else ""))


def pair_items(root: Path, pairs: Sequence[tuple[Path, Path]]) -> list[Item]:
    """Items of (rgb, depth) files, labelled by the image's path below ``root`` without its ending."""
    return [Item(rgb.relative_to(root).with_suffix("").as_posix(), (rgb, depth)) for rgb, depth in pairs]
