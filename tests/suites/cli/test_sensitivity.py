"""The command sensitivity: its curves, its plot, and that nothing is measured twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthbench.suites.cli.app import invoke
from depthbench.suites.step_context import StepContext


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
            picture.save(tmp_path / "images" / split / f"{i}.jpg")
            depth = Image.fromarray(rng.integers(500, 9000, (64, 64)).astype(np.uint16))
            depth.save(tmp_path / "images" / split / f"{i}.png")
    return tmp_path / "images"


def test_curves_of_every_group(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    plot = tmp_path / "curves.png"
    options = f"--data folder --data-root {images} --size 64x64 --limit 3 --ratio 0.5 --round-to 8"
    command = ["sensitivity", "tst-t", *options.split()]
    assert invoke([*command, "--json", "--plot", str(plot)]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "points of the scan: 100%" in captured.err
    with Image.open(plot) as drawn:
        assert drawn.size[0] > 500
    assert (found["model"], found["data"], found["images"], found["size"]) == ("tst-t", "folder", 3, "64x64")
    assert found["protocol"] == "native"
    assert set(found["whole"]["score"]) == {"delta1", "rmse_m", "abs_rel"}
    points = [point for curve in found["groups"].values() for point in curve]
    assert len(points) > 10
    assert all(0 < point["ratio"] < 1 and point["macs"] < found["whole"]["macs"] for point in points)
    assert len({point["score"]["rmse_m"] for point in points}) > 5

    monkeypatch.setattr(StepContext, "score", None)  # what was measured comes from the store
    assert invoke([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert invoke(command) == 0
    table = capsys.readouterr().out
    assert "tst-t on 3 calibration images of folder (native) at 64x64" in table
    whole, first = found["whole"]["score"]["rmse_m"], min(points, key=lambda point: point["score"]["rmse_m"])
    assert f"RMSE {whole:.3f} m" in table
    assert f"{first['score']['rmse_m']:.3f}" in table


def test_depth_scale_and_broken_images_reach_the_scan(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "small_net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1), nn.Softplus())\n"
    )
    place = ["--data", "folder", "--data-root", str(images), "--size", "64x64"]
    command = ["sensitivity", "small_net:net", *place, "--limit", "2", "--ratio", "0.5", "--json"]

    def whole(*more: str) -> float:
        assert invoke([*command, *more]) == 0
        score: float = json.loads(capsys.readouterr().out)["whole"]["score"]["rmse_m"]
        return score

    assert whole("--depth-scale", "500") != whole()
    (images / "train" / "0.png").write_bytes(b"no picture")
    assert invoke(command) == 2
    assert "0.png: not an image" in capsys.readouterr().err
    assert whole("--skip-broken", "1") > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tst-t", "--ratio", "1.5"], "depthbench: --ratio 1.5 is not in (0, 1)"),
        (
            ["tst-t", "--importance", "taylr"],
            "depthbench: prune: importance: unknown choice 'taylr'; did you mean taylor? "
            "(choices: bn, l1, l2, lamp, random, taylor)",
        ),
        (["tst-t", "--data", "romms"], "depthbench: unknown data set 'romms'; did you mean rooms?"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["sensitivity", *arguments]) == 2
    assert capsys.readouterr().err.strip().startswith(message)
