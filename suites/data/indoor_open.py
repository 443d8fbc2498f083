"""``indoor-open``: a few images of each of several cameras, for testing outside the domain of training.

``<camera>/NAME.jpg`` with 16-bit ``NAME.png`` in millimetres, 0 = missing. The group of an image is its camera. Every image
is a test image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from depthbench.suites.data.base import FileDataset, PairReader, pair_items
from depthbench.suites.data.files import MissingSplit
from depthbench.suites.data.sequences import side_by_side


def open_indoor_open(split: str, root: Path) -> FileDataset:
    """The test split below ``root``; ``ValueError`` names what is missing."""
    if split != "test":
        raise MissingSplit(f"indoor-open: no {split} split, all of it is for testing")
    if not root.is_dir():
        raise MissingSplit(f"indoor-open: no folder {root} (set DEPTHBENCH_DATA or --data-root)")
    items = [replace(item, group=item.label.rpartition("/")[0]) for item in pair_items(root, side_by_side(root))]
    cameras = len({item.group for item in items})
    return FileDataset("indoor-open", split, root, items, PairReader(), f"jpg + 16-bit png of {cameras} cameras")
