"""Commands on single models: eval, profile, measure, predict."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import Stages, print_json, print_table, stages
from depthbench.suites.cli.running import DataRoot

if TYPE_CHECKING:
    from depthbench.suites.stages import Artefact

Model = Annotated[str, typer.Argument(help="A catalogue name, an .onnx file, or package.module:function.")]
Recipe = Annotated[str, typer.Option(help="What is done to the model first (depthbench recipes).")]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Input size, multiples of 32; 224x224 if left out.")]
Weights = Annotated[Path | None, typer.Option(help="A safetensors file to use instead of the shipped weights.")]


def _artefact(
    model: str,
    recipe: str,
    size: str | None,
    *,
    kind: str = "cpu",
    precision: str | None = None,
    opset: int = 17,
    weights: Path | None = None,
    calibrate_on: str = "rooms",
    root: Path | None = None,
) -> Artefact:
    """The file that a recipe deploys on a kind of target; made once, kept in the store."""
    from depthbench.compression.recipes import RECIPES
    from depthbench.suites.data import DATASETS, open_dataset
    from depthbench.suites.models import resolve_model
    from depthbench.suites.names import lookup
    from depthbench.suites.schema import parse_size
    from depthbench.suites.stages import CALIBRATION_IMAGES, ArtefactSpec, DataSource, artefact

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
    calibration = None
    if precision.startswith("int8"):
        calibration = open_dataset(calibrate_on, "calibration", root=root, limit=CALIBRATION_IMAGES).digest
    source = DataSource(calibrate_on, DATASETS[calibrate_on].protocol, root)
    return artefact(ArtefactSpec(spec, chosen, pixels, precision, opset, source, calibration))


def onnx_size(path: Path) -> tuple[int, int]:
    """Input height and width of an ONNX file with one image input of fixed size."""
    from depthbench.suites.export import read_onnx

    return image_size(read_onnx(path), path)


def image_size(graph: Any, path: Path) -> tuple[int, int]:
    """Height and width of the first input of a read ONNX model."""
    dims = [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or dims[1] != 3:
        raise ValueError(f"{path}: its input is {'x'.join(map(str, dims))}, not 1x3xHxW")
    return dims[2], dims[3]


def eval_(
    model: Model,
    data: Annotated[str, typer.Option(help="Data set (depthbench datasets).")] = "rooms",
    protocol: Annotated[str | None, typer.Option(help="Evaluation protocol; the data set's own if left out.")] = None,
    split: Annotated[str, typer.Option(help="test, calibration or train.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    size: Size = None,
    recipe: Recipe = "fp32",
    weights: Weights = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Accuracy of a model, computed on the ONNX file that is deployed.

    MODEL mean-depth is the trivial predictor: the mean depth per pixel of the data set's training split.
    """
    from depthbench.suites.data import dataset_info, open_dataset
    from depthbench.suites.evaluate import evaluate_onnx
    from depthbench.suites.models import file_sha256
    from depthbench.suites.names import lookup
    from depthbench.suites.protocols import PROTOCOLS
    from depthbench.suites.runner import prepare_images
    from depthbench.suites.trivial import NAME

    protocol = protocol or dataset_info(data).protocol
    lookup("protocol", protocol, PROTOCOLS)
    images = open_dataset(data, split, root=data_root, limit=limit)
    with stages() as progress, tempfile.TemporaryDirectory() as folder:
        if model == NAME:
            path = _mean_depth(data, data_root, size, Path(folder), progress)
        else:
            path = _artefact(model, recipe, size, weights=weights, calibrate_on=data, root=data_root).path
        prepare_images(images, progress)
        result = evaluate_onnx(path, images, protocol, progress=lambda done, total: progress("images", done, total))
        pixels = "x".join(map(str, onnx_size(path)))
        sha256 = file_sha256(path)
    summary = result.summary()
    about = {"model": model, "recipe": recipe, "size": pixels, "data": data, "split": split}
    if json:
        print_json({**summary, **about, "protocol": protocol, "dataset_digest": images.digest, "artefact": sha256})
    else:
        title = f"{model} ({recipe}, {pixels}) on {result.n} images of {data} {split}, protocol {protocol}"
        print_table(title, [{"metric": name, "mean": f"{value:.4f}"} for name, value in summary.items() if name != "n"])


def _mean_depth(data: str, root: Path | None, size: str | None, folder: Path, progress: Stages) -> Path:
    """The trivial predictor of a data set as an ONNX file."""
    from depthbench.suites.data import open_dataset
    from depthbench.suites.runner import prepare_images
    from depthbench.suites.schema import parse_size
    from depthbench.suites.trivial import mean_depth, write_constant

    training = open_dataset(data, "train", root=root)
    prepare_images(training, progress)
    mean = mean_depth(training, parse_size(size or "224x224"), lambda done, total: progress("mean depth", done, total))
    return write_constant(mean, folder / "mean-depth.onnx")


def profile(
    model: Model, size: Size = None, recipe: Recipe = "fp32", weights: Weights = None, json: Json = False
) -> None:
    """Static costs: parameters, MACs by three counters and why they differ, file size, operators."""
    made = _artefact(model, recipe, size, weights=weights)
    if json:
        print_json({"model": model, "recipe": recipe, "size": f"{made.size[0]}x{made.size[1]}", **made.profile})
    else:
        rows = [{"what": key, "value": value} for key, value in made.profile.items()]
        print_table(f"{model} ({recipe}) at {made.size[0]}x{made.size[1]}; 1 MAC = 2 FLOPs", rows)


def measure(
    model: Model,
    target: Annotated[str, typer.Option(help="Where to measure (depthbench targets).")] = "desktop-cpu",
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL[@RECIPE]", help="Measure this one too, interleaved, and give the ratio."),
    ] = None,
    recipe: Recipe = "fp32",
    size: Size = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; the target's own if left out.")] = None,
    profile: Annotated[str, typer.Option(help="quick, standard or sustained.")] = "quick",
    json: Json = False,
) -> None:
    """Latency of a model on this machine: median with a 95 % interval, and the ratio to another one."""
    import numpy as np

    from depthbench.suites.names import lookup
    from depthbench.suites.targets import TARGETS
    from depthbench.suites.targets import desktop_cpu as cpu

    chosen = lookup("target", target, TARGETS)
    plan = lookup("profile", profile, cpu.PROFILES)
    if chosen.how == "predicted":
        raise ValueError(f"{target} is a predicted board: use depthbench predict {model} --board {target}")
    if (reason := chosen.probe()) is not None:
        raise ValueError(f"target {target} is not available: {reason}")
    count = threads or cpu.thread_count(chosen.threads)
    made = [_artefact(model, recipe, size)]
    if against is not None:
        other, _, other_recipe = against.partition("@")
        made.append(_artefact(other, other_recipe or "fp32", size))
    with stages() as progress:
        timings = cpu.measure(
            [one.path for one in made], plan, threads=count, progress=lambda share: progress("measuring", share, 1.0)
        )
    samples = timings[0].samples_ms
    low, high = cpu.median_interval(samples)
    result: dict[str, Any] = {
        "model": model,
        "recipe": recipe,
        "target": target,
        "threads": count,
        "median_ms": float(np.median(samples)),
        "ci95_ms": [low, high],
        "iqr_ms": float(np.subtract(*np.quantile(samples, [0.75, 0.25]))),
        "n": len(samples),
        "flags": cpu.latency(timings[0], count).flags,
    }
    if against is not None:
        ratio, (ratio_low, ratio_high) = cpu.paired_ratio(timings[0], timings[1])
        result |= {
            "against": against,
            "against_median_ms": float(np.median(timings[1].samples_ms)),
            "ratio": ratio,
            "ratio_ci95": [ratio_low, ratio_high],
        }
    if json:
        print_json(result)
    else:
        print_table(f"{model} ({recipe}) on {target}", [{"what": key, "value": value} for key, value in result.items()])


def predict(
    model: Model,
    board: Annotated[str, typer.Option(help="A Jetson board (depthbench targets).")],
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp16",
    recipe: Recipe = "fp32",
    size: Size = None,
    json: Json = False,
) -> None:
    """Latency predicted for a board that is not here: a roofline by operator class plus a launch cost."""
    from depthbench.compression.recipes import PRECISIONS
    from depthbench.suites.names import lookup
    from depthbench.suites.targets import BOARD_OPSET, predicted

    lookup("precision", precision, {name: None for name in PRECISIONS if name != "int8-trt"})
    predicted.check(board, precision)
    made = _artefact(model, recipe, size, precision="fp32", opset=BOARD_OPSET)
    result = predicted.predict(made.path, board, precision)
    if json:
        print_json({"model": model, "recipe": recipe, "predicted": True, **result.to_json()})
    else:
        rows = [{"what": key, "value": value} for key, value in result.to_json().items()]
        print_table(f"{model} ({recipe}) on {board} in {precision}: predicted, not measured", rows)
