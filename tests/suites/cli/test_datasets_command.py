"""``depthbench datasets`` and ``depthbench datasets verify``: what is found, and the first broken file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from depthbench.suites.cli.app import invoke
from depthbench.suites.data import DATASETS
from depthbench.suites.data.verify import verify

COUNT = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``nyu-labeled`` in folders: test images of 24x32, depth 1 to 6 m by image, a quarter of the pixels missing."""
    (tmp_path / "test").mkdir()
    for i in range(COUNT):
        Image.fromarray(np.full((24, 32, 3), 40 * i, np.uint8)).save(tmp_path / "test" / f"{i:05d}.jpg")
        depth = np.full((24, 32), 1000 * (i + 1), np.uint16)
        depth[:6] = 0
        Image.fromarray(depth).save(tmp_path / "test" / f"{i:05d}.png")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, list[str]]:
    """Exit code, stdout, and the lines of stderr that are not progress."""
    code = invoke([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, [line for line in captured.err.splitlines() if not line.startswith("images: ")]


def test_listing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kitti").mkdir()
    monkeypatch.setenv("DEPTHBENCH_DATA", str(tmp_path))
    code, out, said = run(capsys, "datasets", "--json")
    rows = {row["name"]: row for row in json.loads(out)["datasets"]}
    assert (code, said, set(rows)) == (0, [], set(DATASETS))
    assert rows["rooms"]["found"] == "rendered here"
    assert rows["kitti-eigen"]["found"] == f"{tmp_path}/kitti"
    assert rows["nyu-bts"]["found"] == f"no folder {tmp_path}/nyu_bts"
    assert rows["kitti-eigen"]["licence"] == "CC BY-NC-SA 3.0"
    code, out, _ = run(capsys, "datasets")
    assert code == 0
    assert "kitti-eigen" in out


def test_verify_says_what_is_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = run(capsys, "datasets", "verify", "nyu-labeled", root, "--json")
    assert (code, said) == (0, [])
    assert json.loads(out) == {
        "name": "nyu-labeled",
        "root": str(root),
        "splits": [
            {
                "split": "test",
                "layout": "jpg + 16-bit png in millimetres",
                "pairs": COUNT,
                "sizes": {"24x32": COUNT},
                "depth_min_m": 1.0,
                "depth_max_m": 6.0,
                "valid_share": 0.75,
                "groups": {},
                "broken": [],
            }
        ],
        "absent": {"train": f"nyu-labeled: no folder {root}/train (set DEPTHBENCH_DATA or --data-root)"},
        "unpaired": [],
    }
    code, out, _ = run(capsys, "datasets", "verify", "nyu-labeled", root)
    assert code == 0
    assert all(text in out for text in ("24x32", "75.0%", "no train split: nyu-labeled: no folder"))


def test_progress_is_on_stderr(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoke(["datasets", "verify", "nyu-labeled", str(root), "--json"])
    assert capsys.readouterr().err.splitlines()[-1] == "images: 100%"


def _break(root: Path, fault: str) -> str:
    """Break image 2, the way ``fault`` says; the message that names it."""
    path = root / "test" / "00002.png"
    if fault == "missing":
        path.unlink()
        return f"{path}: no such file (the depth of 00002.jpg)"
    if fault == "size":
        Image.fromarray(np.ones((12, 16), np.uint16)).save(path)
        return f"{path}: depth is 12x16, its image 00002.jpg is 24x32"
    if fault == "zero":
        Image.fromarray(np.zeros((24, 32), np.uint16)).save(path)
        return f"{path}: depth is 0 at every pixel"
    noise = np.random.default_rng(0).integers(1, 9000, (24, 32)).astype(np.uint16)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    return f"{path}: cannot be decoded ("


@pytest.mark.parametrize("fault", ["missing", "size", "zero", "truncated"])
@pytest.mark.parametrize("more", [False, True])
def test_verify_names_the_first_broken_file(
    root: Path, capsys: pytest.CaptureFixture[str], fault: str, more: bool
) -> None:
    message = _break(root, fault)
    if more:
        (root / "test" / "00004.jpg").write_bytes(b"no image")
    code, out, said = run(capsys, "datasets", "verify", "nyu-labeled", root, "--split", "test", "--json")
    [split] = json.loads(out)["splits"]
    assert (code, len(said), len(split["broken"])) == (2, 1, 1 + more)
    assert said[0].startswith(f"depthbench: {message}")
    assert said[0].endswith(" (and 1 more)") == more
    assert (split["pairs"], split["sizes"]) == (COUNT, {"24x32": COUNT - 1 - more})


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("depths", 1.0, "no array 'depth' in it (it has: depths, rgb)"),
        ("depth", math.nan, "depth is NaN, infinite or negative at 8 of 8 pixels"),
        ("depth", math.inf, "depth is NaN, infinite or negative at 8 of 8 pixels"),
        ("depth", -1.0, "depth is NaN, infinite or negative at 8 of 8 pixels"),
        ("depth", 0.0, "depth is 0 at every pixel"),
    ],
)
def test_verify_h5(tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: float, fault: str) -> None:
    path = tmp_path / "val" / "official" / "00001.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 2, 4), np.uint8)
        file[key] = np.full((2, 4), value, np.float32)
    code, out, said = run(capsys, "datasets", "verify", "nyu-fastdepth", tmp_path, "--json")
    assert (code, said) == (2, [f"depthbench: {path}: {fault}"])
    [split] = json.loads(out)["splits"]
    assert (split["depth_min_m"], split["valid_share"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("nyu-labelled", "."), "unknown data set 'nyu-labelled'; did you mean nyu-labeled?"),
        (("rooms", "."), "rooms: rendered here, it has no files"),
        (("kitti-eigen", "none"), "kitti-eigen: no eigen_test_files_with_gt.txt below none"),
        (("nyu-labeled", "none", "--split", "val"), "unknown split 'val'"),
        (("nyu-labeled", ".", "--depth-scale", "1000"), "nyu-labeled: its layout fixes the depth scale"),
        (("folder", ".", "--depth-scale", "0"), "depth scale 0.0 must be a number above 0"),
        (("indoor-open", "none", "--split", "train"), "indoor-open: no train split, all of it is for testing"),
        (("nyu-labeled",), "Missing argument 'path'"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    fault: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, said = run(capsys, "datasets", "verify", *arguments)
    assert (code, out, len(said)) == (2, "", 1)
    assert fault in said[0]


def test_a_link_that_leads_outside_is_refused_at_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = root.parent / f"{root.name}-outside.png"
    (root / "test" / "00003.png").rename(outside)
    (root / "test" / "00003.png").symlink_to(outside)
    code, out, said = run(capsys, "datasets", "verify", "nyu-labeled", root)
    assert (code, out) == (2, "")
    assert said == [f"depthbench: {root}/test/00003.png: leads outside {root}, to {outside}; not read"]


def test_limit_and_both_splits(root: Path) -> None:
    (root / "train").mkdir()
    for ending in ("jpg", "png"):
        (root / "train" / f"x.{ending}").write_bytes((root / "test" / f"00005.{ending}").read_bytes())
    report = verify("nyu-labeled", root, limit=2)
    assert [(part.split, part.pairs, part.depth_max_m) for part in report.splits] == [
        ("train", 1, 6.0),
        ("test", 2, 2.0),
    ]
    assert (report.absent, report.broken) == ({}, [])


def test_files_without_a_partner_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "test" / "00001.jpg").unlink()
    report = verify("nyu-labeled", root)
    assert ([part.pairs for part in report.splits], report.unpaired) == ([COUNT - 1], ["test/00001.png"])
    for i in range(2, 5):
        (root / "test" / f"{i:05d}.jpg").unlink()
    code, out, _ = run(capsys, "datasets", "verify", "folder", root)
    assert code == 0
    assert "4 files have no partner and are not used: test/00001.png, test/00002.png, test/00003.png, ...\n" in out


@pytest.mark.parametrize(
    ("files", "alone"),
    [
        (["rgb/a.png", "depth/a.png", "depth/b.png", "mask/c.png"], ["depth/b.png"]),
        (["color/a.jpg", "depth/a.png", "depth/b.png", "label/a.png"], ["depth/b.png"]),
        (["s/a.color.png", "s/a.depth.png", "s/b.depth.png", "s/view.png"], ["s/b.depth.png"]),
        (["train/a.jpg", "train/a.png", "train/b.png", "test/c.jpg", "test/c.png", "d.png"], ["train/b.png"]),
    ],
)
def test_partners_are_those_of_the_layout(tmp_path: Path, files: list[str], alone: list[str]) -> None:
    for name in files:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = path.suffix == ".jpg" or "rgb/" in name or ".color" in name
        Image.fromarray(np.full((4, 6, 3), 9, np.uint8) if colour else np.full((4, 6), 900, np.uint16)).save(path)
    report = verify("folder", tmp_path / "images")
    assert (report.unpaired, report.broken) == (alone, [])


def test_an_empty_split_is_named_and_the_other_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train").mkdir()
    code, out, said = run(capsys, "datasets", "verify", "nyu-labeled", root, "--json")
    found = json.loads(out)
    assert (code, said, found["absent"]) == (0, [], {"train": f"nyu-labeled: no train images below {root}"})
    assert [split["pairs"] for split in found["splits"]] == [COUNT]
    code, out, said = run(capsys, "datasets", "verify", "nyu-labeled", root, "--split", "train")
    assert (code, out, said) == (2, "", [f"depthbench: nyu-labeled: no train images below {root}"])
