"""Recipes: what is done to a network before it is deployed, as data.

A recipe is an ordered list of steps on the network (prune, fine-tune) and, for each kind of target, the precision of the
file that is deployed there, with the options of that precision. It is written as a mapping, here and in a suite alike::

    prune50-mixed:
      summary: half of the MACs pruned away, then mixed precision
      steps: [{prune: {macs_ratio: 0.5}}, {finetune: {}}]
      precision: {cpu: int8-mixed, board: int8-trt}
      options: {int8-mixed: {tolerance: 0.02}}

and validated before anything runs. This module imports nothing heavy; the steps are carried out by
:mod:`depthbench.compression.steps`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from depthbench.compression.options import STEP_OPTIONS, step_faults, unknown
from depthbench.compression.precisions import PRECISIONS, option_faults, resolved_options

TARGET_KINDS = ("cpu", "cuda", "board")
KEYS = ("summary", "steps", "precision", "options")


@dataclass(frozen=True)
class Step:
    """One step of a recipe: the name of an entry of ``STEPS`` and its options."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A named list of steps, the precision deployed per kind of target, and the options of each precision.

    A kind of target that is left out cannot run the recipe.
    """

    name: str
    summary: str
    precision: Mapping[str, str]
    steps: tuple[Step, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def precision_options(self, precision: str) -> dict[str, Any]:
        """All options with which this recipe makes a file in a precision, those left out at their defaults."""
        return resolved_options(precision, self.options.get(precision, {}))

    def precision_identity(self, precision: str) -> list[Any]:
        """What decides the outcome of a precision step beside the file it starts from: a JSON value."""
        entry = PRECISIONS[precision]
        library = {entry.library: version(entry.library)} if entry.library else {}
        return [precision, entry.version, self.precision_options(precision), library]


def parse_recipe(name: str, value: Any) -> Recipe:
    """A recipe from its mapping; ``ValueError`` with a line a fault, each beginning with the recipe's name."""
    faults = recipe_faults(value, place=name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
        faults.insert(0, f"{name}: a recipe's name is up to 40 small letters, digits, - and _, a letter or digit first")
    if faults:
        raise ValueError("\n".join(faults))
    steps = tuple(
        Step(kind, dict(options or {})) for step in value.get("steps") or () for kind, options in step.items()
    )
    options = {precision: dict(chosen or {}) for precision, chosen in (value.get("options") or {}).items()}
    return Recipe(name, value.get("summary") or "", dict(value["precision"]), steps, options)


def recipe_faults(value: Any, *, place: str = "") -> list[str]:
    """Everything that is wrong with a recipe's mapping, each ``key.path: message``; empty when nothing is.

    ``place``: the path to the mapping itself, put before every key.
    """
    if not isinstance(value, Mapping):
        return [f"{place or 'recipe'}: a recipe is a mapping with the keys {', '.join(KEYS)} (got {value!r:.80})"]
    dot = f"{place}." if place else ""
    return [f"{dot}{fault}" for fault in _faults(value)]


def _faults(value: Mapping[Any, Any]) -> Iterator[str]:
    for key in value:
        if key not in KEYS:
            yield f"{key}: {unknown('key', str(key), KEYS)}"
    if not isinstance(value.get("summary") or "", str):
        yield f"summary: a line of text is expected (got {value['summary']!r:.80})"
    steps = value.get("steps") or []
    if isinstance(steps, list | tuple):
        for i, step in enumerate(steps):
            yield from _step_faults(f"steps[{i}]", step)
    else:
        yield f"steps: a list of steps is expected (got {steps!r:.80})"
    yield from _precision_faults(value)


def _step_faults(place: str, step: Any) -> Iterator[str]:
    if not isinstance(step, Mapping) or len(step) != 1:
        yield f"{place}: a step is one name with its options, for example {{prune: {{macs_ratio: 0.5}}}} (got {step!r:.80})"
        return
    [(kind, options)] = step.items()
    if kind not in STEP_OPTIONS:
        yield f"{place}: {unknown('step', str(kind), STEP_OPTIONS)}"
        return
    for fault in step_faults(kind, {} if options is None else options):
        keyed = re.match(r"[\w.]+: ", fault)
        yield f"{place}.{kind}{'.' if keyed else ': '}{fault}"


def _precision_faults(value: Mapping[Any, Any]) -> Iterator[str]:
    precision = value.get("precision")
    if precision is None:
        yield "precision: this key is required"
        return
    if not isinstance(precision, Mapping) or not precision:
        yield f"precision: kinds of target and their precision are expected, for example {{cpu: int8}} (got {precision!r:.80})"
        return
    for kind, name in precision.items():
        if kind not in TARGET_KINDS:
            yield f"precision.{kind}: {unknown('kind of target', str(kind), TARGET_KINDS)}"
        if not isinstance(name, str) or name not in PRECISIONS:
            yield f"precision.{kind}: {unknown('precision', str(name), PRECISIONS)}"
    options = value.get("options") or {}
    if not isinstance(options, Mapping):
        yield f"options: precisions and their options are expected (got {options!r:.80})"
        return
    for name, chosen in options.items():
        if name not in precision.values():
            yield f"options.{name}: no target of this recipe has this precision ({', '.join(map(str, precision.values()))})"
        elif name in PRECISIONS:
            yield from (f"options.{name}.{fault}" for fault in option_faults(name, chosen or {}))


_PRUNE30 = [{"prune": {"macs_ratio": 0.30, "round_to": 16}}, {"finetune": {}}]
_PRUNE50 = [{"prune": {"macs_ratio": 0.50, "round_to": 16}}, {"finetune": {}}]
_FLOAT = {"cpu": "fp32", "cuda": "fp16", "board": "fp16"}
_INT8 = {"cpu": "int8", "board": "int8-trt"}

_BUILT_IN: Mapping[str, Any] = {
    "fp32": {"summary": "the trained network as it is", "precision": {"cpu": "fp32", "cuda": "fp32"}},
    "fp16": {"summary": "half precision, for boards and GPUs", "precision": {"cuda": "fp16", "board": "fp16"}},
    "int8": {"summary": "static INT8 for ONNX Runtime on a CPU, the fastest form", "precision": {"cpu": "int8"}},
    "int8-trt": {"summary": "static symmetric INT8 for TensorRT on boards", "precision": {"board": "int8-trt"}},
    "int8-full": {
        "summary": "static INT8 of every convolution and matrix product",
        "precision": {"cpu": "int8"},
        "options": {"int8": {"everything": True}},
    },
    "int8-nncf": {"summary": "static INT8 by NNCF's post-training quantization", "precision": {"cpu": "int8-nncf"}},
    "int8-mixed": {
        "summary": "INT8 but for the operators that hurt most: at least 20 dB, delta1 at most 0.01 lower",
        "precision": {"cpu": "int8-mixed"},
    },
    "int8-dynamic": {"summary": "int8 weights, activations quantized on the way", "precision": {"cpu": "int8-dynamic"}},
    "int8-weights": {
        "summary": "int8 weights alone, as a control: smaller, no faster",
        "precision": {"cpu": "int8-weights"},
    },
    "prune30": {"summary": "30 % of the MACs pruned away, fine-tuned", "steps": _PRUNE30, "precision": _FLOAT},
    "prune30-int8": {"summary": "prune30, then static INT8", "steps": _PRUNE30, "precision": _INT8},
    "prune50": {"summary": "50 % of the MACs pruned away, fine-tuned", "steps": _PRUNE50, "precision": _FLOAT},
    "prune50-int8": {"summary": "prune50, then static INT8", "steps": _PRUNE50, "precision": _INT8},
}

RECIPES: Mapping[str, Recipe] = MappingProxyType({name: parse_recipe(name, value) for name, value in _BUILT_IN.items()})
"""The built-in recipes, by name."""
