"""Data sets: one table, one function that opens a split.

Every data set yields :class:`Sample`: ``rgb`` (3, H, W) float32 in [0, 1] and ``depth`` (1, H, W) float32 in metres, 0 where
there is no ground truth. Importing this package loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from depthbench.suites.data.base import DepthDataset, Sample, Split
from depthbench.suites.data.folder import open_folder
from depthbench.suites.data.nyu import open_nyu_labeled
from depthbench.suites.data.rooms_dataset import SIZES, RoomsDataset
from depthbench.suites.names import lookup, unknown

__all__ = [
    "DATASETS",
    "SPLITS",
    "DatasetInfo",
    "DepthDataset",
    "Sample",
    "Split",
    "dataset_info",
    "find_root",
    "open_dataset",
]

SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set is: its default protocol, and the folder below ``$DEPTHBENCH_DATA`` where it is looked for."""

    name: str
    summary: str
    protocol: str
    folder: str | None = None
    source: str = ""


DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            DatasetInfo("rooms", "procedural furnished rooms, rendered here, exact depth, 240x320", "native"),
            DatasetInfo(
                "nyu-labeled",
                "NYU Depth v2, labelled images: 654 test at 480x640, 795 training",
                "nyu-eigen",
                "nyu_labeled",
                "Silberman, Hoiem, Kohli, Fergus: Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012",
            ),
            DatasetInfo("folder", "your own images with 16-bit depth PNGs beside them (--data-root)", "native"),
        )
    }
)


def open_dataset(
    name: str, split: str, *, root: Path | None = None, limit: int | None = None, depth_scale: float = 1000.0
) -> DepthDataset:
    """One split of a data set.

    ``root``: the data set's folder, in place of ``$DEPTHBENCH_DATA/<folder>``. ``limit``: only the first so many images (for
    ``rooms``, any number of images). ``depth_scale``: stored depth units per metre, for ``folder``. Raises ``ValueError`` for
    an unknown name or split and for missing files; image files are decoded when a sample is asked for.
    """
    dataset_info(name)
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} must be at least 1")
    if name == "rooms":
        return RoomsDataset(split, SIZES[split] if limit is None else limit)
    root = root or find_root(name)
    if name == "nyu-labeled":
        return open_nyu_labeled(split, root, limit)
    return open_folder(split, root, limit, depth_scale)


def dataset_info(name: str) -> DatasetInfo:
    """The entry of ``DATASETS``; ``ValueError`` lists the choices and the nearest one."""
    return lookup("data set", name, DATASETS)


def find_root(name: str) -> Path:
    """The folder of a data set below ``$DEPTHBENCH_DATA``; ``ValueError`` says why there is none."""
    info = dataset_info(name)
    if info.folder is None:
        raise ValueError(f"{info.name}: say where the images are (--data-root)")
    base = os.environ.get("DEPTHBENCH_DATA")
    if not base:
        raise ValueError(
            f"{info.name}: set DEPTHBENCH_DATA to the folder that holds {info.folder}, or give --data-root"
        )
    return Path(base) / info.folder
