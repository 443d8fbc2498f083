"""What a precision step may ask of the suite, and files of shipped networks made by recipes with options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthbench.compression import precisions
from depthbench.compression.executed import executed
from depthbench.compression.recipes import RECIPES, Recipe, parse_recipe
from depthbench.suites.data import open_dataset
from depthbench.suites.evaluate import evaluate_onnx, open_session
from depthbench.suites.file_context import FileContext
from depthbench.suites.models import resolve_model
from depthbench.suites.plan import Data, make_plan
from depthbench.suites.schema import load_suite
from depthbench.suites.source import DataSource
from depthbench.suites.stages import ArtefactSpec, artefact

SIZE = (64, 96)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSource:
    """Six training pictures: bright is near."""
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 1)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for i in range(count):
            light = np.linspace(40, 220, 96)[None] * np.linspace(0.5, 1, 64)[:, None] + rng.normal(0, 20, (64, 96))
            Image.fromarray(np.dstack([np.clip(light, 0, 255).astype(np.uint8)] * 3)).save(
                tmp_path / "images" / split / f"{i}.jpg"
            )
            Image.fromarray((6000 - 20 * light).astype(np.uint16)).save(tmp_path / "images" / split / f"{i}.png")
    return DataSource("folder", "native", tmp_path / "images")


@pytest.fixture
def spec(source: DataSource) -> Callable[[Recipe], ArtefactSpec]:
    images = open_dataset("folder", "calibration", root=source.root)
    model = resolve_model("tst-t")
    return lambda recipe: ArtefactSpec(model, recipe, SIZE, recipe.precision["cpu"], 17, source, images.digest)


def test_scores_are_those_of_an_evaluation(source: DataSource, spec: Callable[[Recipe], ArtefactSpec]) -> None:
    path = artefact(spec(RECIPES["fp32"])).path
    context = FileContext(source, SIZE, "digest")
    images = open_dataset("folder", "calibration", root=source.root)
    whole = evaluate_onnx(path, images, "native", size=SIZE).summary()
    assert context.score(path) == pytest.approx({name: whole[name] for name in ("delta1", "rmse_m", "abs_rel")})
    one, other = context.score(open_session(path), [0])["rmse_m"], context.score(path, [1])["rmse_m"]
    assert context.score(path, [0, 1])["rmse_m"] == pytest.approx((one + other) / 2)
    assert len(context.calibration()) == len(images) == 6


def test_values_are_kept_by_images_and_size(source: DataSource) -> None:
    made: list[int] = []

    def build() -> int:
        made.append(len(made))
        return made[-1]

    context = FileContext(source, SIZE, "digest")
    assert [context.cached(["a", 1], build), context.cached(["a", 1], build), context.cached(["a", 2], build)] == [
        0,
        0,
        1,
    ]
    assert FileContext(source, SIZE, "digest").cached(["a", 1], build) == 0
    assert FileContext(source, SIZE, "other").cached(["a", 1], build) == 2
    assert FileContext(source, (96, 64), "digest").cached(["a", 1], build) == 3


def test_options_and_versions_are_a_part_of_the_key(
    spec: Callable[[Recipe], ArtefactSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe("mine", {"precision": {"cpu": "int8"}})
    same = parse_recipe("mine", {"precision": {"cpu": "int8"}, "options": {"int8": {"per_channel": True}}})
    other = parse_recipe("mine", {"precision": {"cpu": "int8"}, "options": {"int8": {"per_channel": False}}})
    key = spec(recipe).key
    assert spec(same).key == key != spec(other).key
    newer = {**precisions.PRECISIONS, "int8": replace(precisions.PRECISIONS["int8"], version=99)}
    monkeypatch.setattr("depthbench.compression.recipes.PRECISIONS", newer)
    assert spec(recipe).key != key


def test_a_shipped_network_in_every_form(spec: Callable[[Recipe], ArtefactSpec]) -> None:
    for name, share, db in (("int8-full", 0.9, 5), ("int8-mixed", 0.3, 20), ("int8-weights", 0.0, 20)):
        made = artefact(spec(RECIPES[name]))
        [report] = made.reports
        assert report["step"] == made.precision == made.lineage[-1].stage
        assert report["int8_macs_share"] == round(executed(made.path).int8_share, 4) >= share
        assert report["sqnr_db"] >= db
    assert made.lineage[-1].options["per_channel"] is True
    mixed = artefact(spec(RECIPES["int8-mixed"]))
    assert mixed.reports[0]["delta1_loss"] <= 0.01


def test_the_study_is_what_it_promises() -> None:
    cells = make_plan(load_suite("compression")[0], Data("rooms", "test", 8, "native", "digest"))
    assert all(job.skip is None for job in cells)
    assert {job.model.family for job in cells} == {"tst", "fastdepth", "mobilevit"}
    forms = {(_ratio(job.recipe), job.precision) for job in cells if not _random(job.recipe)}
    assert forms == {(r, p) for r in (0, 0.15, 0.3, 0.5, 0.7) for p in ("fp32", "int8", "int8-nncf", "int8-mixed")}
    assert {_ratio(job.recipe) for job in cells if _random(job.recipe)} == {0.15, 0.3, 0.5, 0.7}
    assert len(cells) == 3 * (5 * 4 + 4)


def _ratio(recipe: Recipe) -> float:
    return recipe.steps[0].options["macs_ratio"] if recipe.steps else 0


def _random(recipe: Recipe) -> bool:
    return bool(recipe.steps) and recipe.steps[0].options.get("importance") == "random"
