"""The layouts of ``folder``: TUM, 7-Scenes, ScanNet; and ``indoor-open``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthbench.suites.data import DepthDataset, open_dataset

Write = Callable[..., np.ndarray]


def labels(dataset: DepthDataset) -> list[str]:
    return [dataset.label(i) for i in range(len(dataset))]


@pytest.fixture
def tum(tmp_path: Path, write_rgb: Write, write_depth: Write) -> Path:
    """Images at 0, 33, 66, 100 ms; depth at 5, 36, 45, 130 ms: two pairs; 45 ms is near to 33 ms too, but comes second."""
    place = tmp_path / "rgbd_dataset_freiburg1_desk"
    rgb, depth = ["# color images\n", "# timestamp filename\n"], ["# depth maps\n"]
    for i, time in enumerate((1.000, 1.033, 1.066, 1.100)):
        write_rgb(place / "rgb" / f"{time:.6f}.png", i)
        rgb.append(f"{time:.6f} rgb/{time:.6f}.png\n")
    for i, time in enumerate((1.005, 1.036, 1.045, 1.130)):
        write_depth(place / "depth" / f"{time:.6f}.png", i)
        depth.append(f"{time:.6f} depth/{time:.6f}.png\n")
    (place / "rgb.txt").write_text("".join(rgb))
    (place / "depth.txt").write_text("".join(depth))
    return tmp_path


def test_tum_pairs_by_time_in_units_of_its_own(tum: Path, write_depth: Write) -> None:
    dataset = open_dataset("folder", "test", root=tum)
    desk = "rgbd_dataset_freiburg1_desk"
    assert [label.rpartition("/")[2] for label in labels(dataset)] == ["1.000000", "1.033000"]
    stored = write_depth(tum / desk / "depth" / "1.036000.png", 1)
    assert np.array_equal(dataset[1].depth[0], stored.astype(np.float32) / 5000)
    assert open_dataset("folder", "test", root=tum, depth_scale=1000)[1].depth == pytest.approx(dataset[1].depth * 5)
    (tum / desk / "depth.txt").write_text("1.066 ../depth/x.png\n")
    with pytest.raises(ValueError, match=rf"{desk}/depth.txt:1: '../depth/x.png' leads outside {tum}; not read$"):
        open_dataset("folder", "test", root=tum)
    (tum / desk / "depth.txt").write_text("now depth/x.png\n")
    with pytest.raises(ValueError, match=r"depth.txt:1: expected a time and a file name, found 'now depth/x.png'$"):
        open_dataset("folder", "test", root=tum)


def _seven_scenes(root: Path, write_rgb: Write, write_depth: Write) -> None:
    for sequence in (1, 2, 3):
        for frame in range(3):
            stem = root / "chess" / f"seq-{sequence:02d}" / f"frame-{frame:06d}"
            write_rgb(stem.with_name(f"{stem.name}.color.png"), frame)
            write_depth(stem.with_name(f"{stem.name}.depth.png"), frame)
    (root / "chess" / "TrainSplit.txt").write_text("sequence1\nsequence2\n")
    (root / "chess" / "TestSplit.txt").write_text("sequence3\n")


def test_seven_scenes(tmp_path: Path, write_rgb: Write, write_depth: Write) -> None:
    _seven_scenes(tmp_path, write_rgb, write_depth)
    path = tmp_path / "chess" / "seq-03" / "frame-000000.depth.png"
    stored = np.asarray(Image.open(path)).copy()
    stored[:2] = 65535  # the sensor saw nothing
    Image.fromarray(stored).save(path)
    train, calibration, test = (
        open_dataset("folder", split, root=tmp_path) for split in ("train", "calibration", "test")
    )
    assert labels(test) == [f"chess/seq-03/frame-{i:06d}.color" for i in range(3)]
    assert len(train) == 6
    assert set(labels(calibration)) <= set(labels(train))
    assert (test[0].depth[0, :2] == 0).all()
    assert np.array_equal((test[0].depth[0, 2:] * 1000).round(), stored[2:])


def test_seven_scenes_bad_split_files(tmp_path: Path, write_rgb: Write, write_depth: Write) -> None:
    _seven_scenes(tmp_path, write_rgb, write_depth)
    lists = tmp_path / "chess" / "TestSplit.txt"
    lists.write_text("sequence9\n")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/chess/seq-09: no such folder \({lists}:1 names it\)$"):
        open_dataset("folder", "test", root=tmp_path)
    lists.write_text("../other\n")
    with pytest.raises(ValueError, match=rf"^{lists}:1: expected a line like sequence3, found '../other'$"):
        open_dataset("folder", "test", root=tmp_path)


def test_scannet_colour_has_more_pixels(tmp_path: Path, write_rgb: Write, write_depth: Write) -> None:
    """Its colour camera is 1296x968, its depth camera 640x480: the same view, other sizes."""
    for frame in (0, 2, 10):
        write_rgb(tmp_path / "scene0000_00" / "color" / f"{frame}.jpg", frame, size=(968, 1296))
        stored = write_depth(tmp_path / "scene0000_00" / "depth" / f"{frame}.png", frame, size=(480, 640))
    dataset = open_dataset("folder", "test", root=tmp_path)
    assert labels(dataset) == [f"scene0000_00/color/{frame}" for frame in (0, 10, 2)]
    assert (dataset[0].rgb.shape, dataset[0].depth.shape) == ((3, 480, 640), (1, 480, 640))
    assert np.array_equal((dataset[1].depth[0] * 1000).round(), stored)
    write_depth(tmp_path / "scene0000_00" / "depth" / "0.png", 0, size=(480, 480))
    with pytest.raises(ValueError, match=r"0.png: depth is 480x480, its image 0.jpg is 968x1296$"):
        dataset[0]


def test_several_layouts_are_refused(tum: Path, write_rgb: Write, write_depth: Write) -> None:
    _seven_scenes(tum, write_rgb, write_depth)
    for path in (tum / "chess").glob("*.txt"):
        path.unlink()
    with pytest.raises(ValueError, match=rf"^folder: several layouts below {tum} \(7-Scenes: [^\n]*; TUM: [^\n]*\)$"):
        open_dataset("folder", "test", root=tum)


@pytest.fixture
def indoor(tmp_path: Path, write_rgb: Write, write_depth: Write) -> Path:
    for camera, count in (("arkit", 1), ("realsense", 3)):
        for i in range(count):
            write_rgb(tmp_path / camera / f"{i:06d}.jpg", i)
            write_depth(tmp_path / camera / f"{i:06d}.png", i)
    return tmp_path


def test_indoor_open_groups_by_camera(indoor: Path) -> None:
    dataset = open_dataset("indoor-open", "test", root=indoor)
    assert list(dataset.groups) == ["arkit", "realsense", "realsense", "realsense"]
    assert labels(dataset)[0] == "arkit/000000"
    with pytest.raises(ValueError, match=r"^indoor-open: no train split, all of it is for testing$"):
        open_dataset("indoor-open", "train", root=indoor)
    calibration = open_dataset("indoor-open", "calibration", root=indoor, limit=3)
    assert (calibration.name, len(calibration)) == ("rooms", 3)
    with pytest.raises(ValueError, match=rf"^indoor-open: no folder {indoor}/none "):
        open_dataset("indoor-open", "test", root=indoor / "none")


def test_real_indoor_open(real_data: Callable[[str], Path]) -> None:
    dataset = open_dataset("indoor-open", "test", root=real_data("indoor_open/aims_slam").parent)
    counts = {group: list(dataset.groups).count(group) for group in dict.fromkeys(dataset.groups)}
    assert (len(dataset), len(counts), counts["aims_slam"]) == (36, 6, 18)
    for i in range(0, 36, 5):
        sample = dataset[i]
        assert sample.depth.shape == (1, 240, 320)
        assert 0.03 < sample.depth[sample.depth > 0].min() < sample.depth.max() < 15
