"""The stages of a cell, each a function from one value to the next, each kept in the store by the digest of its inputs.

ModelSpec → network (compressed nn.Module) → Artefact (an ONNX file in a precision) → Evaluation, profile
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthbench.compression.recipes import Recipe
from depthbench.suites.models import ModelSpec, build_model, file_sha256
from depthbench.suites.plan import digest, library_versions, recipe_identity, shipped_child
from depthbench.suites.results import Lineage, write_atomic
from depthbench.suites.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from depthbench.suites.training_config import TrainConfig
    from depthbench.suites.training_log import Report

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class DataSource:
    """Where images come from: a data set's name, the root given by the user, and the protocol that prepares them."""

    name: str
    protocol: str
    root: Path | None = None

    @property
    def roots(self) -> dict[str, Path]:
        """The root given by the user, by data set."""
        return {self.name: self.root} if self.root else {}

    def calibration(self, size: tuple[int, int], n: int = CALIBRATION_IMAGES) -> Iterator[NDArray[np.float32]]:
        """Network inputs (1, 3, H, W) of the calibration split, prepared as for evaluation."""
        from depthbench.suites.data import open_dataset
        from depthbench.suites.protocols import PROTOCOLS

        dataset = open_dataset(self.name, "calibration", root=self.root, limit=n)
        for i in range(len(dataset)):
            yield PROTOCOLS[self.protocol].prepare(dataset[i], size).input


@dataclass(frozen=True)
class ArtefactSpec:
    """What a deployed file is made of: network × size × precision × opset, and the calibration images when it is INT8."""

    model: ModelSpec
    recipe: Recipe
    size: tuple[int, int]
    precision: str
    opset: int
    source: DataSource
    calibration_digest: str | None

    @property
    def key(self) -> str:
        """Digest of everything that decides the file's bytes."""
        return digest(
            {
                "model": [self.model.kind, self.model.name, self.model.digest],
                "recipe": recipe_identity(self.model, self.recipe),
                "size": self.size,
                "precision": self.precision,
                "opset": self.opset,
                "calibration": [self.calibration_digest, self.source.protocol] if self.calibration_digest else None,
                "versions": library_versions(),
            }
        )


@dataclass(frozen=True)
class Artefact:
    """A deployable ONNX file with its lineage, its static costs, and the reports of the steps that made it."""

    key: str
    path: Path
    sha256: str
    size: tuple[int, int]
    precision: str
    lineage: list[Lineage]
    profile: dict[str, Any]
    reports: list[dict[str, Any]] = field(default_factory=list)


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


def artefact(spec: ArtefactSpec) -> Artefact:
    """The deployed file of a specification: exported, converted to its precision, profiled; made once, kept in the store."""
    entry = Store("artefacts").make(spec.key, lambda folder: _build_artefact(spec, folder))
    meta = entry.meta
    return Artefact(
        key=spec.key,
        path=entry.folder / "model.onnx",
        sha256=meta["sha256"],
        size=spec.size,
        precision=spec.precision,
        lineage=[Lineage(**link) for link in meta["lineage"]],
        profile=meta["profile"],
        reports=meta["reports"],
    )


def _build_artefact(spec: ArtefactSpec, folder: Path) -> dict[str, Any]:
    from depthbench.compression.steps import PRECISION_STEPS
    from depthbench.suites.export import export_onnx
    from depthbench.suites.profile import profile_model

    module: nn.Module | None = None
    exported = folder / "exported.onnx"
    if spec.model.kind == "onnx":
        assert spec.model.path is not None
        shutil.copyfile(spec.model.path, exported)
        lineage = [Lineage("onnx", spec.model.digest, {"file": spec.model.path.name})]
        reports: list[dict[str, Any]] = []
    else:
        module, lineage, reports = network(spec.model, spec.recipe, spec.source)
        export_onnx(module, exported, spec.size, opset=spec.opset)
        lineage.append(Lineage("onnx", file_sha256(exported), {"opset": spec.opset, "size": list(spec.size)}))
    deployed = folder / "model.onnx"
    report = PRECISION_STEPS[spec.precision](exported, deployed, spec.source.calibration(spec.size))
    sha256 = file_sha256(deployed)
    if spec.precision != "fp32":
        options = {"calibration": spec.calibration_digest} if spec.calibration_digest else {}
        lineage.append(Lineage(spec.precision, sha256, options))
        reports = [*reports, {"step": spec.precision, **report}]
    profile = profile_model(module, deployed, spec.size)
    if module is not None and spec.model.variant is not None:
        from depthbench.suites.trained import transformer_costs

        profile["transformer"] = transformer_costs(module, spec.size)
    exported.unlink()
    return {"sha256": sha256, "lineage": [asdict(link) for link in lineage], "profile": profile, "reports": reports}


@dataclass(frozen=True)
class StoredEvaluation:
    """Per-image metrics and sample pictures of one artefact on one data set, as files of the store."""

    digest: str
    metrics: Path
    samples: Path
