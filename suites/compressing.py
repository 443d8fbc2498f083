"""From a model to its compressed network: a recipe's steps carried out, with what they may ask of the suite."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.compression.recipes import Recipe
from depthbench.suites.models import ModelSpec, build_model, file_sha256
from depthbench.suites.plan import FORM, digest, library_versions, recipe_identity, shipped_child
from depthbench.suites.results import Lineage, write_atomic
from depthbench.suites.source import DataSource
from depthbench.suites.step_context import IMAGES, StepContext
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.store import Store

if TYPE_CHECKING:
    from torch import nn

    from depthbench.compression.steps import Context
    from depthbench.suites.data import Access
    from depthbench.suites.training.log import Report


def network(
    spec: ModelSpec, recipe: Recipe, source: DataSource
) -> tuple[nn.Module, list[Lineage], list[dict[str, Any]]]:
    """The network after a recipe's steps, with its lineage and the steps' reports.

    A child that ships with the package is loaded; any other is made (pruned, fine-tuned) once and kept in the store.
    """
    if spec.variant is None:
        module, weights = build_model(spec), Lineage("weights", spec.digest, {"model": spec.name})
    else:
        from depthbench.suites.running.trained import trained_network

        module, weights = trained_network(spec, source.access)
    lineage = [weights]
    if not recipe.steps:
        return module, lineage, []
    check_steps(recipe)
    from depthbench.compression.shapes import shape_like
    from depthbench.suites.checkpoint import read_tensors, tensors_digest

    options = {"steps": [[step.kind, dict(step.options)] for step in recipe.steps]}
    child = shipped_child(spec, recipe)
    if child is None:
        key = network_key(spec, recipe, source)
        entry = Store("networks").make(key, lambda folder: _compress(module, recipe, source, spec, key, folder))
        child, reports = entry.folder / "network.safetensors", entry.meta["reports"]
        tensors, _ = read_tensors(child)
        made = tensors_digest(tensors)
    else:
        tensors, metadata = read_tensors(child)
        reports, made = metadata["reports"], file_sha256(child)
        if metadata["parent"] != spec.digest:
            raise ValueError(f"{child.name}: made from other weights of {spec.name} than the ones shipped beside it")
    compressed = shape_like(module, tensors, heads_after(reports)).eval()
    return compressed, [*lineage, Lineage("compressed", made, options)], reports


def network_key(spec: ModelSpec, recipe: Recipe, source: DataSource) -> str:
    """Digest of everything that decides a compressed network, by which the store keeps it."""
    made_on = steps_data(spec, recipe, source)
    return digest([FORM, spec.kind, spec.name, spec.digest, recipe_identity(spec, recipe), made_on, library_versions()])


def steps_data(spec: ModelSpec, recipe: Recipe, source: DataSource) -> list[str] | None:
    """The images that a recipe's steps see, where they are carried out here: data set, protocol, digest of the images."""
    if not recipe.steps or shipped_child(spec, recipe) is not None:
        return None
    return [source.name, source.protocol, source.open("calibration", IMAGES).digest]


def heads_after(reports: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The number of heads, by name, of the attention modules that have lost some in a recipe's steps."""
    return {name: after for report in reports for name, (_, after) in report.get("heads", {}).items()}


def step_faults(recipe: Recipe) -> list[str]:
    """What is wrong with a recipe's steps, each ``steps[i].kind.key: message``; none when all is well.

    Beside what :mod:`depthbench.compression.options` knows: boards, precisions, and the fields of a training.
    """
    from depthbench.compression import options
    from depthbench.suites.targets.predicted import check
    from depthbench.suites.training.config import config_faults

    faults = []
    for i, step in enumerate(recipe.steps):
        place = f"steps[{i}].{step.kind}"
        wrong = [f"{place}.{fault}" for fault in options.step_faults(step.kind, step.options)]
        if not wrong and step.kind == "finetune":
            training = options.finetune_options(step.options).training
            wrong = [f"{place}.{fault}" for fault in config_faults(training)]
        elif not wrong and step.kind == "prune":
            chosen = options.prune_options(step.options)
            if chosen.finetune is not None:
                wrong = [f"{place}.finetune.{fault}" for fault in config_faults(chosen.finetune.training)]
            if chosen.board is not None:
                try:
                    check(chosen.board, chosen.precision)
                except ValueError as error:
                    wrong.append(f"{place}.board: {error}")
        faults += wrong
    return faults


def check_steps(recipe: Recipe) -> None:
    """``ValueError`` that names everything that is wrong with a recipe's steps."""
    if faults := step_faults(recipe):
        raise ValueError(f"recipe {recipe.name}: {'; '.join(faults)}")


def _compress(
    module: nn.Module, recipe: Recipe, source: DataSource, spec: ModelSpec, key: str, folder: Path
) -> dict[str, Any]:
    from depthbench.suites.checkpoint import save_weights

    checkpoints = cache_dir() / "trainings" / key  # beside the store: a recipe that was stopped goes on from there
    context = StepContext(source, module, checkpoints, mixture={source.name: 1.0})
    module, reports = compress(module, recipe, context)
    save_weights(folder / "network.safetensors", module.state_dict(), {"parent": spec.digest, "reports": reports})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {"reports": reports}


def compress(module: nn.Module, recipe: Recipe, context: Context) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Carry out a recipe's steps on a copy of a network; the new network and a report a step."""
    from depthbench.compression.steps import STEPS

    module = copy.deepcopy(module)
    reports = []
    for step in recipe.steps:
        module, report = STEPS[step.kind](module, step.options, context)
        reports.append({"step": step.kind, **report})
    return module, reports


def train_child(
    spec: ModelSpec,
    recipe: Recipe,
    folder: Path,
    *,
    training: Mapping[str, Any] | None = None,
    config_file: Path | None = None,
    access: Mapping[str, Access] | None = None,
    report: Report | None = None,
    command: str = "",
) -> Path:
    """Compress a model by a recipe, fine-tuned in ``folder`` (resumable), and write ``folder/weights.safetensors``.

    ``training``: fields of the fine-tuning's configuration, whatever the recipe says; ``config_file``: read in place of the
    one that ships. ``access``: how data sets, by name, are reached.
    """
    from depthbench.suites.checkpoint import save_weights

    check_steps(recipe)
    start = json.dumps([spec.name, spec.digest, recipe_identity(spec, recipe)[0]])
    parent = folder / "parent"
    if parent.is_file() and parent.read_text() != start:
        raise ValueError(
            f"{folder}: holds a child of another model or of other weights, or by another recipe: "
            "use another folder or delete it"
        )
    write_atomic(parent, start.encode())
    module = build_model(spec)
    source = DataSource("rooms", "native", others=access or {})
    context = StepContext(source, module, folder, training or {}, config_file, report=report)
    child, reports = compress(module, recipe, context)
    metadata = {
        "model": spec.name,
        "recipe": recipe.name,
        "parent": spec.digest,
        "reports": reports,
        "config": context.config({}).model_dump(mode="json"),
        "command": command,
    }
    save_weights(folder / "weights.safetensors", child.state_dict(), metadata)
    return folder / "weights.safetensors"
