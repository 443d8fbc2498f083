"""The cells of a block of a suite's matrix: every combination, less ``exclude``, plus ``include``. Imports no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from depthbench.compression.recipes import Recipe
from depthbench.suites.data import Access
from depthbench.suites.models import ModelSpec, resolve_model
from depthbench.suites.names import lookup
from depthbench.suites.schema import Block, Cells, DataSpec, ModelEntry, Suite, parse_size, suite_recipes
from depthbench.suites.targets import TARGETS, Target, board_target
from depthbench.suites.variants import trained_specs, training_digests


@dataclass(frozen=True)
class Cell:
    """One combination of a block, before its recipe, target and images are looked up."""

    model: ModelSpec
    recipe: str
    size: tuple[int, int]
    target: str
    data: str


class Lookups:
    """What the names of one suite stand for, each looked up, read and probed once."""

    def __init__(self, suite: Suite, base: Path | None, access: Mapping[str, Access]) -> None:
        self.suite = suite
        self.base = base
        self.access = access
        self._models: dict[str, ModelSpec] = {}
        self._targets: dict[str, Target] = {}
        self._reasons: dict[str, str | None] = {}

    @cached_property
    def recipes(self) -> Mapping[str, Recipe]:
        """The recipes that the suite may name."""
        return suite_recipes(self.suite)

    @cached_property
    def boards(self) -> Mapping[str, Target]:
        """The suite's own boards, as targets."""
        return {name: board_target(name, entry, of_suite=True) for name, entry in self.suite.boards.items()}

    @cached_property
    def trained_by(self) -> dict[str, str]:
        """Digests of what the suite's trainings read."""
        return training_digests(self.suite.train, self.access, self.base) if self.suite.train else {}

    def recipe(self, name: str) -> Recipe:
        """A recipe by name."""
        return lookup("recipe", name, self.recipes)

    def model(self, name: str) -> ModelSpec:
        """A model by its words."""
        if name not in self._models:
            self._models[name] = resolve_model(name, self.base)
        return self._models[name]

    def entry(self, entry: ModelEntry) -> list[ModelSpec]:
        """What an entry that the suite trains stands for, one a seed."""
        assert self.suite.train is not None  # the schema's check
        return trained_specs(entry, self.suite.train, self.trained_by, self.base)

    def target(self, name: str) -> Target:
        """A target by name."""
        if name not in self._targets:
            self._targets[name] = self.boards.get(name) or lookup("target", name, TARGETS)
        return self._targets[name]

    def unavailable(self, name: str) -> str | None:
        """Why a target cannot be used here, or None."""
        if name not in self._reasons:
            self._reasons[name] = self.target(name).probe()
        return self._reasons[name]


_Axis = list[tuple[Any, set[str]]]
"""The values of one axis of a block, each with the names by which it may be chosen."""


def block_cells(suite: Suite, block: Block, lookups: Lookups) -> Iterator[Cell]:
    """The cells of a block in the order in which they are written, those of ``include`` last."""
    axes = _axes(suite, block, lookups)
    excluded = [
        [_chosen(axis, names) for axis, names in zip(axes, _patterns(one), strict=True)] for one in block.exclude
    ]
    for places in product(*(range(len(axis)) for axis in axes)):
        if not any(all(place in chosen for place, chosen in zip(places, one, strict=True)) for one in excluded):
            yield Cell(*(axis[place][0] for axis, place in zip(axes, places, strict=True)))
    for one in block.include:
        values = [
            _named(axis, names, i, lookups) for i, (axis, names) in enumerate(zip(axes, _patterns(one), strict=True))
        ]
        for combination in product(*values):
            yield Cell(*combination)


def _axes(suite: Suite, block: Block, lookups: Lookups) -> tuple[_Axis, ...]:
    models: _Axis = []
    for model in block.models:
        if isinstance(model, str):
            spec = lookups.model(model)
            models.append((spec, {model, spec.name}))
        else:
            models += [(spec, {model.name, spec.name}) for spec in lookups.entry(model)]
    data = [choice.name if isinstance(choice, DataSpec) else choice for choice in block.data or (suite.data,)]
    return (
        models,
        [(name, {name}) for name in block.recipes],
        [(size, {f"{size[0]}x{size[1]}"}) for size in block.sizes],
        [(name, {name}) for name in block.targets],
        [(name, {name}) for name in data],
    )


def _patterns(choice: Cells) -> tuple[Sequence[str] | None, ...]:
    return choice.model, choice.recipe, choice.size, choice.target, choice.data


def _chosen(axis: _Axis, patterns: Sequence[str] | None) -> set[int]:
    """Places of the values that any of the patterns names; all of them without patterns."""
    return {
        place
        for place, (_, names) in enumerate(axis)
        if patterns is None or any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
    }


def _named(axis: _Axis, patterns: Sequence[str] | None, number: int, lookups: Lookups) -> list[Any]:
    """The values that ``include`` names: those of the axis that match, and what a name stands for that matches none."""
    values = [axis[place][0] for place in sorted(_chosen(axis, patterns))]
    for pattern in patterns or ():
        if not _chosen(axis, [pattern]):
            values.append(lookups.model(pattern) if number == 0 else parse_size(pattern) if number == 2 else pattern)
    return values
