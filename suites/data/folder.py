"""``folder``: any RGB images with 16-bit depth images beside them.

Two layouts: sub-folders ``rgb/`` and ``depth/`` with equal file stems, or ``name.jpg`` next to ``name.png``, at any depth
below the root. With a ``test`` sub-folder the splits are the sub-folders ``train``, ``calibration`` and ``test``; without
``calibration`` a fixed choice of the training images takes its place. Without a ``test`` sub-folder all pairs are one pool: a
fixed eighth of them (at most 64) is the calibration split, the rest is the test split.
"""

from __future__ import annotations

from pathlib import Path

from depthbench.suites.data.base import CALIBRATION_IMAGES, PairDataset, fixed_subset

RGB_ENDINGS = (".jpg", ".jpeg", ".png")
Pairs = list[tuple[Path, Path]]


def open_folder(split: str, root: Path, limit: int | None, depth_scale: float) -> PairDataset:
    """One split of the pairs below ``root``; ``depth_scale``: stored units per metre. ``ValueError`` names what is wrong."""
    if not depth_scale > 0:
        raise ValueError(f"depth scale {depth_scale} must be above 0 (stored units per metre, 1000 for millimetres)")
    if not root.is_dir():
        raise ValueError(f"folder: no folder {root}")
    pairs = _split_pairs(root, split) if (root / "test").is_dir() else _pool_pairs(root, split)
    if not pairs:
        raise ValueError(f"folder: no {split} images below {root}")
    return PairDataset("folder", split, root, tuple(pairs[:limit]), depth_scale)


def _split_pairs(root: Path, split: str) -> Pairs:
    if split == "calibration" and not (root / split).is_dir():
        pairs = find_pairs(root / "train")
        return [pairs[i] for i in fixed_subset(len(pairs), CALIBRATION_IMAGES)]
    return find_pairs(root / split)


def _pool_pairs(root: Path, split: str) -> Pairs:
    if split == "train":
        raise ValueError(f"folder: no training split below {root} (no sub-folders train and test)")
    pairs = find_pairs(root)
    calibration = set(fixed_subset(len(pairs), min(CALIBRATION_IMAGES, len(pairs) // 8)))
    return [pair for i, pair in enumerate(pairs) if (i in calibration) == (split == "calibration")]


def find_pairs(root: Path) -> Pairs:
    """All (rgb, depth) files below ``root`` in either layout, sorted."""
    if not root.is_dir():
        raise ValueError(f"folder: no folder {root}")
    return rgb_and_depth(root) if (root / "rgb").is_dir() else side_by_side(root)


def rgb_and_depth(root: Path) -> Pairs:
    """Pairs ``rgb/name.{jpg,jpeg,png}`` and ``depth/name.png``."""
    images = sorted(p for p in (root / "rgb").rglob("*") if p.suffix.lower() in RGB_ENDINGS)
    depths = [root / "depth" / p.relative_to(root / "rgb").with_suffix(".png") for p in images]
    return _checked(list(zip(images, depths, strict=True)))


def side_by_side(root: Path) -> Pairs:
    """Pairs ``name.jpg`` (or ``.jpeg``) and ``name.png`` in the same folder, at any depth below ``root``."""
    images = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return _checked([(p, p.with_suffix(".png")) for p in images])


def _checked(pairs: Pairs) -> Pairs:
    for image, depth in pairs:
        if not depth.is_file():
            raise ValueError(f"{depth}: no such file (the depth of {image.name})")
    return pairs
