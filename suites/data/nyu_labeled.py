"""``nyu-labeled``: the 1,449 labelled images of NYU Depth v2 (Silberman et al., ECCV 2012), in either layout people have.

The original ``nyu_depth_v2_labeled.mat`` with ``splits.mat`` beside it; or ``{train,test}/NNNNN.jpg`` with 16-bit ``NNNNN.png``
in millimetres. Where both are, the original counts. The calibration split is a fixed choice of 64 training images.

The .mat file is MATLAB 7.3, which is HDF5 with every array's axes reversed: ``images`` (N, 3, W, H) uint8, ``depths`` (N, W, H)
float32 metres. ``splits.mat`` is MATLAB 5: ``trainNdxs`` and ``testNdxs``, counted from 1. A file of fewer images than the
original, without ``splits.mat``, is one pool: a fixed eighth calibrates, the rest is the test split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data.base import FileDataset, Item, PairReader, pair_items
from depthbench.suites.data.files import MissingSplit, check_inside
from depthbench.suites.data.folder import pool_part
from depthbench.suites.data.hdf5 import hdf5_array, open_hdf5
from depthbench.suites.data.sequences import side_by_side

ORIGINAL = "nyu_depth_v2_labeled.mat"
ORIGINAL_IMAGES = 1449
_SPLITS = "splits.mat"


def open_nyu_labeled(split: str, root: Path) -> FileDataset:
    """One split of either layout below ``root``, or of a .mat file that ``root`` is; ``ValueError`` names what is missing."""
    if root.suffix.lower() == ".mat":
        return _open_mat(split, root.parent, root)
    if (root / ORIGINAL).is_file():
        return _open_mat(split, root, root / ORIGINAL)
    folder = root / ("train" if split == "calibration" else split)
    if not folder.is_dir():
        others = sorted(p for p in root.glob("*.mat") if p.name != _SPLITS)
        if len(others) == 1:
            return _open_mat(split, root, others[0])
        raise MissingSplit(f"nyu-labeled: no folder {folder} (set DEPTHBENCH_DATA or --data-root)")
    items = pair_items(root, side_by_side(folder))
    dataset = FileDataset("nyu-labeled", split, root, items, PairReader(), "jpg + 16-bit png in millimetres")
    return dataset.calibration() if split == "calibration" else dataset


def _open_mat(split: str, root: Path, path: Path) -> FileDataset:
    check_inside(root, [path])
    with open_hdf5(path) as file:
        count = len(_arrays(file, path)[1])
    wanted = "train" if split == "calibration" else split
    if (root / _SPLITS).is_file():
        indices, layout = _official(root / _SPLITS, wanted, count), f"{path.name} with {_SPLITS}"
    elif count >= ORIGINAL_IMAGES:
        raise ValueError(f"{root / _SPLITS}: no such file; it holds the official split of {path.name}")
    else:
        indices, layout = _pool(path, split, count), f"{path.name}, {count} images without {_SPLITS}"
    items = [Item(f"{index:05d}", (path,), index) for index in indices]
    dataset = FileDataset("nyu-labeled", split, root, items, MatReader(), layout)
    return dataset.calibration() if split == "calibration" and (root / _SPLITS).is_file() else dataset


def _official(path: Path, split: str, count: int) -> list[int]:
    """The indices, from 0, of a split in ``splits.mat``."""
    from scipy.io import loadmat

    check_inside(path.parent, [path])
    key = f"{split}Ndxs"
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise ValueError(f"{path}: not a MATLAB 5 file ({' '.join(str(error).split())})") from None
    if key not in content:
        found = ", ".join(sorted(name for name in content if not name.startswith("__")))
        raise ValueError(f"{path}: no variable {key} in it (it has: {found})")
    indices = [int(value) - 1 for value in np.ravel(content[key])]
    if wrong := [index + 1 for index in indices if not 0 <= index < count]:
        raise ValueError(f"{path}: {key} names image {wrong[0]}, there are {count}")
    return indices


def _pool(path: Path, split: str, count: int) -> list[int]:
    if split == "train":
        raise MissingSplit(f"nyu-labeled: no training split: no {_SPLITS} beside {path}")
    return pool_part(list(range(count)), split)


def _arrays(file: Any, path: Path) -> tuple[Any, Any]:
    """The images and depths of an open .mat file; ``ValueError`` when they are not what they are in the original."""
    images, depths = (hdf5_array(file, key, path) for key in ("images", "depths"))
    if images.ndim != 4 or images.shape[1] != 3 or depths.ndim != 3 or len(images) != len(depths):
        shapes = f"{images.shape} and {depths.shape}"
        raise ValueError(f"{path}: images and depths must be (N, 3, W, H) and (N, W, H), not {shapes}")
    if images.dtype != np.uint8 or depths.dtype.kind != "f":
        kinds = f"{images.dtype} and {depths.dtype}"
        raise ValueError(f"{path}: images and depths must be uint8 and float metres, not {kinds}")
    return images, depths


@dataclass(frozen=True)
class MatReader:
    """An image of the .mat file, its axes put right."""

    key: str = "mat"

    def __call__(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """rgb (3, H, W) uint8, depth (H, W) metres."""
        with open_hdf5(item.files[0]) as file:
            images, depths = _arrays(file, item.files[0])
            rgb = np.asarray(images[item.index]).swapaxes(1, 2)  # (3, H, W)
            depth = np.asarray(depths[item.index], np.float32).T  # (H, W)
        return np.ascontiguousarray(rgb), np.ascontiguousarray(depth)
