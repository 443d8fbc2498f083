"""What every data set yields, and the readers of image files that they share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Split = Literal["train", "calibration", "test"]

CALIBRATION_IMAGES = 64
_WHOLE_FILE = 1 << 20
_EDGE = 1 << 19


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
        """Hexadecimal fingerprint of the content; equal digests mean equal samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def label(self, index: int) -> str:
        """A short name of one image, unique within the split."""


@dataclass(frozen=True)
class PairDataset:
    """RGB and 16-bit depth image files on disk, decoded when they are asked for.

    ``pairs``: (rgb file, depth file); ``depth_scale``: stored units per metre (1000 for millimetres).
    """

    name: str
    split: str
    root: Path
    pairs: Sequence[tuple[Path, Path]]
    depth_scale: float

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        rgb_path, depth_path = self.pairs[index]
        rgb, depth = read_rgb(rgb_path), read_depth(depth_path)
        if rgb.shape[1:] != depth.shape:
            raise ValueError(
                f"{depth_path}: depth is {depth.shape[0]}x{depth.shape[1]}, "
                f"its image {rgb_path.name} is {rgb.shape[1]}x{rgb.shape[2]}"
            )
        scaled = depth.astype(np.float32) / np.float32(self.depth_scale)
        return Sample(rgb.astype(np.float32) / np.float32(255), scaled[None])

    def label(self, index: int) -> str:
        """The image's path below the root, without its ending."""
        return self.pairs[index][0].relative_to(self.root).with_suffix("").as_posix()

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the files (:func:`files_digest`) and of the depth scale."""
        return files_digest(self.root, (path for pair in self.pairs for path in pair), f"scale {self.depth_scale!r}")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image file as (3, H, W) uint8; ``ValueError`` names a file that is missing, truncated or no image."""
    return np.ascontiguousarray(np.moveaxis(_decode(path, "RGB"), 2, 0))


def read_depth(path: Path) -> NDArray[np.uint16]:
    """A 16-bit depth PNG as (H, W) uint16 in stored units; ``ValueError`` names a file that is not one."""
    return _decode(path, None).astype(np.uint16)


def _decode(path: Path, mode: str | None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if mode is None and not image.mode.startswith("I"):
                raise ValueError(f"{path}: depth must be a 16-bit grey PNG, this one has mode {image.mode}")
            return np.asarray(image if mode is None or image.mode == mode else image.convert(mode))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image") from None
    except (OSError, SyntaxError) as error:  # Pillow reports a damaged PNG as SyntaxError
        raise ValueError(f"{path}: cannot be decoded ({error})") from None


def files_digest(root: Path, paths: Iterable[Path], extra: str = "") -> str:
    """Fingerprint of files: their names below ``root``, sizes and content.

    A file up to 1 MiB counts whole, a larger one by its first and last 512 KiB: images and depth maps are small, so this
    is a full content digest for them, and stays cheap for anything else.
    """
    total = hashlib.sha256(extra.encode())
    for path in paths:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                content = file.read(_WHOLE_FILE if size <= _WHOLE_FILE else _EDGE)
                if size > _WHOLE_FILE:
                    file.seek(-_EDGE, os.SEEK_END)
                    content += file.read()
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        total.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def fixed_subset(count: int, size: int) -> list[int]:
    """``size`` of ``range(count)``, the same ones every time, in ascending order."""
    return sorted(np.random.default_rng(0).permutation(count)[:size].tolist())
