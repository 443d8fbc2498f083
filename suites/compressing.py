"""From a model to its compressed network: a recipe's steps carried out, with what they may ask of the suite."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.compression.recipes import Recipe
from depthbench.suites.models import ModelSpec, build_model, file_sha256
from depthbench.suites.plan import digest, library_versions, recipe_identity, shipped_child
from depthbench.suites.results import Lineage, write_atomic
from depthbench.suites.source import DataSource
from depthbench.suites.store import Store

if TYPE_CHECKING:
    from torch import nn

    from depthbench.suites.training_config import TrainConfig
    from depthbench.suites.training_log import Report


@dataclass(frozen=True)
class FinetuneContext:
    """What compression steps may ask of the suite: a training loop.

    ``config``: the training; left out, the shipped recipe's ``finetune`` section on the run's own data set. ``folder``: where
    checkpoints are kept.
    """

    source: DataSource
    folder: Path
    config: TrainConfig | None = None
    report: Report | None = None

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        """Train a compressed network on; the network in eval mode and a report (samples, seconds, data)."""
        from depthbench.suites.training import train
        from depthbench.suites.training_config import load_config

        config = self.config or load_config("finetune", {"mixture": {self.source.name: 1.0}, **options})
        trained = train(config, module, self.folder, roots=self.source.roots, report=self.report)
        return trained.module, {"samples": trained.samples, "seconds": round(trained.seconds, 1), "data": trained.data}


def network(
    spec: ModelSpec, recipe: Recipe, source: DataSource
) -> tuple[nn.Module, list[Lineage], list[dict[str, Any]]]:
    """The network after a recipe's steps, with its lineage and the steps' reports.

    A child that ships with the package is loaded; any other is made (pruned, fine-tuned) once and kept in the store.
    """
    if spec.variant is None:
        module, weights = build_model(spec), Lineage("weights", spec.digest, {"model": spec.name})
    else:
        from depthbench.suites.trained import trained_network

        module, weights = trained_network(spec, source.roots)
    lineage = [weights]
    if not recipe.steps:
        return module, lineage, []
    from depthbench.compression.prune import shape_like
    from depthbench.suites.checkpoint import read_tensors

    options = {"steps": [[step.kind, dict(step.options)] for step in recipe.steps]}
    child = shipped_child(spec, recipe)
    if child is None:
        key = digest([spec.kind, spec.name, spec.digest, recipe_identity(spec, recipe), library_versions()])
        entry = Store("networks").make(key, lambda folder: _compress(module, recipe, source, spec, folder))
        child, reports = entry.folder / "network.safetensors", entry.meta["reports"]
        tensors, _ = read_tensors(child)
    else:
        tensors, metadata = read_tensors(child)
        reports = metadata["reports"]
        if metadata["parent"] != spec.digest:
            raise ValueError(f"{child.name}: made from other weights of {spec.name} than the ones shipped beside it")
    return shape_like(module, tensors).eval(), [*lineage, Lineage("compressed", file_sha256(child), options)], reports


def _compress(module: nn.Module, recipe: Recipe, source: DataSource, spec: ModelSpec, folder: Path) -> dict[str, Any]:
    from depthbench.suites.checkpoint import save_weights

    module, reports = compress(module, recipe, FinetuneContext(source, folder / "finetune"))
    shutil.rmtree(folder / "finetune", ignore_errors=True)
    save_weights(folder / "network.safetensors", module.state_dict(), {"parent": spec.digest, "reports": reports})
    return {"reports": reports}


def compress(module: nn.Module, recipe: Recipe, context: FinetuneContext) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Carry out a recipe's steps on a network; the new network and a report a step."""
    from depthbench.compression.steps import STEPS

    reports = []
    for step in recipe.steps:
        module, report = STEPS[step.kind](module, step.options, context)
        reports.append({"step": step.kind, **report})
    return module, reports


def train_child(
    spec: ModelSpec,
    recipe: Recipe,
    config: TrainConfig,
    folder: Path,
    *,
    report: Report | None = None,
    command: str = "",
) -> Path:
    """Compress a model by a recipe, fine-tune it in ``folder`` (resumable) and write ``folder/weights.safetensors``."""
    from depthbench.suites.checkpoint import save_weights

    parent = folder / "parent"
    if parent.is_file() and parent.read_text() != spec.digest:
        raise ValueError(f"{folder}: holds a child of other weights of {spec.name}: use another folder or delete it")
    write_atomic(parent, spec.digest.encode())
    context = FinetuneContext(DataSource("rooms", "native"), folder, config, report)
    module, reports = compress(build_model(spec), recipe, context)
    metadata = {
        "model": spec.name,
        "recipe": recipe.name,
        "parent": spec.digest,
        "reports": reports,
        "config": config.model_dump(mode="json"),
        "command": command,
    }
    save_weights(folder / "weights.safetensors", module.state_dict(), metadata)
    return folder / "weights.safetensors"
