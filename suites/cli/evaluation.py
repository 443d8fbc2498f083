"""The command eval: accuracy of models on data sets, alone or against another model on the same images."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.accuracy_table import PAIRED, named, print_one, rows, title
from depthbench.suites.cli.accuracy_table import markdown as markdown_table
from depthbench.suites.cli.artefacts import Recipe, Weights
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import Stages, print_json, print_table, stages
from depthbench.suites.cli.running import DataRoot, DepthScale, SkipBroken

if TYPE_CHECKING:
    from depthbench.suites.data import Access, DepthDataset
    from depthbench.suites.evaluate import Evaluation


@dataclass(frozen=True)
class _Entry:
    """A model, its weights if not the shipped ones, and what is done to it."""

    model: str
    recipe: str
    weights: Path | None = None

    @classmethod
    def parse(cls, text: str, recipe: str = "fp32", weights: Path | None = None) -> _Entry:
        """``MODEL`` or ``MODEL@RECIPE``; an @ inside a path is part of it."""
        model, _, after = text.rpartition("@")
        plain = not model or "/" in after or after.endswith(".onnx")
        return cls(text, recipe, weights) if plain else cls(model, after, weights)

    def __str__(self) -> str:
        return named(self.model, self.recipe, str(self.weights) if self.weights else None)


@dataclass(frozen=True)
class _Made:
    """An entry evaluated on one data set: the size and digest of its file, and the result."""

    entry: _Entry
    size: str
    sha256: str
    result: Evaluation


def eval_(
    model: Annotated[
        list[str],
        typer.Argument(metavar="MODEL[@RECIPE]...", help="Catalogue names, .onnx files, or package.module:function."),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=FOLDER]", help="Data set (depthbench datasets); repeatable. rooms if left out."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Evaluation protocol; the data set's own if left out.")] = None,
    split: Annotated[str, typer.Option(help="test, calibration or train.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Input size, multiples of 32. If left out: the protocol's; where it has none (native), the size that the "
            "weights were trained for, or the multiples of 32 nearest to the images.",
        ),
    ] = None,
    recipe: Recipe = "fp32",
    weights: Weights = None,
    data_root: DataRoot = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL[@RECIPE]", help="Evaluate this one too; give paired differences to it."),
    ] = None,
    by_group: Annotated[bool, typer.Option("--by-group", help="Also for each group (camera) of a data set.")] = False,
    median_scale: Annotated[
        bool, typer.Option("--median-scale", help="Scale each prediction to the median of its ground truth.")
    ] = False,
    skip_broken: SkipBroken = 0,
    depth_scale: DepthScale = None,
    per_image: Annotated[
        bool, typer.Option("--per-image", help="With --json: the numbers of every image too.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: Json = False,
) -> None:
    """Accuracy of models, computed on the ONNX files that are deployed; images are read once for all of them.

    With --against, the mean difference per image with a bootstrap 95 % interval over the images. MODEL mean-depth is the
    trivial predictor: the mean depth per pixel of the data set's training split.
    """
    if per_image and not json:
        raise ValueError("--per-image: needs --json, a table has no room for it")
    places = _places(data or ["rooms"], data_root, depth_scale, skip_broken)
    asked = list(dict.fromkeys(_Entry.parse(text, recipe, weights) for text in model))
    reference = _Entry.parse(against) if against is not None else None
    if weights is not None and len(asked) > 1:
        raise ValueError(f"--weights {weights}: belongs to one model, not to {len(asked)}")
    entries = list(dict.fromkeys([*asked, *([reference] if reference else [])]))
    for entry in entries:
        _check(entry)
    evaluations: list[dict[str, Any]] = []
    with stages() as progress:
        opened = [_open(*place, split, limit, protocol, median_scale, progress) for place in places]
        if by_group and not any(images.groups for images, _ in opened):
            raise ValueError(f"--by-group: {', '.join(name for name, _ in places)} has no groups")
        for (images, rules), (_, access) in zip(opened, places, strict=True):
            made = _evaluate(entries, images, rules, size, access, progress)
            other = next((one for one in made if one.entry == reference), None)
            evaluations += [_describe(one, other if one is not other else None, by_group, per_image) for one in made]
    alone = len(asked) == len(places) == 1
    if json:
        print_json(evaluations[0] if alone else {"evaluations": evaluations})
    elif alone and not reference and not by_group and not markdown:
        print_one(evaluations[0])
    else:
        table = [(title(one), row) for one in evaluations for row in rows(one, by_group, str(reference or ""))]
        if markdown:
            print(markdown_table([{"data": heading, **row} for heading, row in table]))
            return
        for heading, part in groupby(table, lambda pair: pair[0]):
            print_table(heading, [row for _, row in part])


def _places(
    data: Sequence[str], data_root: Path | None, depth_scale: float | None, skip_broken: int
) -> list[tuple[str, Access]]:
    """Each data set's name and how it is reached; of several the depth scale is that of ``folder``."""
    from depthbench.suites.data import Access, dataset_info

    if data_root is not None and len(data) > 1:
        raise ValueError(f"--data-root {data_root}: belongs to one data set; with several write --data NAME=FOLDER")
    parts = [text.partition("=") for text in data]
    for text, (name, _, folder) in zip(data, parts, strict=True):
        if (folder or data_root is not None) and dataset_info(name).load is None:
            option = f"--data {text}" if folder else f"--data-root {data_root}"
            raise ValueError(f"{option}: {name} is rendered here, it has no files")
    scaled = {name for name, _, _ in parts} & {"folder"} or {name for name, _, _ in parts}
    return [
        (name, Access(Path(folder) if folder else data_root, depth_scale if name in scaled else None, skip_broken))
        for name, _, folder in parts
    ]


def _check(entry: _Entry) -> None:
    """``ValueError`` for a model or recipe that is not there, before any image is read."""
    from depthbench.compression.recipes import RECIPES
    from depthbench.suites.export import onnx_size
    from depthbench.suites.models import resolve_model
    from depthbench.suites.names import lookup
    from depthbench.suites.trivial import NAME

    lookup("recipe", entry.recipe, RECIPES)
    if entry.model != NAME:
        spec = resolve_model(entry.model, weights=entry.weights)
        if spec.kind == "onnx" and spec.path is not None:
            onnx_size(spec.path)


def _open(
    name: str,
    access: Access,
    split: str,
    limit: int | None,
    protocol: str | None,
    median_scale: bool,
    progress: Stages,
) -> tuple[DepthDataset, str]:
    """The images and the name of the protocol they are scored under."""
    from depthbench.suites.data import dataset_info
    from depthbench.suites.names import lookup
    from depthbench.suites.protocols import MEDIAN_SCALE, PROTOCOLS

    rules = lookup("protocol", protocol or dataset_info(name).protocol, PROTOCOLS).name
    if median_scale:
        rules = rules.removesuffix(MEDIAN_SCALE) + MEDIAN_SCALE
    return _read(name, access, split, limit, progress), rules


def _read(name: str, access: Access, split: str, limit: int | None, progress: Stages) -> DepthDataset:
    stage = f"reading ({name} {split})"
    return access.open(name, split, limit, lambda done, total: progress(stage, done, total))


def _evaluate(
    entries: Sequence[_Entry],
    images: DepthDataset,
    protocol: str,
    size: str | None,
    access: Access,
    progress: Stages,
) -> list[_Made]:
    """Every entry on one data set."""
    from depthbench.suites.cli.artefacts import deployed, trained_size
    from depthbench.suites.evaluate import evaluate_many
    from depthbench.suites.export import onnx_size
    from depthbench.suites.models import file_sha256
    from depthbench.suites.protocols import PROTOCOLS
    from depthbench.suites.runner import prepare_images
    from depthbench.suites.trivial import NAME

    prepare_images(images, progress)
    fixed = PROTOCOLS[protocol].input_size(*PROTOCOLS[protocol].view(images[0]).depth.shape[1:])
    usual = "x".join(map(str, fixed))
    with ExitStack() as stack:
        paths = []
        for entry in entries:
            if entry.model == NAME:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                paths.append(_mean_depth(images.name, access, size or usual, folder, progress))
                continue
            pixels = size
            if size is None and not entry.model.endswith(".onnx"):
                trained = trained_size(entry.model, entry.weights) if PROTOCOLS[protocol].size is None else None
                pixels = trained or usual
            made = deployed(
                entry.model,
                entry.recipe,
                pixels,
                progress,
                weights=entry.weights,
                calibrate_on=images.name,
                access=access,
            )
            paths.append(made.path)
        stage = f"accuracy ({images.name} {images.split})"
        results = evaluate_many(
            [(path, None) for path in paths],
            images,
            protocol,
            progress=lambda done, total: progress(stage, done, total),
        )
        return [
            _Made(entry, "x".join(map(str, onnx_size(path))), file_sha256(path), result)
            for entry, path, result in zip(entries, paths, results, strict=True)
        ]


def _mean_depth(data: str, access: Access, size: str | None, folder: Path, progress: Stages) -> Path:
    """The trivial predictor of a data set as an ONNX file."""
    from depthbench.suites.runner import prepare_images
    from depthbench.suites.schema import parse_size
    from depthbench.suites.trivial import mean_depth, write_constant

    training = _read(data, access, "train", None, progress)
    prepare_images(training, progress)
    mean = mean_depth(training, parse_size(size or "224x224"), lambda done, total: progress("mean depth", done, total))
    return write_constant(mean, folder / "mean-depth.onnx")


def _describe(made: _Made, other: _Made | None, by_group: bool, per_image: bool) -> dict[str, Any]:
    """One evaluation as JSON-ready values; with ``other``, paired differences to it."""
    result = made.result
    value: dict[str, Any] = {
        **_numbers(result.summary()),
        "model": made.entry.model,
        "recipe": made.entry.recipe,
        "weights": str(made.entry.weights) if made.entry.weights else None,
        "size": made.size,
        "data": result.dataset,
        "split": result.split,
        "protocol": result.protocol,
        "dataset_digest": result.dataset_digest,
        "artefact": made.sha256,
        "skipped": result.skipped,
    }
    if other is not None:
        value |= {"against": str(other.entry), **_paired(made, other)}
    if by_group and result.groups:
        value["groups"] = {
            group: {**_numbers(result.summary(group)), **(_paired(made, other, group) if other else {})}
            for group in sorted(set(result.groups))
        }
    if per_image:
        value["images"] = [
            {"image": name, **_numbers({metric: values[i] for metric, values in result.metrics.items()})}
            for i, name in enumerate(result.images)
        ]
    return value


def _numbers(summary: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in summary.items()}


def _paired(made: _Made, other: _Made, group: str | None = None) -> dict[str, Any]:
    """For each of ``PAIRED``: the other's mean, the mean difference per image (ours - theirs) and its interval."""
    from depthbench.reports.stats import paired_difference

    ours, theirs = made.result, other.result
    chosen = [i for i in range(len(ours.images)) if group is None or ours.groups[i] == group]
    value: dict[str, Any] = {}
    for metric in PAIRED:
        mine, reference = ([result.metrics[metric][i] for i in chosen] for result in (ours, theirs))
        mean, interval, pairs = paired_difference(mine, reference)
        value |= _numbers({f"against_{metric}": theirs.summary(group)[metric], f"{metric}_difference": mean})
        value[f"{metric}_difference_ci95"] = None if math.isnan(interval[0]) else list(interval)
        value["n_pairs"] = pairs
    return value
