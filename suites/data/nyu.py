"""``nyu-labeled``: NYU Depth v2's labelled images as jpg + 16-bit png in millimetres (Silberman et al., ECCV 2012).

Layout: ``nyu_labeled/{train,test}/NNNNN.{jpg,png}``, NNNNN the index in ``nyu_depth_v2_labeled.mat``. The calibration split is
a fixed choice of 64 images of the training split.
"""

from __future__ import annotations

from pathlib import Path

from depthbench.suites.data.base import CALIBRATION_IMAGES, PairDataset, fixed_subset
from depthbench.suites.data.folder import side_by_side

MILLIMETRES = 1000.0


def open_nyu_labeled(split: str, root: Path, limit: int | None) -> PairDataset:
    """One split of the layout under ``root``; ``ValueError`` names what is missing."""
    folder = root / ("train" if split == "calibration" else split)
    if not folder.is_dir():
        raise ValueError(f"nyu-labeled: no folder {folder} (set DEPTHBENCH_DATA or --data-root)")
    pairs = side_by_side(folder)
    if split == "calibration":
        pairs = [pairs[i] for i in fixed_subset(len(pairs), CALIBRATION_IMAGES)]
    return PairDataset("nyu-labeled", split, root, tuple(pairs[:limit]), MILLIMETRES)
