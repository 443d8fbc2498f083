"""The stages of a cell, each a function from one value to the next, each kept in the store by the digest of its inputs.

ModelSpec → network (compressed nn.Module) → Artefact (an ONNX file in a precision) → Evaluation, profile
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.compression.recipes import Recipe
from depthbench.suites.compressing import network, steps_data
from depthbench.suites.file_context import FileContext
from depthbench.suites.models import ModelSpec, file_sha256
from depthbench.suites.plan import FORM, digest, library_versions, recipe_identity
from depthbench.suites.results import Lineage
from depthbench.suites.source import DataSource
from depthbench.suites.storage.store import Entry, Store

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ArtefactSpec:
    """What a deployed file is made of: network × size × precision with its options × opset, and the calibration images."""

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
                "steps_data": steps_data(self.model, self.recipe, self.source),
                "size": self.size,
                "precision": self.recipe.precision_identity(self.precision),
                "opset": self.opset,
                "form": FORM,
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


def artefact(spec: ArtefactSpec) -> Artefact:
    """The deployed file of a specification: exported, converted to its precision, profiled; made once, kept in the store."""
    key = spec.key
    return stored_artefact(spec, key, Store("artefacts").make(key, lambda folder: _build_artefact(spec, folder)))


def stored_artefact(spec: ArtefactSpec, key: str, entry: Entry) -> Artefact:
    """The artefact that an entry of the store holds."""
    meta = entry.meta
    return Artefact(
        key=key,
        path=entry.folder / "model.onnx",
        sha256=meta["sha256"],
        size=spec.size,
        precision=spec.precision,
        lineage=[Lineage(**link) for link in meta["lineage"]],
        profile=meta["profile"],
        reports=meta["reports"],
    )


def _build_artefact(spec: ArtefactSpec, folder: Path) -> dict[str, Any]:
    from depthbench.compression.precision_steps import PRECISION_STEPS
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
    options = spec.recipe.precision_options(spec.precision)
    context = FileContext(spec.source, spec.size, spec.calibration_digest)
    report = PRECISION_STEPS[spec.precision](exported, deployed, context, **options)
    sha256 = file_sha256(deployed)
    if spec.precision != "fp32":
        images = {"calibration": spec.calibration_digest} if spec.calibration_digest else {}
        lineage.append(Lineage(spec.precision, sha256, {**options, **images}))
        reports = [*reports, {"step": spec.precision, **report}]
    profile = profile_model(module, deployed, spec.size)
    if module is not None and spec.model.variant is not None:
        from depthbench.suites.running.trained import transformer_costs

        profile["transformer"] = transformer_costs(module, spec.size)
    exported.unlink()
    return {"sha256": sha256, "lineage": [asdict(link) for link in lineage], "profile": profile, "reports": reports}


@dataclass(frozen=True)
class StoredEvaluation:
    """Per-image metrics and sample pictures of one artefact on one data set, as files of the store."""

    digest: str
    metrics: Path
    samples: Path
