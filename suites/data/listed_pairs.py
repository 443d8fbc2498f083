"""Data sets whose pairs stand in list files: ``nyu-bts``, ``nyu-densedepth`` and ``kitti-eigen``.

The calibration split is a fixed choice of 64 pairs of the training list.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path, PurePosixPath

from depthbench.suites.data.base import FileDataset, Item, PairReader, pair_items
from depthbench.suites.data.files import MissingSplit, first_there, pair_list

KITTI_UNITS = 256.0
DENSEDEPTH_TRAIN_UNITS = 255 / 10
"""Stored units per metre: 8 bits over 10 m."""


def open_nyu_bts(split: str, root: Path) -> FileDataset:
    """NYU Depth v2 as BTS (Lee et al., arXiv 1907.10326) and its successors keep it.

    Lists ``nyudepthv2_{train,test}_files_with_gt.txt`` of lines ``rgb depth focal``, in ``root`` or its ``train_test_inputs/``;
    names in the training list begin with a ``/`` that means nothing. Images below ``sync/`` (training) and
    ``official_splits/test/``, in ``root`` or its ``nyu_depth_v2/``; depth in 16-bit millimetres. The group is the scene.
    """
    part = "test" if split == "test" else "train"
    path = _list_file("nyu-bts", root, [f"nyudepthv2_{part}_files_with_gt.txt"])
    folder = "official_splits/test" if part == "test" else "sync"
    bases = [root / "nyu_depth_v2" / folder, root / folder, root / "nyu_depth_v2", root]
    base = next((place for place in bases if place.is_dir()), root)
    pairs = [(base / rgb, base / depth) for rgb, depth in pair_list(root, path, leading_slash=True)]
    items = [
        Item(item.label, item.files, group=item.files[0].relative_to(base).parent.as_posix())
        for item in pair_items(root, pairs)
    ]
    dataset = FileDataset("nyu-bts", split, root, items, PairReader(), f"BTS sync tree, {path.name}")
    return dataset.calibration() if split == "calibration" else dataset


def open_nyu_densedepth(split: str, root: Path) -> FileDataset:
    """NYU Depth v2 as DenseDepth (Alhashim and Wonka, arXiv 1812.11941) keeps it.

    ``nyu2_{train,test}.csv`` of lines ``rgb,depth`` in ``root`` or its ``data/``, names beginning with ``data/``. Training
    depth is 8-bit, value · 10 / 255 metres; test depth is 16-bit millimetres.
    """
    part = "test" if split == "test" else "train"
    path = _list_file("nyu-densedepth", root, [f"nyu2_{part}.csv"], ("", "data"))
    inside_data = not (root / "data").is_dir()  # the root is the folder named data itself, or a copy of it

    def place(name: PurePosixPath) -> Path:
        return root / (PurePosixPath(*name.parts[1:]) if inside_data and name.parts[:-1][:1] == ("data",) else name)

    pairs = [(place(rgb), place(depth)) for rgb, depth in pair_list(root, path, separator=",")]
    reader = PairReader() if part == "test" else PairReader(DENSEDEPTH_TRAIN_UNITS, bits=8)
    layout = f"{path.name}, {reader.bits}-bit depth"
    dataset = FileDataset("nyu-densedepth", split, root, pair_items(root, pairs), reader, layout)
    return dataset.calibration() if split == "calibration" else dataset


def open_kitti_eigen(split: str, root: Path) -> FileDataset:
    """KITTI (Geiger et al., CVPR 2012) with the split of Eigen et al. (NeurIPS 2014); depth is uint16 / 256 m, 0 = missing.

    Lists ``eigen_{train,test}_files_with_gt.txt`` (or ``kitti_eigen_...``) of lines ``rgb depth focal``, in ``root`` or its
    ``train_test_inputs/``; a depth ``None`` (45 of the 697 test lines) leaves the line out. Images in the raw data's tree below
    ``root`` or its ``raw/``, with or without the folder of the day, png or jpg; depth below ``data_depth_annotated/``, with or
    without ``train/`` and ``val/``, or below ``root``. Where ``root`` itself holds ``image_02/NAME.png`` and
    ``proj_depth/*/NAME.png``, these are the test split.
    """
    part = "test" if split == "test" else "train"
    if (root / "image_02").is_dir() and (root / "proj_depth").is_dir():
        return _kitti_frames(split, root)
    path = _list_file("kitti-eigen", root, [f"eigen_{part}_files_with_gt.txt", f"kitti_eigen_{part}_files_with_gt.txt"])
    rgb_folder = _folder_finder(_folders(root, "raw", "raw_data", ""))
    halves = (f"{top}{half}" for top in ("data_depth_annotated/", "gts/", "") for half in ("", "val", "train"))
    depth_folder = _folder_finder(_folders(root, *halves))
    pairs = []
    for rgb, depth in pair_list(root, path, leading_slash=True):
        image = rgb_folder(rgb.parent) / rgb.name
        pairs.append((first_there([image, image.with_suffix(".jpg")]), depth_folder(depth.parent) / depth.name))
    layout = f"KITTI raw tree, {path.name}, {len(pairs)} lines with depth"
    dataset = FileDataset("kitti-eigen", split, root, pair_items(root, pairs), PairReader(KITTI_UNITS), layout)
    return dataset.calibration() if split == "calibration" else dataset


def _kitti_frames(split: str, root: Path) -> FileDataset:
    if split != "test":
        raise MissingSplit(f"kitti-eigen: no {split} split below {root} (frames without a split list)")
    images = sorted((root / "image_02").glob("*.png"))
    kinds = sorted(path for path in (root / "proj_depth").iterdir() if path.is_dir())
    pairs = [(image, first_there([kind / image.name for kind in kinds])) for image in images if kinds]
    layout = f"KITTI frames, depth from {kinds[0].name}" if kinds else ""
    return FileDataset("kitti-eigen", split, root, pair_items(root, pairs), PairReader(KITTI_UNITS), layout)


def _folder_finder(bases: list[Path]) -> Callable[[PurePosixPath], Path]:
    """A function that finds a folder of a list below one of ``bases``, with or without the day; it looks for each only once."""

    @cache
    def find(folder: PurePosixPath) -> Path:
        return first_there([base / name for base in bases for name in _with_and_without_day(folder)])

    return find


def _with_and_without_day(name: PurePosixPath) -> list[PurePosixPath]:
    """``2011_09_26_drive_0002_sync/x`` also as ``2011_09_26/2011_09_26_drive_0002_sync/x``, and the other way round."""
    if not name.parts:  # the list names files without a folder
        return [name]
    first, *rest = name.parts
    if "_drive_" in first:
        return [PurePosixPath(first.partition("_drive_")[0], *name.parts), name]
    return [name, PurePosixPath(*rest)] if rest and rest[0].startswith(f"{first}_drive_") else [name]


def _folders(root: Path, *names: str) -> list[Path]:
    """Those of some folders below ``root`` that exist; ``root`` when none does."""
    return [root / name for name in names if (root / name).is_dir()] or [root]


def _list_file(
    dataset: str, root: Path, names: list[str], folders: tuple[str, ...] = ("", "train_test_inputs", "nyu_depth_v2")
) -> Path:
    for folder in folders:
        for name in names:
            if (root / folder / name).is_file():
                return root / folder / name
    raise MissingSplit(f"{dataset}: no {names[0]} below {root} (set DEPTHBENCH_DATA or --data-root)")
