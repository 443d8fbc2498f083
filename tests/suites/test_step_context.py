"""What a recipe's steps may ask of the suite, and recipes that prune, train and distil for real."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthbench.compression.options import prune_options
from depthbench.compression.prune import prune
from depthbench.compression.recipes import Recipe, Step
from depthbench.compression.shapes import head_count, state_digest
from depthbench.suites.compressing import check_steps, compress, network, step_faults
from depthbench.suites.data import open_dataset
from depthbench.suites.evaluate import evaluate_onnx
from depthbench.suites.export import export_onnx
from depthbench.suites.models import MODELS, build_model, resolve_model
from depthbench.suites.source import DataSource
from depthbench.suites.step_context import StepContext
from depthbench.suites.targets.predicted import predict
from depthbench.suites.training import loop as training
from depthbench.suites.training.state import Run

SIZE = (64, 96)
TRAINING: dict[str, Any] = {
    "samples": 4,
    "batch": 2,
    "stages": [{"share": 1.0, "sizes": ["64x96"]}],
    "mixture": {"folder": 1.0},
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six training pictures: bright is near."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 1)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for i in range(count):
            light = np.linspace(40, 220, 96)[None] * np.linspace(0.5, 1, 64)[:, None] + rng.normal(0, 5, (64, 96))
            rgb = np.clip(light, 0, 255).astype(np.uint8)
            Image.fromarray(np.dstack([rgb] * 3)).save(tmp_path / "images" / split / f"{i}.jpg", quality=95)
            depth = (6000 - 20 * light).astype(np.uint16)
            depth[:8] = 0
            Image.fromarray(depth).save(tmp_path / "images" / split / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "BATCH_NORM_SAMPLES", 4)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def parent() -> nn.Module:
    return build_model(resolve_model("tst-t"))


def context(images: Path, parent: nn.Module, folder: Path, **more: Any) -> StepContext:
    return StepContext(DataSource("folder", "native", images), parent, folder, images=5, **more)


def test_scores_are_those_of_the_evaluation(images: Path, parent: nn.Module, tmp_path: Path) -> None:
    scores = context(images, parent, tmp_path).score(parent, SIZE)
    path = export_onnx(parent, tmp_path / "model.onnx", SIZE)
    data = open_dataset("folder", "calibration", root=images, limit=5)
    summary = evaluate_onnx(path, data, "native").summary()
    assert scores == pytest.approx({name: summary[name] for name in ("delta1", "rmse_m", "abs_rel")}, abs=1e-4)


def test_gradients_of_one_batch_after_the_other(images: Path, parent: nn.Module, tmp_path: Path) -> None:
    before = state_digest(parent)
    seen = []
    for _ in context(images, parent, tmp_path).gradients(parent, SIZE):
        seen.append(torch.cat([p.grad.flatten() for p in parent.parameters() if p.grad is not None]))
    assert len(seen) == 2  # five images, four at a time
    assert all(torch.isfinite(gradient).all() and gradient.abs().sum() > 0 for gradient in seen)
    assert not torch.equal(seen[0], seen[1])
    assert state_digest(parent) == before  # eval mode: batch norms do not move


def test_norms_are_renewed_and_nothing_else(images: Path, parent: nn.Module, tmp_path: Path) -> None:
    before = copy.deepcopy(parent)
    context(images, parent, tmp_path).renew_norms(parent, SIZE)
    assert not parent.training
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), parent.parameters(), strict=True))
    assert state_digest(before) != state_digest(parent)
    momenta = {part.momentum for part in parent.modules() if isinstance(part, nn.BatchNorm2d)}
    assert momenta == {part.momentum for part in before.modules() if isinstance(part, nn.BatchNorm2d)}


def test_latency_is_the_prediction_of_the_boards_file(images: Path, parent: nn.Module, tmp_path: Path) -> None:
    path = export_onnx(parent, tmp_path / "model.onnx", SIZE, opset=13)
    told = context(images, parent, tmp_path).latency(parent, SIZE, "jetson-nano", "fp16")
    assert told == predict(path, "jetson-nano", "fp16").latency_ms


def test_values_are_kept_by_key_and_images(images: Path, parent: nn.Module, tmp_path: Path) -> None:
    numbers: Iterator[int] = iter(range(10))
    one = context(images, parent, tmp_path)
    assert [one.cached(["a", 1], lambda: next(numbers)) for _ in range(2)] == [0, 0]
    assert one.cached(["a", 2], lambda: next(numbers)) == 1
    assert context(images, parent, tmp_path).cached(["a", 1], lambda: next(numbers)) == 0
    fewer = StepContext(DataSource("folder", "native", images), parent, tmp_path, images=4)
    assert fewer.cached(["a", 1], lambda: next(numbers)) == 2


PASSES = Recipe(
    "passes",
    "",
    {"cpu": "fp32"},
    (
        Step(
            "prune",
            {
                "macs_ratio": 0.5,
                "round_to": 8,
                "size": list(SIZE),
                "heads": True,
                "importance": "taylor",
                "iterations": 2,
                "finetune": {"samples": 2},
            },
        ),
        Step("finetune", {"distill": {"weight": 0.3}}),
    ),
)


def test_passes_and_distillation_go_on_where_they_were_stopped(
    images: Path, parent: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(folder: str) -> StepContext:
        given = {key: value for key, value in TRAINING.items() if key != "samples"}
        return context(images, parent, tmp_path / folder, training=given)

    before = state_digest(parent)
    steps: list[int] = []
    advance = Run.advance

    def counted(run: Run, *rest: Any) -> None:
        steps.append(run.config.samples)
        if len(steps) == 2:
            raise KeyboardInterrupt
        advance(run, *rest)

    monkeypatch.setattr(Run, "advance", counted)
    with pytest.raises(KeyboardInterrupt):
        compress(parent, with_samples(PASSES, 4), config("broken"))
    assert steps == [2, 4]  # the training between the passes is done, the one after them has begun
    resumed, reports = compress(parent, with_samples(PASSES, 4), config("broken"))
    assert steps == [2, 4, 4, 4]
    whole, _ = compress(parent, with_samples(PASSES, 4), config("whole"))
    assert steps == [2, 4, 4, 4, 2, 4, 4]
    assert state_digest(resumed) == state_digest(whole)
    assert state_digest(parent) == before
    assert [report["step"] for report in reports] == ["prune", "finetune"]
    assert [entry["samples"] for entry in reports[0]["finetuned"]] == [2]
    assert reports[0]["macs_ratio_achieved"] == pytest.approx(0.5, abs=0.02)
    assert "off_grid" not in reports[0]
    assert reports[1]["distill"] == {"teacher": "parent", "weight": 0.3}


def with_samples(recipe: Recipe, samples: int) -> Recipe:
    """The recipe, its last training cut short."""
    *steps, last = recipe.steps
    return Recipe(recipe.name, "", recipe.precision, (*steps, Step(last.kind, {**last.options, "samples": samples})))


def test_a_network_that_lost_heads_comes_back_from_the_store(images: Path) -> None:
    spec = resolve_model("tst-t")
    options = {"macs_ratio": 0.6, "round_to": 8, "heads": True, "size": list(SIZE)}
    recipe = Recipe("headless", "", {"cpu": "fp32"}, (Step("prune", options),))
    source = DataSource("folder", "native", images)
    child, lineage, reports = network(spec, recipe, source)
    again, same, _ = network(spec, recipe, source)
    assert same == lineage
    [(name, (before, after))] = reports[0]["heads"].items()
    assert head_count(child.get_submodule(name)) == head_count(again.get_submodule(name)) == after < before
    made = StepContext(source, build_model(spec), images)
    direct, _ = prune(build_model(spec), prune_options(options), made)
    rgb = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(child(rgb), again(rgb))
        torch.testing.assert_close(child(rgb), direct(rgb), rtol=0, atol=0.05)  # kept in half precision


def test_a_child_trains_as_far_as_its_parent_sees(images: Path, parent: nn.Module, tmp_path: Path) -> None:
    far = MODELS["tst-t"].build(max_depth=80.0)
    assert context(images, far, tmp_path).config({}).max_depth == 80
    assert context(images, far, tmp_path).config({"max_depth": 20}).max_depth == 20
    assert context(images, nn.Sequential(far), tmp_path).config({}).max_depth == 10  # nothing says what bounds it
    assert context(images, parent, tmp_path).config({}).max_depth == 10
    farther = MODELS["tst-t"].build(max_depth=1000.0)  # depth is kept to 655 m, in crops to as much less
    assert context(images, farther, tmp_path).config({}).max_depth == 655
    assert context(images, farther, tmp_path).config({"augment": {"crop": 0.5}}).max_depth == 327.5
    of_a_user = tmp_path / "mine.yaml"
    of_a_user.write_text("finetune: {samples: 16}\n")
    assert replace(context(images, far, tmp_path), config_file=of_a_user).config({}).max_depth == 80
    of_a_user.write_text("train: {max_depth: 5}\n")
    assert replace(context(images, far, tmp_path), config_file=of_a_user).config({}).max_depth == 5


def test_all_that_is_wrong_with_steps_is_named_before_any_runs() -> None:
    recipe = Recipe(
        "wrong",
        "",
        {"cpu": "fp32"},
        (
            Step("prune", {"latency_ratio": 0.3, "board": "jetson-nono"}),
            Step("prune", {"macs_ratio": 0.3, "iterations": 2, "finetune": {"lr": -1}}),
            Step("finetune", {"epochs": 3}),
            Step("prune", {"macs_ratio": 2}),
        ),
    )
    board, between, training_key, ratio = step_faults(recipe)
    assert board.startswith("steps[0].prune.board: unknown board 'jetson-nono'; did you mean jetson-nano? (choices: ")
    assert between == "steps[1].prune.finetune.lr: Input should be greater than 0"
    assert training_key.startswith("steps[2].finetune.epochs: unknown key 'epochs'")
    assert ratio == "steps[3].prune.macs_ratio: 2 is not in (0, 1)"
    with pytest.raises(ValueError, match=r"^recipe wrong: steps\[0\]\.prune\.board: unknown board 'jetson-nono'"):
        check_steps(recipe)


def test_a_teacher_that_is_the_parent_needs_one() -> None:
    from depthbench.suites.training.config import load_config
    from depthbench.suites.training.loss import objective

    config = load_config("finetune", {"distill": {"teacher": "parent"}})
    with pytest.raises(
        ValueError, match=r"^distill\.teacher: parent is the unpruned network, which only a recipe that compresses has$"
    ):
        objective(config, nn.Conv2d(3, 1, 1))
    student, parent = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)
    aim = objective(config, student, parent)
    assert aim.teacher is not None
    assert aim.teacher.module is not parent
    assert not any(p.requires_grad for p in aim.teacher.module.parameters())
    assert all(p.requires_grad for p in parent.parameters())
