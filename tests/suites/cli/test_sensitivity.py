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
