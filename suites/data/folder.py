"""``folder``: your own RGB images with 16-bit depth, in any of the layouts of :mod:`depthbench.suites.data.sequences`.

With a ``test`` sub-folder the splits are the sub-folders ``train``, ``calibration`` and ``test``; without ``calibration`` a
fixed choice of the training images takes its place. 7-Scenes' ``TrainSplit.txt`` and ``TestSplit.txt`` are followed. Else all
pairs are one pool: a fixed eighth of them (at most 64) is the calibration split, the rest is the test split.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

from depthbench.suites.data.base import CALIBRATION_IMAGES, FileDataset, PairReader, pair_items
from depthbench.suites.data.files import MissingSplit, fixed_subset
from depthbench.suites.data.sequences import SEVEN_SCENES, Layout, Pairs, find_layout, seven_scenes_split, unpaired

Part = TypeVar("Part")


def open_folder(split: str, root: Path, depth_scale: float | None = None) -> FileDataset:
    """One split of the pairs below ``root``; ``ValueError`` names what is wrong.

    ``depth_scale``: stored depth units per metre; when left out, 5000 for TUM's layout and 1000 (millimetres) for the others.
    """
    if depth_scale is not None and not 0 < depth_scale < math.inf:
        raise ValueError(
            f"depth scale {depth_scale} must be a number above 0 (stored units per metre, 1000 for millimetres)"
        )
    if not root.is_dir():
        raise MissingSplit(f"folder: no folder {root}")
    layout, pairs = _pairs(root, split)
    scale = float(layout.scale if depth_scale is None else depth_scale)
    reader = PairReader(scale, missing=layout.missing, fit_rgb=layout.fit_rgb)
    dataset = FileDataset("folder", split, root, pair_items(root, pairs), reader, layout.name)
    chosen_by_us = split == "calibration" and _from_training(root)
    return dataset.calibration() if chosen_by_us else dataset


def unpaired_in_folder(split: str, root: Path) -> list[Path]:
    """The image and depth files that have no partner, of a split with a sub-folder of its own or of the whole pool."""
    top = _top(root, split)
    return unpaired(top, *find_layout(root, top))


def _top(root: Path, split: str) -> Path:
    """Where the images of a split lie."""
    if not (root / "test").is_dir():
        return root
    return root / ("train" if split == "calibration" and _from_training(root) else split)


def _from_training(root: Path) -> bool:
    """Whether the calibration split is a choice of the training images."""
    if (root / "test").is_dir():
        return not (root / "calibration").is_dir()
    return any(root.rglob("TestSplit.txt"))


def _pairs(root: Path, split: str) -> tuple[Layout, Pairs]:
    if (root / "test").is_dir():
        folder = _top(root, split)
        if not folder.is_dir():
            raise MissingSplit(f"folder: no folder {folder}")
        return find_layout(root, folder)
    if (pairs := seven_scenes_split(root, split)) is not None:
        return SEVEN_SCENES, pairs
    if split == "train":
        raise MissingSplit(f"folder: no training split below {root} (no sub-folders train and test)")
    layout, pairs = find_layout(root, root)
    return layout, pool_part(pairs, split)


def pool_part(pool: list[Part], split: str) -> list[Part]:
    """The ``calibration`` part of a pool without splits, a fixed eighth of at most 64, or the rest of it."""
    calibration = set(fixed_subset(len(pool), min(CALIBRATION_IMAGES, len(pool) // 8)))
    return [item for i, item in enumerate(pool) if (i in calibration) == (split == "calibration")]
