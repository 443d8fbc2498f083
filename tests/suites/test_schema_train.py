"""Suites that train: every fault of the entries and of the training is one line with the path to the key."""

from __future__ import annotations

import re

import pytest

from depthbench.suites.plan import Data, make_plan
from depthbench.suites.schema import load_suite, parse_suite

DATA = Data("rooms", "test", 256, "native", "digest")
GOOD = """
name: mine
train: {samples: 100, seeds: [0, 1], recipe: {mixture: {rooms: 1}, lr: 0.003}}
matrix:
  - models:
      - tst-t
      - {name: full, model: tst-t}
      - {name: few, model: tst-t, options: {grid: 2, depths: [1, 1, 2, 1]}}
    recipes: [fp32]
    targets: [desktop-cpu]
"""


def test_a_suite_that_trains() -> None:
    suite = parse_suite(GOOD, "mine.yaml")
    assert suite.train is not None
    assert suite.train.seeds == (0, 1)
    shipped, full, few = suite.matrix[0].models
    assert shipped == "tst-t"
    assert not isinstance(full, str)
    assert full.options == {}
    assert not isinstance(few, str)
    assert few.options == {"grid": 2, "depths": [1, 1, 2, 1]}
    jobs = make_plan(suite, DATA)
    assert [job.model.name for job in jobs] == ["tst-t", "full-seed0", "full-seed1", "few-seed0", "few-seed1"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "{grid: 2",
            "{gird: 2",
            "matrix[0].models[2].options.gird: unknown option 'gird'; did you mean grid? (choices: ",
        ),
        ("grid: 2", "grid: two", "matrix[0].models[2].options.grid: Input should be a valid integer (got 'two')"),
        ("grid: 2", "fusion: 0", "matrix[0].models[2].options.fusion: Input should be a valid boolean (got 0)"),
        ("grid: 2", "heads: 5", "matrix[0].models[2].options: dim is 128: it must be a multiple of heads, which is 5"),
        ("few, model: tst-t", "few, model: fastdepth", "matrix[0].models[2].options: fastdepth has no options"),
        (
            "few, model: tst-t",
            "few, model: tst-x",
            "matrix[0].models[2].model: unknown model 'tst-x'; did you mean tst-",
        ),
        ("name: few, model: tst-t", "name: few", "matrix[0].models[2].model: this key is required"),
        ("name: few", "name: full", "matrix[0].models[2].name: another entry has the name full already"),
        (
            "name: few",
            "name: tst-s",
            "matrix[0].models[2].name: tst-s is a catalogue model; give what is trained here another name",
        ),
        ("name: few", "name: a/b", "matrix[0].models[2].name: String should match pattern"),
        ("- tst-t", "- 7", "matrix[0].models[0]: Input should be a valid string (got 7)"),
        ("seeds", "seed", "train.seed: unknown key 'seed'; did you mean seeds? (choices: recipe, samples, seeds)"),
        ("[0, 1]", "[1, 1]", "train.seeds: a seed is given twice in 1, 1"),
        ("[0, 1]", "[]", "train.seeds: needs at least one entry"),
        ("samples: 100", "samples: 0", "train.samples: Input should be greater than or equal to 1 (got 0)"),
        ("lr: 0.003", "lr: -1", "train.recipe.lr: Input should be greater than 0"),
        ("lr: 0.003", "rl: 1", "train.recipe.rl: unknown key 'rl'; did you mean lr? (choices: accumulate, "),
        ("lr: 0.003", "seed: 3", "train.recipe.seed: stands in train.seeds, not in the recipe"),
        ("lr: 0.003", "samples: 3", "train.recipe.samples: stands in train.samples, not in the recipe"),
        (
            "train: {samples: 100, seeds: [0, 1], recipe: {mixture: {rooms: 1}, lr: 0.003}}",
            "",
            "train: this key is required",
        ),
    ],
)
def test_fault(old: str, new: str, line: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(ValueError, match=r"^mine\.yaml:\d+: ") as caught:
        parse_suite(text, "mine.yaml")
    [fault] = str(caught.value).splitlines()
    assert re.sub(r"^mine\.yaml:\d+: ", "", fault).startswith(line)


def test_a_misspelt_key_of_an_entry() -> None:
    with pytest.raises(ValueError, match=r"^mine\.yaml:\d+: ") as caught:
        parse_suite(GOOD.replace("name: few", "nmae: few"), "mine.yaml")
    place = "mine.yaml:8: matrix[0].models[2]"
    assert str(caught.value).splitlines() == [
        f"{place}.name: this key is required",
        f"{place}.nmae: unknown key 'nmae'; did you mean name? (choices: model, name, options)",
    ]


def test_a_training_without_anything_to_train() -> None:
    text = GOOD.replace("      - {name: full, model: tst-t}\n", "")
    text = text.replace("      - {name: few, model: tst-t, options: {grid: 2, depths: [1, 1, 2, 1]}}\n", "")
    with pytest.raises(
        ValueError, match=r"^mine.yaml:3: train: no entry of the matrix has a name and a model to train$"
    ):
        parse_suite(text, "mine.yaml")


def test_all_faults_at_once() -> None:
    text = GOOD.replace("grid: 2", "grdi: 2, fusion: 7").replace("lr: 0.003", "lr: -1, rl: 2")
    with pytest.raises(ValueError, match=r"^mine\.yaml:\d+: ") as caught:
        parse_suite(text, "mine.yaml")
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    options = "matrix[0].models[2].options"
    assert keys == ["train.recipe.lr", "train.recipe.rl", f"{options}.fusion", f"{options}.grdi"]


def test_the_ablation_suite_is_what_it_promises() -> None:
    suite = load_suite("ablation")[0]
    assert suite.train is not None
    assert suite.train.samples <= 10_000
    assert len(suite.train.seeds) >= 2
    for block in suite.matrix:
        changed = [{} if isinstance(model, str) else model.options for model in block.models]
        assert {} in changed
        flags = {name for options in changed for name, value in options.items() if value is False}
        assert flags == {"share_layers", "share_tokens", "fusion", "refinement", "edge_loss"}
        assert {options["grid"] for options in changed if "grid" in options} == {2, 7}
    jobs = make_plan(suite, DATA)
    assert {job.target.how for job in jobs} == {"measured", "predicted"}
    assert {job.skip for job in jobs} == {None}
    assert len(jobs) == 2 * 8 * 2
