"""Data sets on trees that the test writes, and rooms rendered into a cache of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from depthbench.suites.data import DATASETS, SPLITS, open_dataset
from depthbench.suites.data.rooms_dataset import CHUNK, RoomsDataset
from depthbench.suites.storage.cache import cache_dir


def _write(folder: Path, stem: str, value: int = 0, size: tuple[int, int] = (24, 32)) -> None:
    rng = np.random.default_rng(value)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{stem}.jpg")
    Image.fromarray(rng.integers(500, 9000, size).astype(np.uint16)).save(folder / f"{stem}.png")


@pytest.fixture
def nyu(tmp_path: Path) -> Path:
    for i in range(80):
        _write(tmp_path / "train", f"{i:05d}", i)
    for i in range(3):
        _write(tmp_path / "test", f"{i:05d}", 1000 + i)
    return tmp_path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    for i in range(20):
        _write(tmp_path / f"camera{i % 2}", f"{i:03d}", i)
    return tmp_path


def test_sample_values(nyu: Path) -> None:
    sample = open_dataset("nyu-labeled", "test", root=nyu)[1]
    assert (sample.rgb.shape, sample.rgb.dtype) == ((3, 24, 32), np.float32)
    assert (sample.depth.shape, sample.depth.dtype) == ((1, 24, 32), np.float32)
    stored = np.asarray(Image.open(nyu / "test" / "00001.png"))
    assert np.array_equal((sample.depth[0] * 1000).round(), stored)
    picture = np.asarray(Image.open(nyu / "test" / "00001.jpg"))
    assert np.array_equal((sample.rgb * 255).round(), np.moveaxis(picture, 2, 0))


def test_nyu_splits(nyu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(open_dataset("nyu-labeled", split, root=nyu)) for split in SPLITS] == [80, 64, 3]
    assert len(open_dataset("nyu-labeled", "test", root=nyu, limit=2)) == 2
    calibration = open_dataset("nyu-labeled", "calibration", root=nyu)
    labels = [calibration.label(i) for i in range(len(calibration))]
    assert len(set(labels)) == 64
    assert all(label.startswith("train/") for label in labels)
    (nyu.parent / "data").mkdir(exist_ok=True)
    (nyu.parent / "data" / "nyu_labeled").symlink_to(nyu)
    monkeypatch.setenv("DEPTHBENCH_DATA", str(nyu.parent / "data"))
    assert open_dataset("nyu-labeled", "test").label(0) == "test/00000"


def test_digest_follows_content(nyu: Path) -> None:
    before = open_dataset("nyu-labeled", "test", root=nyu).digest
    assert before == open_dataset("nyu-labeled", "test", root=nyu).digest
    assert before != open_dataset("nyu-labeled", "test", root=nyu, limit=2).digest
    _write(nyu / "test", "00002", 7)
    assert before != open_dataset("nyu-labeled", "test", root=nyu).digest


def test_pool_is_divided_without_overlap(pool: Path) -> None:
    parts = {split: open_dataset("folder", split, root=pool) for split in ("calibration", "test")}
    labels = {split: {part.label(i) for i in range(len(part))} for split, part in parts.items()}
    assert {split: len(names) for split, names in labels.items()} == {"calibration": 2, "test": 18}
    assert not labels["calibration"] & labels["test"]
    with pytest.raises(ValueError, match=rf"^folder: no training split below {pool} "):
        open_dataset("folder", "train", root=pool)


def test_folder_with_splits_and_rgb_depth_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i in range(2):
            _write(tmp_path / "made", f"{i}", i)
            for kind, ending in (("rgb", ".jpg"), ("depth", ".png")):
                target = tmp_path / "data" / split / kind / f"{i}{ending}"
                target.parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "made" / f"{i}{ending}").rename(target)
    root = tmp_path / "data"
    assert [len(open_dataset("folder", split, root=root)) for split in SPLITS] == [2, 2, 2]
    fine = open_dataset("folder", "test", root=root, depth_scale=2000)
    coarse = open_dataset("folder", "test", root=root)
    assert fine[0].depth * 2 == pytest.approx(coarse[0].depth)
    assert fine.digest != coarse.digest


def test_wrong_names_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEPTHBENCH_DATA", raising=False)
    with pytest.raises(ValueError, match=r"^unknown data set 'room'.*did you mean rooms\?"):
        open_dataset("room", "test")
    with pytest.raises(ValueError, match=r"^unknown split 'val'.*calibration, test, train"):
        open_dataset("rooms", "val")
    with pytest.raises(ValueError, match=r"^limit 0 must be at least 1$"):
        open_dataset("rooms", "test", limit=0)
    with pytest.raises(
        ValueError, match=r"^nyu-labeled: set DEPTHBENCH_DATA to the folder that holds nyu_labeled, or give --"
    ):
        open_dataset("nyu-labeled", "test")
    with pytest.raises(ValueError, match=rf"^nyu-labeled: no folder {tmp_path}/none/test "):
        open_dataset("nyu-labeled", "test", root=tmp_path / "none")
    with pytest.raises(ValueError, match=r"^folder: say where the images are"):
        open_dataset("folder", "test")
    with pytest.raises(ValueError, match=rf"^folder: no test images below {tmp_path}$"):
        open_dataset("folder", "test", root=tmp_path)
    with pytest.raises(ValueError, match=r"^depth scale 0 must be a number above 0"):
        open_dataset("folder", "test", root=tmp_path, depth_scale=0)


def test_missing_depth_file_is_named(nyu: Path) -> None:
    (nyu / "test" / "00001.png").unlink()
    with pytest.raises(ValueError, match=rf"^{nyu}/test/00001.png: no such file \(the depth of 00001.jpg\)$"):
        open_dataset("nyu-labeled", "test", root=nyu)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_truncated_file_is_named(nyu: Path, ending: str) -> None:
    path = nyu / "test" / f"00000.{ending}"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=rf"^{path}: cannot be decoded \([^\n]*\)$"):
        open_dataset("nyu-labeled", "test", root=nyu)[0]


def test_files_that_are_not_what_they_should_be(nyu: Path) -> None:
    (nyu / "test" / "00000.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(nyu / "test" / "00001.png")
    Image.fromarray(np.ones((20, 32), np.uint16)).save(nyu / "test" / "00002.png")
    dataset = open_dataset("nyu-labeled", "test", root=nyu)
    with pytest.raises(ValueError, match=r"00000.jpg: not an image$"):
        dataset[0]
    with pytest.raises(ValueError, match=r"00001.png: depth must be a 16-bit grey PNG, this one has mode L$"):
        dataset[1]
    with pytest.raises(ValueError, match=r"00002.png: depth is 20x32, its image 00002.jpg is 24x32$"):
        dataset[2]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_too_long_a_text_in_a_png_is_named(nyu: Path, ending: str) -> None:
    text = PngInfo()
    text.add_text("comment", "a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    dataset = open_dataset("nyu-labeled", "test", root=nyu)
    path = dataset.items[0].files[ending == "png"]  # type: ignore[attr-defined]
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, "PNG", pnginfo=text)
    with pytest.raises(ValueError, match=rf"^{path}: cannot be decoded \(Decompressed data too large [^\n]*\)$"):
        dataset[0]


def test_rooms_are_rendered_once_and_read_back() -> None:
    from depthbench.suites.data.rooms import render

    dataset = open_dataset("rooms", "test", limit=5)
    assert isinstance(dataset, RoomsDataset)
    calls: list[tuple[int, int]] = []
    dataset.prepare(lambda done, total: calls.append((done, total)))
    assert calls in ([(5, 5)], [])  # empty when another test rendered them
    assert len(list(dataset.folder.glob("*.npy"))) == 1
    assert dataset.folder.is_relative_to(cache_dir())
    dataset.prepare(lambda *_: pytest.fail("rendered again"))
    rgb, depth = render(0, "test", [3], height=240, width=320)
    sample = dataset[3]
    assert np.array_equal((sample.rgb * 255).round(), rgb[0].numpy())
    assert sample.depth == pytest.approx(depth[0].numpy(), abs=1.01e-4)
    assert (dataset.label(3), len(dataset)) == ("00003", 5)
    with pytest.raises(IndexError):
        dataset[5]


def test_rooms_digest_needs_no_rendering_and_tells_splits_apart() -> None:
    digests = {open_dataset("rooms", split, limit=n).digest for split in SPLITS for n in (7, 1000)}
    assert len(digests) == 6
    assert [len(open_dataset("rooms", split)) for split in SPLITS] == [2048, 64, 256]
    assert CHUNK <= 64


def test_damaged_cache_file_is_named() -> None:
    dataset = RoomsDataset("calibration", 1)
    path = dataset.folder / "000000.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=rf"^{path}: damaged cache file, delete it "):
        dataset[0]
    path.unlink()


def test_importing_the_data_sets_loads_no_torch() -> None:
    code = (
        "import sys, depthbench.suites.data.verify, depthbench.suites.protocols\n"
        "sys.exit(bool({'torch', 'h5py', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_data_set_says_whose_it_is() -> None:
    assert {name: info.protocol for name, info in DATASETS.items()} == {
        "rooms": "native",
        "nyu-labeled": "nyu-eigen",
        "nyu-fastdepth": "nyu-fastdepth",
        "nyu-bts": "nyu-eigen",
        "nyu-densedepth": "nyu-eigen",
        "kitti-eigen": "kitti-garg",
        "indoor-open": "native",
        "folder": "native",
    }
    assert all(info.licence for info in DATASETS.values())
    assert all(info.source for name, info in DATASETS.items() if info.folder)
