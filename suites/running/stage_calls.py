"""What the workers of a run are asked to do, in this process or in another, maybe on another machine.

Arguments and values are small and can be sent; files go by way of the store. A path of another machine is never followed:
artefacts are found by their key, weights and ONNX files by their digest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from depthbench.compression.recipes import Recipe
from depthbench.suites.compressing import network
from depthbench.suites.models import ModelSpec, file_sha256, weights_path
from depthbench.suites.plan import Data
from depthbench.suites.running.shared_evaluation import evaluations
from depthbench.suites.running.trained import trained
from depthbench.suites.source import DataSource
from depthbench.suites.stages import Artefact, ArtefactSpec, artefact
from depthbench.suites.storage.store import Store
from depthbench.suites.targets.board_results import Outcome

if TYPE_CHECKING:
    from depthbench.suites.data import Access
    from depthbench.suites.training.log import Status

Report = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""

MODEL_FILES = "models"
"""The kind of the store's entries that hold what a user's model is read from."""


def train(spec: ModelSpec, access: Mapping[str, Access], report: Report | None = None) -> None:
    """Train a model of the suite's own, unless the store has it."""

    def share(status: Status) -> None:
        if report is not None:
            report(status.samples / status.total)

    trained(spec, access, share)


def compress(spec: ModelSpec, recipe: Recipe, source: DataSource) -> None:
    """Carry out a recipe's steps on a network, unless the store has it."""
    network(at_home(spec), recipe, source)


def export(spec: ArtefactSpec) -> Artefact:
    """The file of a specification."""
    return artefact(replace(spec, model=at_home(spec.model)))


def score(files: Sequence[Artefact], data: Data, access: Access) -> dict[str, str]:
    """Evaluate files together; the reason for each, by artefact key, that cannot be."""
    return evaluations([stored_here(made) for made in files], data, access)[1]


def predict(made: Artefact, board: str) -> Outcome:
    """The latency of a file on a board, predicted."""
    from depthbench.suites.targets.predicted import predict as predict_latency

    precision = "int8" if made.precision == "int8-trt" else made.precision
    return Outcome(predict_latency(made.path, board, precision).latency())


def stored_here(made: Artefact) -> Artefact:
    """An artefact as this machine's store has it."""
    return replace(made, path=Store("artefacts").root / made.key / "model.onnx")


def at_home(spec: ModelSpec) -> ModelSpec:
    """A model with its file where this machine has it; ``ValueError`` when it has none with the same content."""
    if spec.path is None:
        return spec
    shipped = weights_path(spec.name) if spec.kind == "catalogue" else spec.path
    for path in (spec.path, shipped, Store(MODEL_FILES).root / spec.digest / spec.path.name):
        if path.is_file() and (spec.kind == "function" or file_sha256(path) == spec.digest):
            return replace(spec, path=path)
    raise ValueError(f"{spec.name}: {spec.path} is not on this machine with the content that the run was planned with")


def keep_model_file(spec: ModelSpec) -> None:
    """Put the file of a user's model into the store, for machines that do not have it."""
    assert spec.path is not None
    path = spec.path

    def copy(folder: Path) -> dict[str, str]:
        shutil.copyfile(path, folder / path.name)
        return {"name": path.name}

    Store(MODEL_FILES).make(spec.digest, copy)
