"""From a suite to its cells. Imports no torch.

A :class:`Job` is one cell: model × recipe × input size × target × data set. Its id is a hash of everything that can change
its result, so equal ids are never computed twice and a changed recipe, weight file or library makes a new cell.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from depthbench.compression.recipes import RECIPES, Recipe
from depthbench.suites.cells import Lookups, block_cells
from depthbench.suites.data import Access
from depthbench.suites.models import ModelSpec, file_sha256, weights_path
from depthbench.suites.schema import Suite
from depthbench.suites.targets import Target

FORM = 3
"""Raised when the same network is exported, scored or reported on in another way: cells and files in the store are new."""

LIBRARIES = ("torch", "onnx", "onnxruntime", "torch-pruning")


def digest(value: Any) -> str:
    """First 20 hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


@cache
def _version(name: str) -> str:
    return version(name)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change a result, this package's own included."""
    return {name: _version(name) for name in ("depthbench", *LIBRARIES)}


@dataclass(frozen=True)
class Data:
    """The images of a run: data set, split, how many, the protocol, and the digest of their content.

    ``skipped``: so many broken ones among the first were left out.
    """

    name: str
    split: str
    n: int
    protocol: str
    digest: str
    skipped: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a result: all but ``skipped``, as the digest knows which images are left."""
        return {name: value for name, value in asdict(self).items() if name != "skipped"}


@dataclass(frozen=True)
class Job:
    """One cell of a run. ``skip`` says why it cannot run; its ``precision`` is then None unless it was known.

    ``batches``: batch sizes whose throughput is measured too.
    """

    id: str
    model: ModelSpec
    recipe: Recipe
    size: tuple[int, int]
    target: Target
    data: Data
    measure_profile: str
    precision: str | None
    skip: str | None
    batches: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """``model/recipe/HxW/target``, what ``--only`` is matched against."""
        return f"{self.model.name}/{self.recipe.name}/{self.size[0]}x{self.size[1]}/{self.target.name}"


def make_plan(
    suite: Suite,
    data: Data | Mapping[str, Data],
    *,
    base: Path | None = None,
    only: Sequence[str] = (),
    access: Mapping[str, Access] | None = None,
) -> list[Job]:
    """The cells of a suite in the order they are written, each once; with ``only``, those whose label matches a pattern.

    ``data``: the images of the suite's data set, or of each of several by name (``Suite.data_sets``). ``access``: how
    data sets, by name, are reached, for a suite that trains. ``ValueError`` when the patterns leave nothing, or a cell's
    images are not described.
    """
    described = {data.name: data} if isinstance(data, Data) else data
    lookups, versions = Lookups(suite, base, access or {}), library_versions()
    identities: dict[tuple[str, str, str, str | None], Any] = {}

    def identity(model: ModelSpec, recipe: Recipe, precision: str | None) -> Any:
        key = (model.name, model.digest, recipe.name, precision)
        if key not in identities:
            identities[key] = recipe_identity(model, recipe, precision)
        return identities[key]

    jobs: dict[str, Job] = {}
    for block in suite.matrix:
        for cell in block_cells(suite, block, lookups):
            if cell.data not in described:
                raise ValueError(f"{suite.name} has cells on {cell.data}, of which no images are described")
            job = make_job(
                cell.model,
                lookups.recipe(cell.recipe),
                cell.size,
                lookups.target(cell.target),
                described[cell.data],
                profile=suite.measure.profile,
                batches=suite.measure.batches,
                unavailable=lookups.unavailable(cell.target),
                versions=versions,
                identity=identity,
            )
            jobs[job.id] = job
    chosen = [job for job in jobs.values() if _matches(job, only)]
    if not chosen:
        raise ValueError(
            f"--only {' '.join(only)}: no cell of suite {suite.name} matches (a label is model/recipe/HxW/target)"
            if only
            else f"suite {suite.name} has no cell: its exclude leaves nothing"
        )
    return chosen


def make_job(
    model: ModelSpec,
    recipe: Recipe,
    size: tuple[int, int],
    target: Target,
    data: Data,
    *,
    profile: str,
    unavailable: str | None,
    versions: Mapping[str, str],
    identity: Callable[[ModelSpec, Recipe, str | None], Any] | None = None,
    batches: tuple[int, ...] = (),
) -> Job:
    """One cell, its precision resolved for the target's kind and any reason to skip it.

    ``identity``: :func:`recipe_identity`, or one that remembers what it said.
    """
    precision = recipe.precision.get(target.kind)
    skip = unavailable or _refusal(model, recipe, size, target, precision)
    content: dict[str, Any] = {
        "model": [model.name, model.digest],
        "recipe": [recipe.name, (identity or recipe_identity)(model, recipe, precision)],
        "size": size,
        "target": target.name,
        "precision": precision,
        "data": data.identity,
        "profile": profile if target.how == "measured" else None,
        "form": FORM,
        "versions": versions,
        "skip": skip,
        **carried_out(precision),
    }
    if target.board is not None:
        content["board"] = target.board.conditions
    batches = batches if target.how == "measured" else ()
    if batches:
        content["batches"] = batches
    return Job(digest(content), model, recipe, size, target, data, profile, precision, skip, batches)


def carried_out(precision: str | None) -> dict[str, str]:
    """What decides the accuracy of a file beside its bytes: how ONNX Runtime carries it out."""
    return {"carried out": "as written"} if precision == "int8-trt" else {}


def recipe_identity(model: ModelSpec, recipe: Recipe, precision: str | None = None) -> list[Any]:
    """What decides the outcome of a recipe: its steps' options, and the shipped child's weights where there are any.

    With a ``precision`` also its options: what decides the deployed file, not the network alone.
    """
    steps = [[step.kind, dict(step.options)] for step in recipe.steps]
    child = shipped_child(model, recipe)
    network = [steps, _shipped_sha256(child) if child else None]
    return network if precision is None else [*network, recipe.precision_identity(precision)]


@cache
def _shipped_sha256(path: Path) -> str:
    """Digest of a file of this package, read once: it does not change while the program runs."""
    return file_sha256(path)


def shipped_child(model: ModelSpec, recipe: Recipe) -> Path | None:
    """The shipped weights of a catalogue model after a recipe's steps: those of the first recipe with equal steps."""
    if not recipe.steps or model.kind != "catalogue" or model.path != weights_path(model.name):
        return None
    for other in RECIPES.values():
        path = weights_path(model.name, other.name)
        if other.steps == recipe.steps and path.is_file():
            return path
    return None


def _refusal(
    model: ModelSpec, recipe: Recipe, size: tuple[int, int], target: Target, precision: str | None
) -> str | None:
    if precision is None:
        kinds = ", ".join(recipe.precision)
        instead = sorted(r.name for r in RECIPES.values() if r.steps == recipe.steps and target.kind in r.precision)
        hint = f"; use {', '.join(instead)}" if instead else ""
        return f"recipe {recipe.name} is for {kinds}, not for {target.kind}{hint}"
    if model.kind == "onnx" and recipe.steps:
        return f"recipe {recipe.name} changes the network, which an ONNX file does not allow"
    if model.kind == "onnx" and size != (fixed := _onnx_size(model)):
        return f"{model.name}.onnx takes {fixed[0]}x{fixed[1]} alone"
    if precision in target.refuses:
        return f"{target.name}: {target.refuses[precision]}"
    return None


@cache
def _onnx_size(model: ModelSpec) -> tuple[int, int]:
    """The size that the file of an ONNX model takes."""
    from depthbench.suites.export import onnx_size

    assert model.path is not None
    return onnx_size(model.path)


def _matches(job: Job, only: Sequence[str]) -> bool:
    labels = (job.label, f"{job.label}/{job.data.name}")
    return not only or any(fnmatch.fnmatchcase(label, p) for label in labels for one in only for p in (one, f"*{one}*"))
