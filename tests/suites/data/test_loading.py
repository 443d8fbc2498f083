"""Reading ahead in order, past broken images; nothing outside the root; digests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from depthbench.suites.data import Sample, open_dataset, samples
from depthbench.suites.data.files import check_inside, files_digest, fixed_subset
from depthbench.suites.data.loading import default_workers, outcomes

Write = Callable[..., np.ndarray]
COUNT = 12


@pytest.fixture
def root(tmp_path: Path, write_rgb: Write, write_depth: Write) -> Path:
    for i in range(COUNT):
        write_rgb(tmp_path / "test" / f"{i:05d}.jpg", i)
        write_depth(tmp_path / "test" / f"{i:05d}.png", i)
    return tmp_path


@pytest.mark.parametrize("workers", [1, 3, None])
def test_samples_come_in_order(root: Path, workers: int | None) -> None:
    dataset = open_dataset("nyu-labeled", "test", root=root)
    read = list(samples(dataset, workers))
    assert len(read) == COUNT
    for i, sample in enumerate(read):
        assert np.array_equal(sample.depth, dataset[i].depth)
        assert np.array_equal(sample.rgb, dataset[i].rgb)
    assert default_workers() >= 1


class Slow:
    """A data set whose images take longer the earlier they are; notes which thread reads which, and how far ahead."""

    name, split, digest, groups = "slow", "test", "", ()
    skipped: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.started: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Sample:
        self.started.append((index, threading.current_thread().name))
        time.sleep(0.002 * (index % 3))
        return Sample(np.full((3, 1, 1), index, np.float32), np.ones((1, 1, 1), np.float32))

    def label(self, index: int) -> str:
        return str(index)


def test_reading_is_ahead_and_bounded_and_stops_with_its_user() -> None:
    dataset = Slow()
    stream: Iterator[Sample] = samples(dataset, 2)
    assert [int(next(stream).rgb[0, 0, 0]) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert 5 < len(dataset.started) <= 5 + 2 * 4 + 2
    stream.close()
    count = len(dataset.started)
    assert count < len(dataset)
    assert len({name for _, name in dataset.started}) >= 2
    assert threading.active_count() == 1 or all("ThreadPool" not in t.name for t in threading.enumerate())


def _break(root: Path) -> list[str]:
    """Six broken images, one of each kind; the message of each in order, without the root."""
    place = root / "test"
    (place / "00001.png").unlink()
    Image.fromarray(np.ones((20, 32), np.uint16)).save(place / "00002.png")
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(place / "00004.png")
    (place / "00005.png").write_bytes((place / "00005.png").read_bytes()[:-300])
    (place / "00007.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(place / "00009.png")
    return [
        "00001.png: no such file (the depth of 00001.jpg)",
        "00002.png: depth is 20x32, its image 00002.jpg is 24x32",
        "00004.png: depth is 0 at every pixel",
        "00005.png: cannot be decoded (image file is truncated)",
        "00007.jpg: not an image",
        "00009.png: depth must be a 16-bit grey PNG, this one has mode L",
    ]


def test_every_kind_of_broken_image_is_named(root: Path) -> None:
    faults = _break(root)
    with pytest.raises(ValueError, match=r"00001.png: no such file \(the depth of 00001.jpg\)$"):
        open_dataset("nyu-labeled", "test", root=root)
    dataset = open_dataset("nyu-labeled", "test", root=root, skip_broken=6)
    lines = [line.removeprefix(f"{root}/test/") for line in dataset.skipped]
    assert [line.partition(" (image file")[0] for line in lines] == [f.partition(" (image file")[0] for f in faults]
    assert not any("\n" in line for line in lines)
    assert [dataset.label(i) for i in range(len(dataset))] == [f"test/{i:05d}" for i in (0, 3, 6, 8, 10, 11)]
    assert len(list(samples(dataset))) == 6


def test_an_image_that_broke_since_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthbench.suites.data.files._WHOLE_FILE", 40)  # as if the images were large
    monkeypatch.setattr("depthbench.suites.data.files._EDGE", 20)
    dataset = open_dataset("nyu-labeled", "test", root=root, skip_broken=1)
    path = root / "test" / "00004.png"
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)
    again = open_dataset("nyu-labeled", "test", root=root, skip_broken=1)
    assert (dataset.skipped, len(again.skipped)) == ([], 1)
    assert again.skipped[0].startswith(f"{path}: ")


def test_one_more_broken_image_than_tolerated(root: Path) -> None:
    _break(root)
    with pytest.raises(
        ValueError, match=r"00009.png: depth must [^\n]* mode L \(broken image number 6; 5 are tolerated\)$"
    ):
        open_dataset("nyu-labeled", "test", root=root, skip_broken=5)
    with pytest.raises(ValueError, match=r"^skip_broken -1 must be at least 0$"):
        open_dataset("nyu-labeled", "test", root=root, skip_broken=-1)


def test_skipping_changes_nothing_where_nothing_is_broken(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    plain = open_dataset("nyu-labeled", "test", root=root)
    dataset = open_dataset(
        "nyu-labeled", "test", root=root, skip_broken=3, progress=lambda done, total: calls.append((done, total))
    )
    assert (dataset.digest, list(dataset.skipped), len(dataset)) == (plain.digest, [], COUNT)
    assert calls == [(i + 1, COUNT) for i in range(COUNT)]
    (root / "test" / "00001.png").unlink()
    less = open_dataset("nyu-labeled", "test", root=root, skip_broken=3, limit=4)
    assert (len(less), len(less.skipped)) == (3, 1)
    assert less.digest != plain.digest


def test_nothing_left(root: Path) -> None:
    for path in (root / "test").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^nyu-labeled: every test image is broken, the first: [^\n]*: not an image$"):
        open_dataset("nyu-labeled", "test", root=root, skip_broken=100)


def test_broken_h5_files_are_skipped(tmp_path: Path, write_h5: Write) -> None:
    for i in range(4):
        write_h5(tmp_path / "val" / "official" / f"{i:05d}.h5", i)
    with h5py.File(tmp_path / "val" / "official" / "00001.h5", "r+") as file:
        file.move("depth", "depths")
    with h5py.File(tmp_path / "val" / "official" / "00002.h5", "r+") as file:
        file["depth"][3, 4] = np.nan
    dataset = open_dataset("nyu-fastdepth", "test", root=tmp_path, skip_broken=2)
    assert [line.rpartition("/")[2] for line in dataset.skipped] == [
        "00001.h5: no array 'depth' in it (it has: depths, rgb)",
        "00002.h5: depth is NaN, infinite or negative at 1 of 768 pixels",
    ]


def test_an_error_that_is_no_broken_file_is_not_hidden() -> None:
    class Faulty(Slow):
        def __getitem__(self, index: int) -> Sample:
            raise ZeroDivisionError if index == 3 else ValueError(str(index))

    stream = outcomes(Faulty(), 2)
    assert [str(next(stream)) for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(ZeroDivisionError):
        next(stream)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_that_lead_outside_are_refused(root: Path, tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    if kind == "file":
        (root / "test" / "00003.png").rename(outside / "00003.png")
        (root / "test" / "00003.png").symlink_to(outside / "00003.png")
        fault = rf"^{root}/test/00003.png: leads outside {root}, to {outside}/00003.png; not read$"
    else:
        (root / "test").rename(outside / "test")
        (root / "test").symlink_to(outside / "test")
        fault = rf"^{root}/test/00000.jpg: leads outside {root}, to {outside}/test/00000.jpg; not read$"
    with pytest.raises(ValueError, match=fault):
        open_dataset("nyu-labeled", "test", root=root)
    with pytest.raises(ValueError, match=fault):  # no broken image to be tolerated
        open_dataset("nyu-labeled", "test", root=root, skip_broken=100)


def test_links_that_stay_inside_are_followed(root: Path) -> None:
    (root / "test" / "00003.png").rename(root / "elsewhere.png")
    (root / "test" / "00003.png").symlink_to(root / "elsewhere.png")
    link = root.parent / f"{root.name}-link"
    link.symlink_to(root)
    dataset = open_dataset("nyu-labeled", "test", root=link)
    assert dataset[3].depth.max() > 0


def test_a_link_made_after_opening_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "00003.png"
    dataset = open_dataset("nyu-labeled", "test", root=root)
    (root / "test" / "00003.png").rename(outside)
    (root / "test" / "00003.png").symlink_to(outside)
    with pytest.raises(ValueError, match=r"00003.png: leads outside "):
        dataset[3]


def test_check_inside_needs_no_existing_file(tmp_path: Path) -> None:
    check_inside(tmp_path, [tmp_path / "a" / "b", tmp_path / "c"])
    with pytest.raises(ValueError, match=r"leads outside "):
        check_inside(tmp_path, [tmp_path / "a", tmp_path / ".." / "b"])


def test_digest_of_very_many_files_knows_every_name_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthbench.suites.data.files._MOST_FILES", 40)
    paths = [tmp_path / f"{i:04d}" for i in range(50)]
    for path in paths:
        path.write_bytes(b"ab")
    before = files_digest(tmp_path, paths)
    counted = fixed_subset(50, 40)
    for index, path in enumerate(paths):
        path.write_bytes(b"ba")
        assert (files_digest(tmp_path, paths) != before) == (index in counted)
        path.write_bytes(b"abc")
        assert files_digest(tmp_path, paths) != before
        path.write_bytes(b"ab")


def test_rooms_have_no_groups_and_nothing_broken() -> None:
    dataset = open_dataset("rooms", "test", limit=2, skip_broken=5)
    assert (list(dataset.groups), list(dataset.skipped), len(dataset)) == ([], [], 2)


def test_the_depth_scale_is_for_folder_only(root: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^nyu-labeled: its layout fixes the depth scale; it can be given for folder "
    ):
        open_dataset("nyu-labeled", "test", root=root, depth_scale=1000)
