"""Recipes as data: what is read, what is refused with which words, and what decides their outcome."""

from __future__ import annotations

from typing import Any

import pytest

from depthbench.compression.precisions import PRECISIONS, resolved_options
from depthbench.compression.recipes import RECIPES, Recipe, Step, parse_recipe, recipe_faults

WHOLE: dict[str, Any] = {
    "summary": "half pruned, mixed",
    "steps": [{"prune": {"macs_ratio": 0.5}}, {"finetune": None}],
    "precision": {"cpu": "int8-mixed", "board": "int8-trt"},
    "options": {"int8-mixed": {"tolerance": 0.02}},
}


def test_a_whole_recipe() -> None:
    recipe = parse_recipe("mine", WHOLE)
    assert recipe == Recipe(
        "mine",
        "half pruned, mixed",
        {"cpu": "int8-mixed", "board": "int8-trt"},
        (Step("prune", {"macs_ratio": 0.5}), Step("finetune", {})),
        {"int8-mixed": {"tolerance": 0.02}},
    )
    assert recipe.precision_options("int8-mixed")["tolerance"] == 0.02
    assert recipe.precision_options("int8-mixed")["min_sqnr_db"] == 20.0
    assert parse_recipe("least", {"precision": {"cpu": "fp32"}}).steps == ()


FAULTS: list[tuple[Any, list[str]]] = [
    (3, ["recipe: a recipe is a mapping with the keys summary, steps, precision, options (got 3)"]),
    (
        {"precison": {"cpu": "int8"}},
        [
            "precison: unknown key 'precison'; did you mean precision? (choices: options, precision, steps, summary)",
            "precision: this key is required",
        ],
    ),
    ({"precision": {"cpu": "int8"}, "summary": 3}, ["summary: a line of text is expected (got 3)"]),
    (
        {"precision": {"cpu": "int9", "gpu": "fp16"}},
        [
            f"precision.cpu: unknown precision 'int9'; did you mean int8? (choices: {', '.join(sorted(PRECISIONS))})",
            "precision.gpu: unknown kind of target 'gpu'; did you mean cpu? (choices: board, cpu, cuda)",
        ],
    ),
    (
        {"precision": {"cpu": []}},
        [f"precision.cpu: unknown precision '[]' (choices: {', '.join(sorted(PRECISIONS))})"],
    ),
    (
        {"precision": []},
        ["precision: kinds of target and their precision are expected, for example {cpu: int8} (got [])"],
    ),
    (
        {"precision": {"cpu": "fp32"}, "steps": [{"prun": {}}, "prune", {"prune": {"macs_ratio": 1.4}}]},
        [
            "steps[0]: unknown step 'prun'; did you mean prune? (choices: finetune, prune)",
            "steps[1]: a step is one name with its options, for example {prune: {macs_ratio: 0.5}} (got 'prune')",
            "steps[2].prune.macs_ratio: 1.4 is not in (0, 1)",
        ],
    ),
    ({"precision": {"cpu": "fp32"}, "steps": "prune"}, ["steps: a list of steps is expected (got 'prune')"]),
    (
        {"precision": {"cpu": "int8"}, "options": {"int8": {"range": "mean", "ranges": "entropi", "symmetric": 1}}},
        [
            "options.int8.ranges: unknown value 'entropi'; did you mean entropy? (choices: entropy, mean, minmax, percentile)",
            "options.int8.symmetric: Input should be a valid boolean (got 1)",
            "options.int8.range: unknown option 'range'; did you mean ranges? "
            "(choices: everything, per_channel, ranges, symmetric)",
        ],
    ),
    (
        {"precision": {"cpu": "int8-mixed"}, "options": {"int8-mixed": {"tolerance": 0}, "int8": {}, "fp16": 3}},
        [
            "options.int8-mixed.tolerance: Input should be greater than 0 (got 0)",
            "options.int8: no target of this recipe has this precision (int8-mixed)",
            "options.fp16: no target of this recipe has this precision (int8-mixed)",
        ],
    ),
]


@pytest.mark.parametrize(("value", "faults"), FAULTS)
def test_faults_have_a_path_and_the_choices(value: Any, faults: list[str]) -> None:
    assert recipe_faults(value) == faults
    placed = [f"recipes.x.{fault}" for fault in faults]
    if not isinstance(value, dict):
        placed = [faults[0].replace("recipe", "recipes.x", 1)]
    assert recipe_faults(value, place="recipes.x") == placed
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        parse_recipe("x", value)
    assert str(error.value).splitlines() == [line.replace("recipes.x", "x", 1) for line in placed]


@pytest.mark.parametrize("name", ["", "Mine", "-a", "a b", "../a", "a" * 41])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="a recipe's name is up to 40 small letters"):
        parse_recipe(name, WHOLE)


def test_identity_holds_all_that_decides_a_file() -> None:
    plain = {"precision": {"cpu": "int8"}}
    identity = parse_recipe("a", plain).precision_identity("int8")
    assert identity == ["int8", PRECISIONS["int8"].version, resolved_options("int8", {}), {}]
    same = {**plain, "options": {"int8": {"ranges": "minmax"}}}  # the default, said
    assert parse_recipe("b", same).precision_identity("int8") == identity
    other = {**plain, "options": {"int8": {"ranges": "mean"}}}
    assert parse_recipe("c", other).precision_identity("int8") != identity
    assert RECIPES["int8-nncf"].precision_identity("int8-nncf")[3].keys() == {"nncf"}


def test_built_in_recipes() -> None:
    assert [name for name in RECIPES if name in ("fp32", "int8", "int8-full", "int8-nncf", "int8-mixed")] == [
        "fp32",
        "int8",
        "int8-full",
        "int8-nncf",
        "int8-mixed",
    ]
    assert all(recipe.name == name and recipe.summary for name, recipe in RECIPES.items())
    assert {precision for recipe in RECIPES.values() for precision in recipe.precision.values()} == set(PRECISIONS)
