"""FastDepth's h5 tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from depthbench.suites.data import SPLITS, open_dataset


@pytest.fixture
def root(tmp_path: Path, write_h5: Callable[..., np.ndarray]) -> Path:
    for scene in ("bedroom_0001", "kitchen_0002"):
        for i in (1, 6, 11):
            write_h5(tmp_path / "train" / scene / f"{i:05d}.h5", i)
    for i in (40, 688):
        write_h5(tmp_path / "val" / "official" / f"{i:05d}.h5", i)
    return tmp_path


def test_samples_and_splits(root: Path, write_h5: Callable[..., np.ndarray]) -> None:
    metres = write_h5(root / "val" / "official" / "00688.h5", 688)
    assert [len(open_dataset("nyu-fastdepth", split, root=root)) for split in SPLITS] == [6, 6, 2]
    dataset = open_dataset("nyu-fastdepth", "test", root=root)
    assert [dataset.label(i) for i in range(2)] == ["val/official/00040", "val/official/00688"]
    sample = dataset[1]
    assert (sample.rgb.dtype, sample.rgb.shape, sample.depth.dtype) == (np.float32, (3, 24, 32), np.float32)
    assert np.array_equal(sample.depth[0], metres)
    assert (sample.depth[0, 0, :4] == 0).all()
    calibration = open_dataset("nyu-fastdepth", "calibration", root=root)
    assert all(calibration.label(i).startswith("train/") for i in range(len(calibration)))


def test_the_folder_above_is_a_root_too(root: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    for part in ("train", "val"):
        (above / "nyudepthv2" / part).parent.mkdir(exist_ok=True)
        (root / part).rename(above / "nyudepthv2" / part)
    assert open_dataset("nyu-fastdepth", "test", root=above).label(0) == "nyudepthv2/val/official/00040"


def test_only_the_test_images(root: Path, tmp_path: Path) -> None:
    (root / "train").rename(root / "elsewhere")
    with pytest.raises(ValueError, match=rf"^nyu-fastdepth: no folder train below {tmp_path} "):
        open_dataset("nyu-fastdepth", "calibration", root=root)
    assert len(open_dataset("nyu-fastdepth", "test", root=root)) == 2


def test_wrong_contents(root: Path) -> None:
    path = root / "val" / "official" / "00040.h5"
    dataset = open_dataset("nyu-fastdepth", "test", root=root)
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((3, 24, 32), np.uint8)
        file["depth"] = np.ones((24, 32), np.float32)
    with pytest.raises(ValueError, match=rf"^{path}: no array 'rgb' in it \(it has: depth, image\)$"):
        dataset[0]
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((24, 32, 3), np.uint8)
        file["depth"] = np.ones((24, 32), np.float32)
    with pytest.raises(ValueError, match=rf"^{path}: rgb must be \(3, H, W\) uint8, it is \(24, 32, 3\) uint8$"):
        dataset[0]
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 24, 32), np.uint8)
        file["depth"] = np.ones((24, 32), np.uint16)
    with pytest.raises(ValueError, match=rf"^{path}: depth must be \(H, W\) in float metres, it is \(24, 32\) uint16$"):
        dataset[0]
    with h5py.File(path, "w") as file:
        file.create_group("rgb")
        file["depth"] = np.ones((24, 32), np.float32)
    with pytest.raises(ValueError, match=rf"^{path}: 'rgb' is not an array$"):
        dataset[0]


def test_arrays_kept_in_other_files_are_not_read(root: Path, tmp_path: Path) -> None:
    path, secret = root / "val" / "official" / "00040.h5", tmp_path.parent / f"{tmp_path.name}-secret.h5"
    with h5py.File(secret, "w") as file:
        file["depth"] = np.ones((24, 32), np.float32)
    dataset = open_dataset("nyu-fastdepth", "test", root=root)
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 24, 32), np.uint8)
        file["depth"] = h5py.ExternalLink(str(secret), "depth")
    with pytest.raises(ValueError, match=rf"^{path}: 'depth' is a link to another file; not read$"):
        dataset[0]
    layout = h5py.VirtualLayout((24, 32), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "depth", (24, 32))
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 24, 32), np.uint8)
        file.create_virtual_dataset("depth", layout)
    with pytest.raises(ValueError, match=rf"^{path}: 'depth' is kept in another file; not read$"):
        dataset[0]
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 24, 32), np.uint8)
        file.create_dataset("depth", (24, 32), np.float32, external=str(secret))
    with pytest.raises(ValueError, match=rf"^{path}: 'depth' is kept in another file; not read$"):
        dataset[0]


@pytest.mark.parametrize("way", ["soft link", "group"])
def test_a_link_to_another_file_by_way_of_another_link_is_not_read(root: Path, tmp_path: Path, way: str) -> None:
    path, secret = root / "val" / "official" / "00040.h5", tmp_path.parent / f"{tmp_path.name}-secret.h5"
    with h5py.File(secret, "w") as file:
        file["depth"] = np.ones((24, 32), np.float32)
    dataset = open_dataset("nyu-fastdepth", "test", root=root)
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 24, 32), np.uint8)
        file["elsewhere"] = h5py.ExternalLink(str(secret), "depth" if way == "soft link" else "/")
        file["depth"] = h5py.SoftLink("/elsewhere" if way == "soft link" else "/elsewhere/depth")
    with pytest.raises(ValueError, match=rf"^{path}: 'depth' is a link to another file; not read$"):
        dataset[0]
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 24, 32), np.uint8)
        file["metres"] = np.ones((24, 32), np.float32)
        file["depth"] = h5py.SoftLink("/metres")  # within the file, and so read
    assert dataset[0].depth.max() == 1


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_named(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = root / "val" / "official" / "00040.h5"
    content = bytearray(path.read_bytes())
    for place in rng.integers(800, size=4):  # where the structure is
        content[place] = rng.integers(256)
    path.write_bytes(content[: rng.integers(len(content))] if seed % 2 else content)
    message = ""
    try:
        sample = open_dataset("nyu-fastdepth", "test", root=root)[0]
    except ValueError as error:
        message = str(error)
    else:
        assert sample.rgb.shape[1:] == sample.depth.shape[1:]
    assert not message or (message.startswith(f"{path}: ") and "\n" not in message)


def test_real_files_agree_with_the_folders(real_data: Callable[[str], Path]) -> None:
    files, images = real_data("formats/fastdepth_h5"), real_data("nyu_labeled/test").parent
    dataset = open_dataset("nyu-fastdepth", "test", root=files)
    assert [dataset.label(i)[-5:] for i in range(len(dataset))] == ["00040", "00688", "00777", "01012"]
    assert dataset[0].depth.shape == (1, 480, 640)
    folder = open_dataset("nyu-labeled", "test", root=images)
    places = {folder.label(i): i for i in range(len(folder))}
    ours, theirs = dataset[1], folder[places["test/00687"]]  # FastDepth counts from 1
    assert np.abs(ours.rgb - theirs.rgb).mean() < 0.02
    assert np.abs(ours.depth - theirs.depth).max() < 1e-3  # the png is in whole millimetres
