"""NYU Depth v2's labelled .mat file: axes put right, the official split, and its absence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from depthbench.suites.data import open_dataset

MAT = "nyu_depth_v2_labeled.mat"


@pytest.fixture
def root(tmp_path: Path, write_mat: Callable[..., np.ndarray]) -> Path:
    write_mat(tmp_path / MAT, 90)
    return tmp_path


def test_axes_are_put_right(root: Path, write_mat: Callable[..., np.ndarray]) -> None:
    depth = write_mat(root / MAT, 90)
    dataset = open_dataset("nyu-labeled", "test", root=root)
    sample = dataset[2]
    assert (sample.rgb.shape, sample.depth.shape) == ((3, 24, 32), (1, 24, 32))
    assert np.array_equal(sample.depth[0], depth[62])
    picture = np.random.default_rng(62).integers(0, 256, (24, 32, 3), np.uint8)
    assert np.array_equal((sample.rgb * 255).round(), np.moveaxis(picture, 2, 0))
    assert dataset.label(2) == "00062"


def test_official_split(root: Path) -> None:
    labels = {}
    for split in ("train", "calibration", "test"):
        dataset = open_dataset("nyu-labeled", split, root=root)
        labels[split] = [dataset.label(i) for i in range(len(dataset))]
    assert labels["train"] == [f"{i:05d}" for i in range(60)]
    assert labels["test"] == [f"{i:05d}" for i in range(60, 90)]
    assert len(labels["calibration"]) == 60
    assert set(labels["calibration"]) <= set(labels["train"])
    digests = {open_dataset("nyu-labeled", split, root=root).digest for split in labels}
    assert len(digests) == 2  # with 60 training images the calibration split is all of them
    assert open_dataset("nyu-labeled", "train", root=root, limit=5).digest not in digests


def test_the_mat_file_is_a_root_too_and_counts_before_folders(root: Path, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    by_folder = open_dataset("nyu-labeled", "test", root=root)
    by_file = open_dataset("nyu-labeled", "test", root=root / MAT)
    assert by_folder.digest == by_file.digest
    assert len(by_folder) == 30


def test_a_part_without_splits_is_a_pool(tmp_path: Path, write_mat: Callable[..., np.ndarray]) -> None:
    write_mat(tmp_path / "mini.mat", 16, splits=False)
    parts = {split: open_dataset("nyu-labeled", split, root=tmp_path) for split in ("calibration", "test")}
    labels = {split: {part.label(i) for i in range(len(part))} for split, part in parts.items()}
    assert {split: len(names) for split, names in labels.items()} == {"calibration": 2, "test": 14}
    assert not labels["calibration"] & labels["test"]
    with pytest.raises(
        ValueError, match=rf"^nyu-labeled: no training split: no splits.mat beside {tmp_path}/mini.mat$"
    ):
        open_dataset("nyu-labeled", "train", root=tmp_path)


def test_the_whole_set_needs_its_splits(tmp_path: Path) -> None:
    with h5py.File(tmp_path / MAT, "w") as file:
        file.create_dataset("depths", (1449, 32, 24), np.float32)
        file.create_dataset("images", (1449, 3, 32, 24), np.uint8)
    with pytest.raises(
        ValueError, match=rf"^{tmp_path}/splits.mat: no such file; it holds the official split of {MAT}$"
    ):
        open_dataset("nyu-labeled", "test", root=tmp_path)


def test_bad_splits(root: Path) -> None:
    savemat(root / "splits.mat", {"trainNdxs": [[1], [2]]})
    with pytest.raises(ValueError, match=rf"^{root}/splits.mat: no variable testNdxs in it \(it has: trainNdxs\)$"):
        open_dataset("nyu-labeled", "test", root=root)
    savemat(root / "splits.mat", {"testNdxs": [[1], [91]]})
    with pytest.raises(ValueError, match=rf"^{root}/splits.mat: testNdxs names image 91, there are 90$"):
        open_dataset("nyu-labeled", "test", root=root)
    (root / "splits.mat").write_bytes(b"not MATLAB")
    with pytest.raises(ValueError, match=rf"^{root}/splits.mat: not a MATLAB 5 file \([^\n]*\)$"):
        open_dataset("nyu-labeled", "test", root=root)


def test_bad_mat_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / MAT, "w") as file:
        file["depth"] = np.ones((2, 4, 3), np.float32)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/{MAT}: no array 'images' in it \(it has: depth\)$"):
        open_dataset("nyu-labeled", "test", root=tmp_path)
    with h5py.File(tmp_path / MAT, "w") as file:
        file["depths"] = np.ones((2, 4, 3), np.float32)
        file["images"] = np.ones((2, 4, 3, 3), np.uint8)
    with pytest.raises(ValueError, match=r": images and depths must be \(N, 3, W, H\) and \(N, W, H\), not "):
        open_dataset("nyu-labeled", "test", root=tmp_path)
    for depths, images, fault in (
        (np.float32(1), np.ones((2, 3, 4, 3), np.uint8), r"\(N, 3, W, H\) and \(N, W, H\), not "),
        (
            np.ones((2, 4, 3), np.uint16),
            np.ones((2, 3, 4, 3), np.uint8),
            "uint8 and float metres, not uint8 and uint16$",
        ),
        (np.ones((2, 4, 3)), np.ones((2, 3, 4, 3)), "uint8 and float metres, not float64 and float64$"),
    ):
        with h5py.File(tmp_path / MAT, "w") as file:
            file["depths"], file["images"] = depths, images
        with pytest.raises(ValueError, match=rf"^{tmp_path}/{MAT}: images and depths must be [^\n]*{fault}"):
            open_dataset("nyu-labeled", "test", root=tmp_path)
    (tmp_path / MAT).write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/{MAT}: not a readable HDF5 file \([^\n]*\)$"):
        open_dataset("nyu-labeled", "test", root=tmp_path)


def test_image_without_depth_is_named(root: Path) -> None:
    with h5py.File(root / MAT, "r+") as file:
        file["depths"][61] = 0
        file["depths"][62, 3, 4] = np.nan
    dataset = open_dataset("nyu-labeled", "test", root=root)
    with pytest.raises(ValueError, match=rf"^{root}/{MAT}: image 61: depth is 0 at every pixel$"):
        dataset[1]
    with pytest.raises(ValueError, match=rf"{MAT}: image 62: depth is NaN, infinite or negative at 1 of 768 pixels$"):
        dataset[2]


def test_real_file_agrees_with_the_folders(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    """Eight images of the original file, which are also in the jpg + png folders."""
    original, images = real_data("formats/nyu_depth_v2_labeled_mini.mat"), real_data("nyu_labeled/test").parent
    shutil.copy(original, tmp_path)
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[4], [5], [6], [7], [8]], "testNdxs": [[1], [2], [3]]})
    dataset = open_dataset("nyu-labeled", "test", root=tmp_path)
    assert len(dataset) == 3
    folder = open_dataset("nyu-labeled", "test", root=images)
    places = {folder.label(i): i for i in range(len(folder))}
    for i, number in enumerate(("00776", "00039", "00687")):
        ours, theirs = dataset[i], folder[places[f"test/{number}"]]
        assert ours.rgb.shape == (3, 480, 640)
        assert np.abs(ours.rgb - theirs.rgb).mean() < 0.02  # one of them is a jpg
        assert np.abs(ours.depth - theirs.depth).max() < 0.05  # 8-bit copies
