"""``nyu-fastdepth``: NYU Depth v2 as FastDepth (Wofk et al., ICRA 2019) keeps it.

``{train,val}/<scene>/*.h5``, each with ``rgb`` (3, H, W) uint8 and ``depth`` (H, W) float32 in metres, 0 = missing; below the
root or below ``nyudepthv2/`` in it. ``val`` (scene ``official``: the 654 test images) is the test split; the calibration split
is a fixed choice of 64 training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data.base import FileDataset, Item
from depthbench.suites.data.files import MissingSplit, first_there
from depthbench.suites.data.hdf5 import hdf5_array, open_hdf5


def open_nyu_fastdepth(split: str, root: Path) -> FileDataset:
    """One split of the layout below ``root``; ``ValueError`` names what is missing."""
    part = "val" if split == "test" else "train"
    folder = first_there([root / "nyudepthv2" / part, root / part])
    if not folder.is_dir():
        raise MissingSplit(f"nyu-fastdepth: no folder {part} below {root} (set DEPTHBENCH_DATA or --data-root)")
    paths = sorted(folder.glob("*/*.h5"))
    items = [Item(path.relative_to(root).with_suffix("").as_posix(), (path,)) for path in paths]
    dataset = FileDataset("nyu-fastdepth", split, root, items, H5Reader(), f"h5 files in {folder.relative_to(root)}")
    return dataset.calibration() if split == "calibration" else dataset


@dataclass(frozen=True)
class H5Reader:
    """One h5 file."""

    key: str = "h5"

    def __call__(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """rgb (3, H, W) uint8, depth (H, W) metres."""
        path = item.files[0]
        with open_hdf5(path) as file:
            rgb, depth = (hdf5_array(file, key, path) for key in ("rgb", "depth"))
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[0] != 3:
                raise ValueError(f"{path}: rgb must be (3, H, W) uint8, it is {rgb.shape} {rgb.dtype}")
            if depth.ndim != 2 or depth.dtype.kind != "f":
                raise ValueError(f"{path}: depth must be (H, W) in float metres, it is {depth.shape} {depth.dtype}")
            return np.asarray(rgb[()]), np.asarray(depth[()], np.float32)
