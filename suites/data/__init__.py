"""Data sets: one table, one function that opens a split.

Every data set yields :class:`Sample`: ``rgb`` (3, H, W) float32 in [0, 1] and ``depth`` (1, H, W) float32 in metres, 0 where
there is no ground truth. Importing this package loads no torch.
"""

from __future__ import annotations

from pathlib import Path

from depthbench.suites.data.access import USUAL, Access
from depthbench.suites.data.base import DepthDataset, FileDataset, Sample, Split
from depthbench.suites.data.files import MissingSplit
from depthbench.suites.data.folder import open_folder
from depthbench.suites.data.loading import Progress, samples, without_broken
from depthbench.suites.data.rooms_dataset import SIZES, RoomsDataset
from depthbench.suites.data.table import DATASETS, DatasetInfo, dataset_info, find_root
from depthbench.suites.names import unknown

__all__ = [
    "DATASETS",
    "SPLITS",
    "USUAL",
    "Access",
    "DatasetInfo",
    "DepthDataset",
    "Sample",
    "Split",
    "dataset_info",
    "find_root",
    "open_dataset",
    "open_files",
    "samples",
]

SPLITS = ("train", "calibration", "test")


def open_dataset(
    name: str,
    split: str,
    *,
    root: Path | None = None,
    limit: int | None = None,
    skip_broken: int = 0,
    depth_scale: float | None = None,
    progress: Progress | None = None,
) -> DepthDataset:
    """One split of a data set.

    ``root``: the data set's folder, in place of ``$DEPTHBENCH_DATA/<folder>``. ``limit``: only the first so many images (for
    ``rooms``, any number of images). ``skip_broken``: leave out up to so many images that cannot be read, named in the
    data set's ``skipped``; to find them all are read now, with ``progress``, unless that was done before. ``depth_scale``:
    stored depth units per metre, for ``folder``. A data set for testing only is calibrated on ``rooms``.

    Raises ``ValueError`` for an unknown name or split, for missing files and for a file that leads outside the root; image
    files are decoded when a sample is asked for, which raises ``ValueError`` for a broken one.
    """
    info = dataset_info(name)
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} must be at least 1")
    if skip_broken < 0:
        raise ValueError(f"skip_broken {skip_broken} must be at least 0")
    _check_scale(info, depth_scale)
    if name == "rooms" or (split == "calibration" and info.test_only):
        return RoomsDataset(split, SIZES[split] if limit is None else limit)
    dataset = open_files(name, split, root=root, limit=limit, depth_scale=depth_scale)
    dataset.check(existence=not skip_broken)
    return without_broken(dataset, skip_broken, progress=progress) if skip_broken else dataset


def open_files(
    name: str, split: str, *, root: Path | None = None, limit: int | None = None, depth_scale: float | None = None
) -> FileDataset:
    """As :func:`open_dataset` for a data set of files, without looking whether each file is there."""
    info = dataset_info(name)
    if info.load is None:
        raise ValueError(f"{name}: rendered here, it has no files")
    _check_scale(info, depth_scale)
    place = root or find_root(name)
    dataset = open_folder(split, place, depth_scale) if info.load is open_folder else info.load(split, place)
    if not dataset.items:
        raise MissingSplit(f"{name}: no {split} images below {place}")
    return dataset.first(limit)


def _check_scale(info: DatasetInfo, depth_scale: float | None) -> None:
    if depth_scale is not None and info.load is not open_folder:
        raise ValueError(f"{info.name}: its layout fixes the depth scale; it can be given for folder only")
