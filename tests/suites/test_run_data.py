"""What a suite says of its images: their depth scale, and broken ones left out or named before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depthbench.suites.cli.app import invoke
from depthbench.suites.data import Access, open_files
from depthbench.suites.data.loading import broken_images
from depthbench.suites.results import Record, RunFolder, read_json
from depthbench.suites.runner import Outcome, Request, run
from depthbench.suites.schema import parse_suite

SUITE = """
name: tiny
data: {{name: folder{more}}}
matrix: [{{models: [net.onnx], recipes: [{recipes}], sizes: [32x32], targets: [jetson-orin-nano]}}]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """net.onnx, and images/ with twenty pairs in units of 0.2 mm, in folders without a time stamp of TUM's."""
    import torch
    from torch import nn

    from depthbench.suites.export import export_onnx

    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    export_onnx(nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Softplus()).eval(), tmp_path / "net.onnx", (32, 32))
    rng = np.random.default_rng(0)
    for name in ("rgb", "depth"):
        (tmp_path / "images" / name).mkdir(parents=True)
    for i in range(20):
        rgb, units = rng.integers(0, 256, (32, 48, 3), np.uint8), rng.integers(4000, 12000, (32, 48)).astype(np.uint16)
        Image.fromarray(rgb).save(tmp_path / "images" / "rgb" / f"{i:02d}.png")
        Image.fromarray(units).save(tmp_path / "images" / "depth" / f"{i:02d}.png")
    return tmp_path


def go(place: Path, more: str = "", out: str = "run", recipes: str = "fp16", **options: Any) -> Outcome:
    suite = parse_suite(SUITE.format(more=more, recipes=recipes), "tiny.yaml", place)
    return run(Request(suite, place / out, place, place / "images", **options), lambda *_: None)


def evaluation(outcome: Outcome, record: Record | None = None) -> dict[str, Any]:
    name = (record or outcome.records[0]).evaluation
    assert name is not None
    found: dict[str, Any] = read_json(outcome.folder.evaluation_path(name))
    return found


def damage(place: Path, *numbers: int) -> None:
    """Cut the depth maps of some test images of the pool."""
    for number in numbers:
        path = place / "images" / "depth" / f"{number:02d}.png"
        path.write_bytes(path.read_bytes()[:200])


def test_the_depth_scale_is_part_of_the_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, scaled = go(place), go(place, ", depth_scale: 5000", "scaled")
    assert plain.records[0].id != scaled.records[0].id
    far, near = (np.mean(evaluation(outcome)["metrics"]["rmse_m"]) for outcome in (plain, scaled))
    assert far > 5 > near
    capsys.readouterr()
    for words, expected in (((), far), (("--depth-scale", "5000"), near)):
        assert invoke(["eval", "net.onnx", "--data", "folder=images", *words, "--markdown"]) == 0
        cells = [line.split("|") for line in capsys.readouterr().out.splitlines()]
        row = {name.strip(): value.strip() for name, value in zip(cells[0], cells[2], strict=True)}
        assert float(row["rmse_m"]) == pytest.approx(expected, abs=6e-4)


def test_a_broken_file_ends_the_run_before_anything_is_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (place / "images" / "depth" / "07.png").read_bytes()
    damage(place, 7)
    (place / "tiny.yaml").write_text(SUITE.format(more="", recipes="fp16"))
    command = ["run", "tiny.yaml", "--out", "run", "--data-root", "images"]
    assert invoke(command) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "depthbench" in line]
    assert len(said) == 1
    assert said[0].startswith("depthbench: images/depth/07.png: cannot be decoded (")
    assert list((place / "cache").glob("artefacts/*")) == []
    assert list((place / "run").iterdir()) == []
    (place / "images" / "depth" / "07.png").write_bytes(whole)
    assert invoke(command) == 0
    [record] = RunFolder(place / "run").records()
    assert record.status == "ok"


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_images_are_left_out_and_recorded(place: Path, workers: int) -> None:
    pool = Access(place / "images")
    test = [pool.open("folder", "test").label(i) for i in range(18)]
    (calibration,) = ({"rgb/" + path.stem for path in (place / "images" / "rgb").iterdir()} - set(test),)
    assert len(calibration) == 2
    first, other = (int(label[-2:]) for label in (test[3], sorted(calibration)[0]))
    damage(place, first, other)
    outcome = go(place, ", skip_broken: 2, limit: 12", recipes="fp16, int8-trt", workers=workers)
    assert [record.status for record in outcome.records] == ["ok", "ok"]
    for record in outcome.records:
        found = evaluation(outcome, record)
        assert (found["n"], found["images"]) == (11, [name for name in test[:12] if name != test[3]])
        [line] = found["skipped"]
        assert record.left_out == 1
        assert line.startswith(f"{place}/images/depth/{first:02d}.png: cannot be decoded (")
    assert [line.partition(": ")[0][-6:] for line in outcome.left_out] == [f"{n:02d}.png" for n in (first, other)]
    again = go(place, ", skip_broken: 2, limit: 12", recipes="fp16, int8-trt")
    assert (again.computed, again.records) == (0, outcome.records)
    damage(place, *(int(label[-2:]) for label in test[4:7]))
    with pytest.raises(ValueError, match=r"\(broken image number 3; 2 are tolerated\)$"):
        go(place, ", skip_broken: 2, limit: 12")


def test_what_is_known_of_images_is_of_their_content(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "images" / "depth" / "03.png"
    whole = path.read_bytes()
    damage(place, 3)

    def found() -> dict[int, str]:
        dataset = open_files("folder", "test", root=place / "images")
        return {i: line.partition(": ")[2] for i, line in broken_images(dataset, 5).items()}

    before = found()
    assert len(before) == 1
    reads: list[int] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: (reads.append(1), real(path))[1])
    assert found() == before
    assert len(reads) == 2  # the broken pair alone
    path.write_bytes(whole)
    assert found() == {}
    path.unlink()
    assert [line.startswith("no such file") for line in found().values()] == [True]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (", depth_scale: 0", "data.depth_scale: Input should be greater than 0"),
        (", depth_scale: .inf", "data.depth_scale: .inf is not a finite number below 1e18"),
        (", skip_broken: -1", "data.skip_broken: Input should be greater than or equal to 0"),
    ],
)
def test_faults_of_the_data(place: Path, more: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        go(place, more)


def test_the_depth_scale_is_for_folder_only(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ValueError, match=r"data.depth_scale: the layout of a data set fixes its depth scale; it can be"
    ):
        parse_suite(SUITE.format(more=", depth_scale: 9", recipes="fp16").replace("folder", "rooms"), "a.yaml", place)
    assert invoke(["eval", "net.onnx", "--data", "rooms", "--depth-scale", "9"]) == 2
    assert "depthbench: rooms: its layout fixes the depth scale; it can" in capsys.readouterr().err
    assert invoke(["eval", "net.onnx", "--data", "folder=images", "--depth-scale", "0"]) == 2
    assert "depthbench: depth scale 0.0 must be a number above 0" in capsys.readouterr().err
