"""Small trees in the layouts that people have on disk, written by the tests that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

SIZE = (24, 32)
"""Height and width of every image here."""

WriteImage = Callable[..., np.ndarray]


def _rgb(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def _depth(seed: int, size: tuple[int, int], bits: int = 16) -> np.ndarray:
    low, high, kind = (500, 9000, np.uint16) if bits == 16 else (10, 256, np.uint8)
    return np.random.default_rng(1000 + seed).integers(low, high, size).astype(kind)


@pytest.fixture(scope="session")
def write_rgb() -> WriteImage:
    """Writes a picture, any folder made; returns its (H, W, 3) uint8 values."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = _rgb(seed, size)
        Image.fromarray(values).save(path)
        return values

    return write


@pytest.fixture(scope="session")
def write_depth() -> WriteImage:
    """Writes a depth PNG, any folder made; returns its (H, W) stored values."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, bits: int = 16) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = _depth(seed, size, bits)
        Image.fromarray(values).save(path)
        return values

    return write


@pytest.fixture(scope="session")
def write_h5() -> WriteImage:
    """Writes one file of FastDepth's; returns its (H, W) depth in metres."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        metres = _depth(seed, size).astype(np.float32) / 1000
        metres[0, :4] = 0  # missing
        with h5py.File(path, "w") as file:
            file["rgb"] = np.moveaxis(_rgb(seed, size), 2, 0)
            file["depth"] = metres
        return metres

    return write


@pytest.fixture(scope="session")
def write_mat() -> WriteImage:
    """Writes a labelled .mat file and its splits: the last third is the test split; returns depths (N, H, W)."""

    def write(path: Path, count: int, *, splits: bool = True) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        rgb = np.stack([np.moveaxis(_rgb(i, SIZE), 2, 0) for i in range(count)])  # (N, 3, H, W)
        depth = np.stack([_depth(i, SIZE).astype(np.float32) / 1000 for i in range(count)])  # (N, H, W)
        with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB keeps a header of its own in front
            file["images"] = rgb.swapaxes(2, 3)  # (N, 3, W, H)
            file["depths"] = depth.swapaxes(1, 2)  # (N, W, H)
            file["rawDepths"] = depth.swapaxes(1, 2)  # (N, W, H)
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(512, b"\0"))
        if splits:
            numbers = np.arange(1, count + 1, dtype=np.uint16)[:, None]  # (N, 1), counted from 1
            first = count - count // 3
            savemat(path.parent / "splits.mat", {"trainNdxs": numbers[:first], "testNdxs": numbers[first:]})
        return depth

    return write
