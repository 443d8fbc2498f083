"""From a suite to its cells. Imports no torch.

A :class:`Job` is one cell: model × recipe × input size × target × data set. Its id is a hash of everything that can change
its result, so equal ids are never computed twice and a changed recipe, weight file or library makes a new cell.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from depthbench.compression.recipes import RECIPES, Recipe
from depthbench.suites.models import ModelSpec, resolve_model, weights_path
from depthbench.suites.names import lookup
from depthbench.suites.schema import Block, Suite
from depthbench.suites.targets import TARGETS, Target
from depthbench.suites.variants import trained_specs, training_digests

LIBRARIES = ("torch", "onnx", "onnxruntime", "torch-pruning")


def digest(value: Any) -> str:
    """First 20 hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change a result, this package's own included."""
    return {name: version(name) for name in ("depthbench", *LIBRARIES)}


@dataclass(frozen=True)
class Data:
    """The images of a run: data set, split, how many, the protocol, and the digest of their content."""

    name: str
    split: str
    n: int
    protocol: str
    digest: str


@dataclass(frozen=True)
class Job:
    """One cell of a run. ``skip`` says why it cannot run; its ``precision`` is then None unless it was known."""

    id: str
    model: ModelSpec
    recipe: Recipe
    size: tuple[int, int]
    target: Target
    data: Data
    measure_profile: str
    precision: str | None
    skip: str | None

    @property
    def label(self) -> str:
        """``model/recipe/HxW/target``, what ``--only`` is matched against."""
        return f"{self.model.name}/{self.recipe.name}/{self.size[0]}x{self.size[1]}/{self.target.name}"


def make_plan(
    suite: Suite,
    data: Data,
    *,
    base: Path | None = None,
    only: Sequence[str] = (),
    roots: Mapping[str, Path] | None = None,
) -> list[Job]:
    """The cells of a suite in the order they are written, each once; with ``only``, those whose label matches a pattern.

    ``roots``: data set: its folder, in place of ``$DEPTHBENCH_DATA``, for a suite that trains. ``ValueError`` when the
    patterns leave nothing.
    """
    digests = training_digests(suite.train, roots or {}) if suite.train else {}
    probes = {name: TARGETS[name].probe() for block in suite.matrix for name in block.targets}
    versions = library_versions()
    jobs: dict[str, Job] = {}
    for block in suite.matrix:
        for model in _block_models(suite, block, base, digests):
            for recipe_name in block.recipes:
                for size in block.sizes:
                    for target_name in block.targets:
                        job = make_job(
                            model,
                            lookup("recipe", recipe_name, RECIPES),
                            size,
                            TARGETS[target_name],
                            data,
                            profile=suite.measure.profile,
                            unavailable=probes[target_name],
                            versions=versions,
                        )
                        jobs[job.id] = job
    chosen = [job for job in jobs.values() if _matches(job.label, only)]
    if not chosen:
        raise ValueError(
            f"--only {' '.join(only)}: no cell of suite {suite.name} matches (a label is model/recipe/HxW/target)"
        )
    return chosen


def _block_models(suite: Suite, block: Block, base: Path | None, digests: Mapping[str, str]) -> Iterator[ModelSpec]:
    """The models of a block; an entry that the suite trains is one model a seed."""
    for model in block.models:
        if isinstance(model, str):
            yield resolve_model(model, base)
        else:
            assert suite.train is not None  # the schema's check
            yield from trained_specs(model, suite.train, digests)


def make_job(
    model: ModelSpec,
    recipe: Recipe,
    size: tuple[int, int],
    target: Target,
    data: Data,
    *,
    profile: str,
    unavailable: str | None,
    versions: dict[str, str],
) -> Job:
    """One cell, its precision resolved for the target's kind and any reason to skip it."""
    precision = recipe.precision.get(target.kind)
    skip = unavailable or _refusal(model, recipe, target, precision)
    identity = {
        "model": [model.name, model.digest],
        "recipe": [recipe.name, recipe_identity(model, recipe)],
        "size": size,
        "target": target.name,
        "precision": precision,
        "data": asdict(data),
        "profile": profile if target.how == "measured" else None,
        "versions": versions,
        "skip": skip,
    }
    return Job(digest(identity), model, recipe, size, target, data, profile, precision, skip)


def recipe_identity(model: ModelSpec, recipe: Recipe) -> Any:
    """What decides the outcome of a recipe's steps: their options, and the shipped child's weights where there are any."""
    steps = [[step.kind, dict(step.options)] for step in recipe.steps]
    child = shipped_child(model, recipe)
    return [steps, hashlib.sha256(child.read_bytes()).hexdigest() if child else None]


def shipped_child(model: ModelSpec, recipe: Recipe) -> Path | None:
    """The shipped weights of a catalogue model after a recipe's steps: those of the first recipe with equal steps."""
    if not recipe.steps or model.kind != "catalogue" or model.path != weights_path(model.name):
        return None
    for other in RECIPES.values():
        path = weights_path(model.name, other.name)
        if other.steps == recipe.steps and path.is_file():
            return path
    return None


def _refusal(model: ModelSpec, recipe: Recipe, target: Target, precision: str | None) -> str | None:
    if precision is None:
        kinds = ", ".join(recipe.precision)
        instead = sorted(r.name for r in RECIPES.values() if r.steps == recipe.steps and target.kind in r.precision)
        return f"recipe {recipe.name} is for {kinds}, not for {target.kind}; use {' or '.join(instead)}"
    if model.kind == "onnx" and recipe.steps:
        return f"recipe {recipe.name} changes the network, which an ONNX file does not allow"
    if precision in target.refuses:
        return f"{target.name}: {target.refuses[precision]}"
    return None


def _matches(label: str, only: Iterable[str]) -> bool:
    patterns = list(only)
    return not patterns or any(fnmatch.fnmatchcase(label, p) or fnmatch.fnmatchcase(label, f"*{p}*") for p in patterns)
