"""Layouts with list files: BTS, DenseDepth, KITTI."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from depthbench.suites.data import DepthDataset, open_dataset

Write = Callable[..., np.ndarray]


def labels(dataset: DepthDataset) -> list[str]:
    return [dataset.label(i) for i in range(len(dataset))]


@pytest.fixture
def bts(tmp_path: Path, write_rgb: Write, write_depth: Write) -> Path:
    lines = {"train": [], "test": []}
    for part, folder, scenes in (
        ("train", "sync", ["kitchen_0028b", "office_0006"]),
        ("test", "official_splits/test", ["bathroom", "office"]),
    ):
        for scene in scenes:
            for i in (45, 111):
                place = tmp_path / "nyu_depth_v2" / folder / scene
                write_rgb(place / f"rgb_{i:05d}.jpg", i)
                write_depth(place / f"sync_depth_{i:05d}.png", i)
                slash = "/" if part == "train" else ""
                names = (f"{slash}{scene}/rgb_{i:05d}.jpg", f"{slash}{scene}/sync_depth_{i:05d}.png")
                lines[part].append(f"{names[0]} {names[1]} 518.8579\n")
        (tmp_path / f"nyudepthv2_{part}_files_with_gt.txt").write_text("".join(lines[part]))
    return tmp_path


def test_bts(bts: Path, write_depth: Write) -> None:
    test, train = (open_dataset("nyu-bts", split, root=bts) for split in ("test", "train"))
    assert labels(train)[:2] == [
        "nyu_depth_v2/sync/kitchen_0028b/rgb_00045",
        "nyu_depth_v2/sync/kitchen_0028b/rgb_00111",
    ]
    assert labels(test)[0] == "nyu_depth_v2/official_splits/test/bathroom/rgb_00045"
    assert (train.groups[0], list(test.groups)) == ("kitchen_0028b", ["bathroom", "bathroom", "office", "office"])
    stored = write_depth(bts / "nyu_depth_v2" / "sync" / "kitchen_0028b" / "sync_depth_00045.png", 45)
    assert np.array_equal((train[0].depth[0] * 1000).round(), stored)
    calibration = open_dataset("nyu-bts", "calibration", root=bts)
    assert set(labels(calibration)) <= set(labels(train))


def test_bts_lists_in_a_folder_of_their_own(bts: Path) -> None:
    (bts / "train_test_inputs").mkdir()
    for path in bts.glob("*.txt"):
        path.rename(bts / "train_test_inputs" / path.name)
    for part in ("sync", "official_splits"):
        (bts / "nyu_depth_v2" / part).rename(bts / part)
    (bts / "nyu_depth_v2").rmdir()
    assert labels(open_dataset("nyu-bts", "test", root=bts))[0] == "official_splits/test/bathroom/rgb_00045"
    assert labels(open_dataset("nyu-bts", "train", root=bts))[0] == "sync/kitchen_0028b/rgb_00045"


@pytest.fixture
def densedepth(tmp_path: Path, write_rgb: Write, write_depth: Write) -> Path:
    train, test = [], []
    for i in range(1, 4):
        stem = f"data/nyu2_train/living_room_0038_out/{i}"
        write_rgb(tmp_path / f"{stem}.jpg", i)
        write_depth(tmp_path / f"{stem}.png", i, bits=8)
        train.append(f"{stem}.jpg,{stem}.png\r\n")
    for i in range(2):
        stem = f"data/nyu2_test/{i:05d}"
        write_rgb(tmp_path / f"{stem}_colors.png", i)
        write_depth(tmp_path / f"{stem}_depth.png", i)
        test.append(f"{stem}_colors.png,{stem}_depth.png\n")
    for part, lines in (("train", train), ("test", test)):
        (tmp_path / "data" / f"nyu2_{part}.csv").write_bytes("".join(lines).encode())
    return tmp_path


def test_densedepth(densedepth: Path, write_depth: Write) -> None:
    train, test = (open_dataset("nyu-densedepth", split, root=densedepth) for split in ("train", "test"))
    assert labels(train) == [f"data/nyu2_train/living_room_0038_out/{i}" for i in (1, 2, 3)]
    eight = write_depth(densedepth / "data" / "nyu2_train" / "living_room_0038_out" / "2.png", 2, bits=8)
    assert train[1].depth[0] == pytest.approx(eight.astype(np.float64) * 10 / 255, rel=1e-6)
    sixteen = write_depth(densedepth / "data" / "nyu2_test" / "00001_depth.png", 1)
    assert np.array_equal((test[1].depth[0] * 1000).round(), sixteen)
    assert test.groups == []


def test_densedepth_the_data_folder_is_a_root_too(densedepth: Path) -> None:
    dataset = open_dataset("nyu-densedepth", "test", root=densedepth / "data")
    assert labels(dataset) == ["nyu2_test/00000_colors", "nyu2_test/00001_colors"]
    assert dataset[0].depth.shape == (1, 24, 32)


def test_densedepth_a_name_that_is_a_folder(densedepth: Path) -> None:
    path = densedepth / "data" / "nyu2_test.csv"
    path.write_text("data,data\n")
    with pytest.raises(ValueError, match=rf"^{densedepth}/data/data: "):
        open_dataset("nyu-densedepth", "test", root=densedepth / "data")


def test_densedepth_training_depth_must_be_8_bit(densedepth: Path, write_depth: Write) -> None:
    path = densedepth / "data" / "nyu2_train" / "living_room_0038_out" / "1.png"
    write_depth(path, 1)
    with pytest.raises(ValueError, match=rf"^{path}: depth must be an 8-bit grey PNG, this one has mode I;16$"):
        open_dataset("nyu-densedepth", "train", root=densedepth)[0]


DRIVE = "2011_09_26_drive_0002_sync"


@pytest.fixture
def kitti(tmp_path: Path, write_rgb: Write, write_depth: Write) -> Path:
    lines = []
    for i in range(4):
        name = f"{i:010d}.png"
        write_rgb(tmp_path / "raw" / "2011_09_26" / DRIVE / "image_02" / "data" / name, i)
        depth = f"{DRIVE}/proj_depth/groundtruth/image_02/{name}"
        if i != 2:
            write_depth(tmp_path / "data_depth_annotated" / "val" / depth, i)
        lines.append(f"2011_09_26/{DRIVE}/image_02/data/{name} {'None' if i == 2 else depth} 721.5377\n")
    (tmp_path / "eigen_test_files_with_gt.txt").write_text("".join(lines))
    (tmp_path / "eigen_train_files_with_gt.txt").write_text(lines[0])
    return tmp_path


def test_kitti(kitti: Path, write_depth: Write) -> None:
    dataset = open_dataset("kitti-eigen", "test", root=kitti)
    assert [label[-1] for label in labels(dataset)] == ["0", "1", "3"]  # 2 is None
    place = kitti / "data_depth_annotated" / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02"
    stored = write_depth(place / f"{3:010d}.png", 3)
    assert np.array_equal(dataset[2].depth[0], stored.astype(np.float32) / 256)


@pytest.mark.parametrize("change", ["no day", "jpg", "flat", "slash"])
def test_kitti_trees_differ(kitti: Path, change: str) -> None:
    expected = labels(open_dataset("kitti-eigen", "test", root=kitti))
    raw, annotated = kitti / "raw", kitti / "data_depth_annotated"
    if change == "no day":
        for path in kitti.glob("eigen_*.txt"):
            path.write_text(path.read_text().replace("2011_09_26/", ""))
    elif change == "jpg":
        for path in sorted(raw.rglob("*.png")):
            path.rename(path.with_suffix(".jpg"))
    elif change == "flat":
        (annotated / "val" / DRIVE).rename(annotated / DRIVE)
        (raw / "2011_09_26" / DRIVE).rename(raw / DRIVE)
        expected = [label.replace("2011_09_26/", "") for label in expected]
    else:
        path = kitti / "eigen_test_files_with_gt.txt"
        path.write_text("".join(f"/{line}\n" for line in path.read_text().splitlines()))
    dataset = open_dataset("kitti-eigen", "test", root=kitti)
    assert labels(dataset) == expected
    assert dataset[0].depth.max() > 0


def test_missing_list_file(tmp_path: Path) -> None:
    for name, path in (
        ("nyu-bts", "nyudepthv2_test_files_with_gt.txt"),
        ("nyu-densedepth", "nyu2_test.csv"),
        ("kitti-eigen", "eigen_test_files_with_gt.txt"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: no {path} below {tmp_path} \(set DEPTHBENCH_DATA"):
            open_dataset(name, "test", root=tmp_path)


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "C:/x.jpg", r"..\secret.jpg"])
def test_names_that_lead_outside_are_refused(densedepth: Path, name: str) -> None:
    path = densedepth / "data" / "nyu2_test.csv"
    path.write_text(f"data/nyu2_test/00000_colors.png,data/nyu2_test/00000_depth.png\n{name},x.png\n")
    with pytest.raises(ValueError, match=r"^[^\n]*nyu2_test.csv:2: '[^\n]*' leads outside [^\n]*; not read$"):
        open_dataset("nyu-densedepth", "test", root=densedepth)


def test_a_leading_slash_never_leaves_the_root(bts: Path) -> None:
    path = bts / "nyudepthv2_train_files_with_gt.txt"
    path.write_text("/etc/passwd /etc/passwd 518.8579\n")
    with pytest.raises(ValueError, match=rf"^{bts}/nyu_depth_v2/sync/etc/passwd: no such file$"):
        open_dataset("nyu-bts", "train", root=bts)
    path.write_text("//etc/passwd /etc/passwd 518.8579\n")
    with pytest.raises(ValueError, match=r":1: '/etc/passwd' leads outside "):
        open_dataset("nyu-bts", "train", root=bts)


def test_kitti_lines_without_a_folder(kitti: Path) -> None:
    path = kitti / "eigen_test_files_with_gt.txt"
    path.write_text("a.png b.png 721\n")
    with pytest.raises(ValueError, match=rf"^{kitti}/[^\n]*a\.[^\n]*: no such file"):
        open_dataset("kitti-eigen", "test", root=kitti)
    path.write_text("a.png . 721\n")
    with pytest.raises(ValueError, match=rf"^{path}:1: '.' is not a file name$"):
        open_dataset("kitti-eigen", "test", root=kitti)


def test_bad_lines(bts: Path) -> None:
    path = bts / "nyudepthv2_test_files_with_gt.txt"
    path.write_text("# a comment\n\noffice/rgb_00045.jpg\n")
    with pytest.raises(ValueError, match=rf"^{path}:3: expected an image and its depth, found 'office/rgb_00045.jpg'$"):
        open_dataset("nyu-bts", "test", root=bts)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=rf"^{path}: not a text file$"):
        open_dataset("nyu-bts", "test", root=bts)
    path.write_text("")
    with pytest.raises(ValueError, match=rf"^nyu-bts: no test images below {bts}$"):
        open_dataset("nyu-bts", "test", root=bts)


def test_real_bts_tree(real_data: Callable[[str], Path]) -> None:
    dataset = open_dataset("nyu-bts", "test", root=real_data("formats/bts"))
    assert (len(dataset), len(set(dataset.groups))) == (16, 16)
    assert dataset[0].depth.shape == (1, 480, 640)


def test_real_kitti_frames(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    data = real_data("kitti_png/proj_depth/velodyne_raw").parents[1]
    frames = open_dataset("kitti-eigen", "test", root=data)
    assert len(frames) == 3
    assert frames[0].depth.shape == (1, 370, 1224)
    assert 4 < frames[0].depth[frames[0].depth > 0].min() < frames[0].depth.max() < 80
    with pytest.raises(ValueError, match=r"^kitti-eigen: no train split below "):
        open_dataset("kitti-eigen", "train", root=data)
    drive = tmp_path / "2011_09_26" / DRIVE  # the same frames in the tree of the raw data
    shutil.copytree(data / "image_02", drive / "image_02" / "data")
    shutil.copytree(data / "proj_depth" / "velodyne_raw", tmp_path / DRIVE / "proj_depth" / "groundtruth" / "image_02")
    lines = [
        f"2011_09_26/{DRIVE}/image_02/data/{i:06d}.png {depth} 721.5377\n"
        for i, depth in enumerate([f"{DRIVE}/proj_depth/groundtruth/image_02/000000.png", "None", "None"])
    ]
    (tmp_path / "kitti_eigen_test_files_with_gt.txt").write_text("".join(lines))
    dataset = open_dataset("kitti-eigen", "test", root=tmp_path)
    assert len(dataset) == 1
    assert np.array_equal(dataset[0].depth, frames[0].depth)
