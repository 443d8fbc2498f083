"""The file that a model deploys, for the commands on single models: made once, kept in the store, progress shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthbench.suites.cli.output import Stages
from depthbench.suites.source import CALIBRATION_IMAGES, DataSource
from depthbench.suites.stages import Artefact, ArtefactSpec, artefact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthbench.suites.data import Access

Model = Annotated[str, typer.Argument(help="A catalogue name, an .onnx file, or package.module:function.")]
Recipe = Annotated[str, typer.Option(help="What is done to the model first (depthbench recipes).")]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Input size, multiples of 32; 224x224 if left out.")]
Weights = Annotated[Path | None, typer.Option(help="A safetensors file to use instead of the shipped weights.")]


@dataclass(frozen=True)
class _ShownSource(DataSource):
    """A source of ``images`` calibration images that tells how many it has given."""

    images: int = 0
    progress: Stages | None = None

    def calibration(self, size: tuple[int, int], n: int = CALIBRATION_IMAGES) -> Iterator[NDArray[np.float32]]:
        for i, image in enumerate(super().calibration(size, n)):
            yield image
            if self.progress is not None:
                self.progress(f"calibration images ({self.name})", i + 1, self.images)
        if self.progress is not None:
            self.progress("quantizing", 0, 1)


def trained_size(model: str, weights: Path | None = None) -> str | None:
    """``HxW`` at which the training of a model's weights ended; None for a model without weights of ours."""
    from depthbench.suites.checkpoint import read_tensors
    from depthbench.suites.models import resolve_model

    spec = resolve_model(model, weights=weights)
    if spec.kind == "onnx" or spec.path is None:
        return None
    _, metadata = read_tensors(spec.path)
    stages = metadata.get("config", {}).get("stages")
    return str(stages[-1]["sizes"][-1]) if stages else None


def deployed(
    model: str,
    recipe: str,
    size: str | None,
    progress: Stages,
    *,
    kind: str = "cpu",
    precision: str | None = None,
    opset: int = 17,
    weights: Path | None = None,
    calibrate_on: str = "rooms",
    access: Access | None = None,
) -> Artefact:
    """The file that a recipe deploys on a kind of target; made once, kept in the store.

    ``access``: how the data set ``calibrate_on`` is reached.
    """
    from depthbench.compression.precisions import calibrated
    from depthbench.compression.recipes import RECIPES
    from depthbench.suites.data import DATASETS, USUAL
    from depthbench.suites.export import onnx_size
    from depthbench.suites.models import resolve_model
    from depthbench.suites.names import lookup
    from depthbench.suites.runner import prepare_images
    from depthbench.suites.schema import parse_size

    chosen = lookup("recipe", recipe, RECIPES)
    spec = resolve_model(model, weights=weights)
    precision = precision or chosen.precision.get(kind)
    if precision is None:
        raise ValueError(f"recipe {recipe} is for {', '.join(chosen.precision)}, not for {kind}")
    if spec.kind == "onnx" and chosen.steps:
        raise ValueError(f"recipe {recipe} changes the network, which an ONNX file does not allow")
    pixels = onnx_size(spec.path) if spec.kind == "onnx" and spec.path else parse_size(size or "224x224")
    if spec.kind == "onnx" and size is not None and parse_size(size) != pixels:
        raise ValueError(f"{spec.path}: its input is {pixels[0]}x{pixels[1]}, not {size}")
    calibration, count, reached = None, 0, access or USUAL
    if calibrated(precision):
        images = reached.open(calibrate_on, "calibration", CALIBRATION_IMAGES)
        prepare_images(images, progress)
        calibration, count = images.digest, len(images)
    source = _ShownSource(
        calibrate_on,
        DATASETS[calibrate_on].protocol,
        reached.root,
        reached.depth_scale,
        reached.skip_broken,
        images=count,
        progress=progress,
    )
    made = artefact(ArtefactSpec(spec, chosen, pixels, precision, opset, source, calibration))
    if calibration is not None:
        progress("quantizing", 1, 1)
    return made
