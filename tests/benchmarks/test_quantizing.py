"""The study of INT8 of ``quantizing.py``, small: the same bounds on a few small pictures; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthbench.compression.recipes import RECIPES
from depthbench.suites.data import open_dataset
from depthbench.suites.models import resolve_model
from depthbench.suites.source import DataSource
from tests.benchmarks import quantizing

SIZE = (64, 96)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSource:
    """Six training and three test pictures: bright is near."""
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        folder = tmp_path / "images" / split
        folder.mkdir(parents=True)
        for i in range(count):
            light = np.linspace(40, 220, 96)[None] * np.linspace(0.5, 1, 64)[:, None] + rng.normal(0, 20, (64, 96))
            grey = np.clip(light, 0, 255).astype(np.uint8)
            Image.fromarray(np.dstack([grey] * 3)).save(folder / f"{i}.jpg")
            Image.fromarray((6000 - 20 * light).astype(np.uint16)).save(folder / f"{i}.png")
    return DataSource("folder", "native", tmp_path / "images")


def test_forms_execute_in_int8_what_they_say(source: DataSource) -> None:
    data = open_dataset("folder", "test", root=source.root)
    forms = list(quantizing.forms("tst-t", source, data, SIZE, recipes=("int8-full", "int8")))
    assert [form.recipe for form in forms] == ["int8-full", "int8"]
    whole, part = forms
    assert whole.holds, quantizing.line(whole)
    assert whole.int8_convolutions == whole.convolutions
    assert part.int8_macs_share < whole.int8_macs_share
    assert part.sqnr_db > whole.sqnr_db
    assert [form.accuracy.images for form in forms] == [3, 3]
    assert quantizing.line(whole).startswith("tst-t int8-full: ")


@pytest.mark.parametrize(
    ("recipe", "share", "db", "delta1", "holds"),
    [
        ("int8", 0.1, 5.0, 0.3, True),  # nothing is claimed of it
        ("int8-full", 0.9, 5.0, 0.3, True),
        ("int8-nncf", 0.89, 30.0, 0.5, False),
        ("int8-mixed", 0.1, 20.0, 0.491, True),
        ("int8-mixed", 1.0, 19.9, 0.5, False),
        ("int8-mixed", 1.0, 30.0, 0.489, False),
    ],
)
def test_the_bounds_of_a_form(recipe: str, share: float, db: float, delta1: float, holds: bool) -> None:
    accuracy = quantizing.Accuracy(3, delta1, 0.5, 0.7, 0.7, 0.0, (-0.1, 0.1))
    assert quantizing.Form("tst-t", recipe, share, 9, 9, db, accuracy).holds == holds


def test_every_claim_is_of_a_model_with_weights_and_a_recipe_for_this_cpu() -> None:
    assert [(claim.model, claim.faster) for claim in quantizing.CLAIMS] == [
        ("tst-s", 1.5),
        ("fastdepth", 1.8),
        ("fastdepth", 2.2),
    ]
    for claim in quantizing.CLAIMS:
        assert resolve_model(claim.model).path is not None
        assert RECIPES[claim.recipe].precision["cpu"] == "int8"
