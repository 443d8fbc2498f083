"""What the names in a suite stand for: models, recipes, targets, data sets, and the trainings. Imports no torch.

The checks work on the tree as it was written and pass over what has another type than it should (pydantic reports that), so
that every fault of a file is found at once.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from depthbench.compression.recipes import RECIPES, parse_recipe, recipe_faults
from depthbench.suites.models import MODELS, ModelSpec, resolve_model
from depthbench.suites.names import unknown
from depthbench.suites.suitefile.faults import at
from depthbench.suites.suitefile.merge import inside
from depthbench.suites.suitefile.reading import Fault, Node, Place
from depthbench.suites.targets import BUILT_IN, TARGETS
from depthbench.suites.targets.boardfile import boards_path

MAX_CELLS = 100_000
"""Cells of a suite: more is a mistake, and would take a day to list."""

AXES = {"model": "models", "recipe": "recipes", "size": "sizes", "target": "targets", "data": "data"}
"""The keys of ``include`` and ``exclude``, and the lists of a block that they choose from."""


def name_faults(tree: Node, base: Path) -> list[Fault]:
    """Every fault of the names in a suite; files are looked for below ``base``."""
    return [at(tree, place, message) for place, message in _Names(tree.data(), base).faults()]


class _Names:
    """The names of one suite, each looked up once."""

    def __init__(self, suite: Mapping[str, Any], base: Path) -> None:
        self.suite = suite
        own = _mapping(suite.get("recipes"))
        self.recipes = {*RECIPES, *own}
        self.model = cache(lambda text: _model(text, base))
        self.base = base
        self.boards = _mapping(suite.get("boards"))
        self.targets = cache(self.target)
        self.entries: dict[str, Any] = {}
        self.cells = 0

    def faults(self) -> Iterator[tuple[Place, str]]:
        defaults = _mapping(self.suite.get("defaults"))
        if "matrix" in defaults:
            yield from self.block(_mapping(defaults["matrix"]), ("defaults", "matrix"))
        yield from _data_faults(self.suite.get("data"), ("data",))
        yield from self.own_recipes()
        yield from self.own_boards()
        for b, block in enumerate(_list(self.suite.get("matrix"))):
            yield from self.block(_mapping(block), ("matrix", b))
            yield from self.choices(_mapping(block), ("matrix", b))
        yield from self.one_spec_a_data_set()
        yield from self.training()

    def own_recipes(self) -> Iterator[tuple[Place, str]]:
        for name, value in _mapping(self.suite.get("recipes")).items():
            if name in RECIPES:
                yield ("recipes", name), f"{name} is a built-in recipe; give the suite's own another name"
            if isinstance(value, dict):
                for fault in recipe_faults(value) or _step_faults(name, value):
                    key, message = _split(fault)
                    yield ("recipes", name, *key), message
                for s, step in enumerate(_list(value.get("steps"))):
                    for kind, options in _mapping(step).items():
                        yield from self.teacher(_mapping(options), ("recipes", name, "steps", s, kind))

    def own_boards(self) -> Iterator[tuple[Place, str]]:
        """Boards of the suite that would hide another target, or that another one would hide."""
        for name in self.boards:
            if name in TARGETS and name not in BUILT_IN:  # a built-in one is refused with the name
                where = boards_path() if TARGETS[name].board else "an installed package"
                yield ("boards", name), f"{where} has a target of this name too; give the suite's own another name"

    def target(self, name: str) -> str | None:
        """What is wrong with the name of a target, None when nothing is."""
        return None if name in self.boards or name in TARGETS else unknown("target", name, {*TARGETS, *self.boards})

    def block(self, block: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
        for m, model in enumerate(_list(block.get("models"))):
            yield from self.entry(model, (*place, "models", m))
        for r, name in enumerate(_list(block.get("recipes"))):
            if isinstance(name, str) and name not in self.recipes:
                yield (*place, "recipes", r), unknown("recipe", name, self.recipes)
        for t, name in enumerate(_list(block.get("targets"))):
            if isinstance(name, str) and (fault := self.targets(name)):
                yield (*place, "targets", t), fault
        for d, choice in enumerate(_list(block.get("data"))):
            spec = {"name": choice} if isinstance(choice, str) else choice
            yield from _data_faults(spec, (*place, "data", d), given=isinstance(choice, str))

    def entry(self, model: Any, place: Place) -> Iterator[tuple[Place, str]]:
        entry = _mapping(model)
        name, at_model = (entry.get("model"), (*place, "model")) if entry else (model, place)
        if not isinstance(name, str):
            return
        spec = self.model(name)
        if isinstance(spec, str):
            yield at_model, spec
        elif entry:
            if spec.kind == "onnx":
                yield at_model, "an ONNX file cannot be trained"
            else:
                yield from _option_faults(name, _mapping(entry.get("options")), (*place, "options"))
        if entry and place[0] == "matrix" and isinstance(entry.get("name"), str):
            if self.entries.setdefault(entry["name"], entry) != entry:
                yield (*place, "name"), f"another entry has the name {entry['name']} already"
            elif entry["name"] in MODELS:
                yield (*place, "name"), f"{entry['name']} is a catalogue model; give what is trained here another name"

    def choices(self, block: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
        """Faults of ``exclude`` and ``include``, and a block that is beyond reason."""
        values: dict[str, Sequence[str]] = {axis: self.values(block, axis) for axis in AXES}
        chosen: list[dict[str, Sequence[str]]] = [values] + [
            {axis: _matching(values[axis], one.get(axis)) for axis in AXES}
            for one in map(_mapping, _list(block.get("include")))
        ]
        cells = sum(math.prod(max(1, len(found)) for found in one.values()) for one in chosen)
        self.cells += cells
        if self.cells > MAX_CELLS:
            yield place, f"{self.cells:,} cells up to here; a suite may have {MAX_CELLS:,}"
        for key in ("exclude", "include"):
            for c, choice in enumerate(_list(block.get(key))):
                here = (*place, key, c)
                if choice == {}:
                    yield here, f"no key is given; choose from {', '.join(AXES)}"
                for axis, wanted in _mapping(choice).items():
                    for pattern in [wanted] if isinstance(wanted, str) else _list(wanted):
                        if isinstance(pattern, str) and (
                            fault := self.choice(axis, pattern, values.get(axis, []), key == "include")
                        ):
                            yield (*here, axis), fault

    def choice(self, axis: str, pattern: str, values: Sequence[str], adds: bool) -> str | None:
        """What is wrong with one pattern of a choice of cells, None when nothing is."""
        if axis not in AXES or not values or any(fnmatch.fnmatchcase(value, pattern) for value in values):
            return None
        if not adds or set(pattern) & set("*?["):
            return unknown(axis, pattern, values) + "; no cell of the block has it"
        return self.stranger(axis, pattern)

    def stranger(self, axis: str, name: str) -> str | None:
        """What is wrong with a name that ``include`` brings into a block, None when nothing is."""
        if axis == "model":
            found = self.model(name)
            return found if isinstance(found, str) else None
        if axis == "recipe":
            return None if name in self.recipes else unknown("recipe", name, self.recipes)
        if axis == "target":
            return self.targets(name)
        if axis == "data":
            return next((message for _, message in _data_faults({"name": name}, ())), None)
        from depthbench.suites.suitefile.keys import parse_size

        try:
            parse_size(name)
        except ValueError as error:
            return str(error)
        return None

    def values(self, block: Mapping[str, Any], axis: str) -> list[str]:
        """The names that a block's list holds, entries by their name and by that of each seed."""
        if axis == "size" and "sizes" not in block:
            return ["224x224"]
        if axis == "data" and not block.get("data"):
            return [_mapping(self.suite.get("data")).get("name", "rooms")]
        found: list[str] = []
        seeds = _list(_mapping(self.suite.get("train")).get("seeds", [0]))
        for value in _list(block.get(AXES[axis])):
            name = _mapping(value).get("name") if isinstance(value, dict) else value
            if isinstance(name, str):
                found.append(name)
                if axis == "model" and isinstance(value, dict):
                    found += [f"{name}-seed{seed}" for seed in seeds]
        return found

    def one_spec_a_data_set(self) -> Iterator[tuple[Place, str]]:
        """A data set given twice with other splits, limits or protocols: its cells could not be told apart."""
        seen: dict[str, Any] = {}
        given: list[tuple[Place, Any]] = [(("data",), self.suite.get("data"))]
        for b, block in enumerate(_list(self.suite.get("matrix"))):
            given += [(("matrix", b, "data", d), one) for d, one in enumerate(_list(_mapping(block).get("data")))]
        for place, spec in given:
            if isinstance(spec, dict):
                name = spec.get("name", "rooms")
                if isinstance(name, str) and seen.setdefault(name, {**spec, "name": name}) != {**spec, "name": name}:
                    yield place, f"{name} is given twice in this suite, with another split, limit or protocol"

    def training(self) -> Iterator[tuple[Place, str]]:
        """Faults of the ``train`` section."""
        train = self.suite.get("train")
        if train is None:
            if self.entries:
                yield ("train",), f"this key is required to train {', '.join(self.entries)}"
            return
        if not self.entries:
            yield ("train",), "no entry of the matrix has a name and a model to train"
        recipe = dict(_mapping(_mapping(train).get("recipe")))
        for key in ("samples", "seed"):
            if recipe.pop(key, None) is not None:
                instead = "seeds" if key == "seed" else key
                yield ("train", "recipe", key), f"stands in train.{instead}, not in the recipe"
        from depthbench.suites.training.config import config_faults

        for fault in config_faults(recipe):
            key_path, message = _split(fault)
            yield ("train", "recipe", *key_path), message
        yield from self.teacher(recipe, ("train", "recipe"))

    def teacher(self, options: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
        """Faults of the teacher that a training learns from: a model with weights, or a weights file below the suite."""
        name = _mapping(options.get("distill")).get("teacher")
        if not isinstance(name, str) or name == "parent":
            return
        here = (*place, "distill", "teacher")
        if not name.endswith(".safetensors"):
            spec = self.model(name)
            if isinstance(spec, str):
                yield here, spec
            elif spec.kind == "onnx":
                yield here, "an ONNX file cannot teach"
            return
        try:
            path = inside(self.base, name)
        except ValueError as error:
            yield here, str(error)
            return
        if not path.is_file():
            yield here, f"{path}: no such weights file"


def _matching(values: Sequence[str], wanted: Any) -> Sequence[str]:
    """The values of an axis that ``include`` may stand for: all, or one for a name and those that match for a pattern."""
    if wanted is None:
        return values
    patterns = [one for one in ([wanted] if isinstance(wanted, str) else _list(wanted)) if isinstance(one, str)]
    return [value for one in patterns for value in fnmatch.filter(values, one) or [one]]


def _model(text: str, base: Path) -> ModelSpec | str:
    """A model, or what is wrong with its name."""
    try:
        if text.endswith(".onnx"):
            inside(base, text)
        spec = resolve_model(text, base)
        if spec.kind == "onnx" and spec.path is not None:
            from depthbench.suites.export import onnx_size

            onnx_size(spec.path)  # it can be read, and takes an image of one size
        return spec
    except ValueError as error:
        return str(error)


@cache
def _known_data(name: str) -> str | None:
    from depthbench.suites.data import DATASETS

    return None if name in DATASETS else unknown("data set", name, DATASETS)


@cache
def _known_protocol(name: str) -> str | None:
    from depthbench.suites.protocols import PROTOCOLS

    return None if name in PROTOCOLS else unknown("protocol", name, PROTOCOLS)


def _data_faults(value: Any, place: Place, *, given: bool = False) -> Iterator[tuple[Place, str]]:
    """``given``: the name alone stands at ``place``, without a mapping around it."""
    spec = _mapping(value)
    name, protocol = spec.get("name"), spec.get("protocol")
    if isinstance(name, str) and (fault := _known_data(name)):
        yield place if given else (*place, "name"), fault
    if isinstance(protocol, str) and (fault := _known_protocol(protocol)):
        yield (*place, "protocol"), fault
    if spec.get("depth_scale") is not None and name != "folder":
        yield (*place, "depth_scale"), "the layout of a data set fixes its depth scale; it can be given for folder only"


def _option_faults(model: str, options: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
    from depthbench.suites.variants import option_faults

    for fault in option_faults(model, options):
        key, _, message = fault.partition(": ")
        yield (*place, *([key.removeprefix(".")] if key else [])), message


def _step_faults(name: str, value: Mapping[str, Any]) -> list[str]:
    """Faults of a recipe's steps that the recipe alone does not know: boards, and the fields of a training."""
    from depthbench.suites.compressing import step_faults

    try:
        return step_faults(parse_recipe(name, value))
    except ValueError:  # its name is at fault, which is said elsewhere
        return []


def _split(fault: str) -> tuple[Place, str]:
    """``steps[0].prune.ratio: message`` as its path and its message; places in lists may also stand as ``.0``."""
    path, _, message = fault.partition(": ")
    if not message:
        return (), fault
    words = [word for word in path.replace("[", ".").replace("]", "").split(".") if word]
    return tuple(int(word) if word.isascii() and word.isdigit() else word for word in words), message


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
