"""The layouts of ``folder``: where the depth of an image lies, in what units, for TUM, 7-Scenes, ScanNet and plain folders."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from depthbench.suites.data.base import MILLIMETRES
from depthbench.suites.data.files import MissingSplit, listed, read_lines

RGB_ENDINGS = (".jpg", ".jpeg", ".png")
Pairs = list[tuple[Path, Path]]

TUM_SECONDS = 0.02
"""An image and a depth map of a TUM sequence belong together when taken at most this far apart, as in its associate.py."""


@dataclass(frozen=True)
class Layout:
    """``scale``: the layout's own stored units per metre. ``missing``, ``fit_rgb``: see ``PairReader``."""

    name: str
    scale: float = MILLIMETRES
    missing: int | None = None
    fit_rgb: bool = False


TUM = Layout("TUM: rgb.txt and depth.txt", 5000.0)
SCANNET = Layout("ScanNet: color/ and depth/", fit_rgb=True)
RGB_DEPTH = Layout("rgb/ and depth/")
SEVEN_SCENES = Layout("7-Scenes: NAME.color.png and NAME.depth.png", missing=65535)
SIDE_BY_SIDE = Layout("NAME.jpg and NAME.png")


def find_layout(root: Path, top: Path) -> tuple[Layout, Pairs]:
    """The layout of the images below ``top``, a folder below ``root`` or ``root``, and its (rgb, depth) files, sorted.

    A folder that holds several layouts is refused; images that fit none are ``NAME.jpg`` with ``NAME.png``.
    """
    found: dict[Layout, Pairs] = {}
    for place, folders, files in os.walk(top):
        folder = Path(place)
        if {"rgb.txt", "depth.txt"} <= set(files):
            found.setdefault(TUM, []).extend(_tum(root, folder))
            folders.clear()
        elif {"color", "depth"} <= set(folders):
            found.setdefault(SCANNET, []).extend(_two_folders(folder, "color"))
            folders.clear()
        elif {"rgb", "depth"} <= set(folders):
            found.setdefault(RGB_DEPTH, []).extend(_two_folders(folder, "rgb"))
            folders.clear()
        elif colours := [name for name in files if Path(name).with_suffix("").suffix == ".color"]:
            pairs = [(folder / name, folder / f"{name.partition('.color.')[0]}.depth.png") for name in colours]
            found.setdefault(SEVEN_SCENES, []).extend(pairs)
    if len(found) > 1:
        raise ValueError(f"folder: several layouts below {top} ({'; '.join(sorted(layout.name for layout in found))})")
    for layout, pairs in found.items():
        return layout, sorted(pairs)
    return SIDE_BY_SIDE, side_by_side(top)


def unpaired(top: Path, layout: Layout, pairs: Pairs) -> list[Path]:
    """The image and depth files below ``top`` that are in no pair, sorted; what the layout does not speak of does not count."""
    found = (path for path in top.rglob("*") if path.suffix.lower() in RGB_ENDINGS and _speaks_of(layout, path, top))
    return sorted(set(found) - {path for pair in pairs for path in pair})


def _speaks_of(layout: Layout, path: Path, top: Path) -> bool:
    if layout is SEVEN_SCENES:
        return path.with_suffix("").suffix in (".color", ".depth")
    return layout is SIDE_BY_SIDE or not {"rgb", "color", "depth"}.isdisjoint(path.relative_to(top).parts[:-1])


def side_by_side(root: Path) -> Pairs:
    """Pairs ``name.jpg`` (or ``.jpeg``) and ``name.png`` in the same folder, at any depth below ``root``."""
    images = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return [(p, p.with_suffix(".png")) for p in images]


def unpaired_side_by_side(split: str, root: Path) -> list[Path]:
    """Files below ``root``, of all splits alike, that no pair of :func:`side_by_side` has."""
    del split
    return unpaired(root, SIDE_BY_SIDE, side_by_side(root))


def seven_scenes_split(root: Path, split: str) -> Pairs | None:
    """The pairs of the sequences that ``{Train,Test}Split.txt`` of the scenes below ``root`` name; None without such files."""
    name = "TestSplit.txt" if split == "test" else "TrainSplit.txt"
    lists = sorted(root.rglob("TestSplit.txt"))
    if not lists:
        return None
    pairs: Pairs = []
    for scene in (path.parent for path in lists):
        if not (scene / name).is_file():
            raise MissingSplit(f"{scene / name}: no such file")
        for source, line in read_lines(root, scene / name):
            number = line.removeprefix("sequence")
            if not number.isdecimal():
                raise ValueError(f"{source}: expected a line like sequence3, found {line[:80]!r}")
            sequence = scene / f"seq-{int(number):02d}"
            if not sequence.is_dir():
                raise ValueError(f"{sequence}: no such folder ({source} names it)")
            pairs += find_layout(root, sequence)[1]
    return pairs


def _two_folders(folder: Path, colour: str) -> Pairs:
    """Pairs ``<colour>/name.{jpg,jpeg,png}`` and ``depth/name.png``."""
    images = [p for p in (folder / colour).rglob("*") if p.suffix.lower() in RGB_ENDINGS]
    return [(p, folder / "depth" / p.relative_to(folder / colour).with_suffix(".png")) for p in images]


def _tum(root: Path, folder: Path) -> Pairs:
    """Each depth map of a sequence with the image nearest in time, every file used once, as TUM's associate.py pairs them."""
    images, depths = (_tum_list(root, folder / name) for name in ("rgb.txt", "depth.txt"))
    near = sorted((abs(a - b), a, b) for a, b in _close_times(sorted(images), sorted(depths)))
    pairs: Pairs = []
    for _, a, b in near:
        if a in images and b in depths:
            pairs.append((images.pop(a), depths.pop(b)))
    return pairs


def _close_times(first: list[float], second: list[float]) -> list[tuple[float, float]]:
    """All pairs of two ascending lists that are less than ``TUM_SECONDS`` apart."""
    pairs, start = [], 0
    for a in first:
        while start < len(second) and second[start] <= a - TUM_SECONDS:
            start += 1
        for b in second[start:]:
            if b >= a + TUM_SECONDS:
                break
            pairs.append((a, b))
    return pairs


def _tum_list(root: Path, path: Path) -> dict[float, Path]:
    files = {}
    for source, line in read_lines(root, path):
        time, _, name = line.replace(",", " ").replace("\t", " ").partition(" ")
        if not re.fullmatch(r"\d+(\.\d+)?", time):
            raise ValueError(f"{source}: expected a time and a file name, found {line[:80]!r}")
        files[float(time)] = path.parent / listed(root, name.strip(), source)
    return files
