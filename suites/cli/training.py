"""The command that trains: a model of the catalogue or of a user, or its compressed child."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from depthbench.suites.cli.artefacts import Weights
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import err, out, print_json

if TYPE_CHECKING:
    from torch import nn

    from depthbench.suites.data import Access
    from depthbench.suites.models import ModelSpec


def _overrides(pairs: list[str] | None, samples: int | None, seed: int | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--set {pair}: not of the form KEY=VALUE, for example --set lr=0.001")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {pair}: {value!r} is not YAML ({' '.join(str(error).split())})") from None
    named = {"samples": samples, "seed": seed}
    return changes | {key: value for key, value in named.items() if value is not None}


def _access(roots: list[str] | None, scales: list[str] | None, skip_broken: int) -> dict[str, Access]:
    """How each data set that there is, by name, is reached."""
    from depthbench.suites.data import DATASETS, Access

    folders = {name: Path(folder) for name, folder in _pairs("--data-root", "FOLDER", roots).items()}
    units = {}
    for name, text in _pairs("--depth-scale", "SCALE", scales).items():
        try:
            units[name] = float(text)
        except ValueError:
            raise ValueError(f"--depth-scale {name}={text}: {text!r} is not a number") from None
    return {name: Access(folders.get(name), units.get(name), skip_broken) for name in DATASETS}


def _skipped(metadata: dict[str, Any]) -> list[str]:
    """A line for each broken image that a training left out, by what its weights file says."""
    parts = [metadata, *metadata.get("reports", [])]
    return [line for part in parts for line in part.get("skipped", [])]


def _pairs(option: str, what: str, given: list[str] | None) -> dict[str, str]:
    """What a repeatable option says of data sets, by name."""
    from depthbench.suites.data import dataset_info

    found = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not value:
            raise ValueError(f"{option} {text}: not of the form NAME={what}, for example {option} folder={what}")
        if dataset_info(name).load is None:
            raise ValueError(f"{option} {text}: {name} is rendered here, it has no files")
        if name in found:
            raise ValueError(f"{option}: {name} is given twice")
        found[name] = value
    return found


def _find(mixture: Collection[str], access: Mapping[str, Access]) -> None:
    """``ValueError`` when nothing says where a data set of the mixture lies, with the way to do without if there is one."""
    from depthbench.suites.data import dataset_info, find_root

    for name in mixture:
        if access[name].root is None and dataset_info(name).load is not None:
            try:
                find_root(name)
            except ValueError as error:
                without = "; or train on rendered rooms alone: --set 'mixture={rooms: 1}'" if "rooms" in mixture else ""
                raise ValueError(f"{error}{without}") from None


def _build(spec: ModelSpec, seed: int, encoder: Path | None) -> nn.Module:
    """The network that a training begins with."""
    from depthbench.baselines import MobileViTDepth, load_mobilevit_checkpoint
    from depthbench.suites.models import build_model

    module = build_model(spec, seed)
    if encoder is not None:
        assert isinstance(module, MobileViTDepth)  # the caller's check
        load_mobilevit_checkpoint(module, encoder)
    return module


def train(
    model: Annotated[str, typer.Argument(help="A catalogue name or package.module:function.")],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for weights, checkpoint and log; a training in it is continued.")
    ],
    recipe: Annotated[
        str, typer.Option(help="With a compressing recipe (prune30): prune the trained model, then fine-tune it.")
    ] = "fp32",
    config: Annotated[Path | None, typer.Option(help="Training recipe (YAML), in place of the one that ships.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="How many samples to train on.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a field of the training recipe; repeatable."),
    ] = None,
    weights: Weights = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="A published MobileViT checkpoint (safetensors) that the encoder starts from."),
    ] = None,
    data_root: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Folder of a data set of the mixture; repeatable."),
    ] = None,
    depth_scale: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SCALE", help="Stored depth units per metre, for folder; by its layout if left out."),
    ] = None,
    skip_broken: Annotated[
        int, typer.Option(min=0, help="Leave out up to so many broken images of each data set, and say which.")
    ] = 0,
    json: Json = False,
) -> None:
    """Train a model; stopped at any moment, the same command goes on from the last checkpoint.

    With --weights a new stretch starts from those weights; the new file counts the samples of all stretches.
    """
    from depthbench.compression.recipes import RECIPES
    from depthbench.suites.checkpoint import read_tensors
    from depthbench.suites.compressing import train_child
    from depthbench.suites.models import resolve_model
    from depthbench.suites.names import lookup
    from depthbench.suites.storage.disk import writable
    from depthbench.suites.training.config import load_config
    from depthbench.suites.training.log import Status, progress_bar, tensorboard
    from depthbench.suites.training.loop import train_model

    chosen = lookup("recipe", recipe, RECIPES)
    spec = resolve_model(model, weights=weights)
    if spec.kind == "onnx":
        raise ValueError(f"{model}: an ONNX file cannot be trained; name a catalogue model or package.module:function")
    if encoder is not None and (weights is not None or chosen.steps or spec.family != "mobilevit"):
        raise ValueError(
            f"--encoder {encoder}: is for a MobileViT of the catalogue, without --weights or a pruning --recipe"
        )
    changes = _overrides(settings, samples, seed)
    training = load_config("finetune" if chosen.steps else "train", changes, config)
    access = _access(data_root, depth_scale, skip_broken)
    given = [name for name, how in access.items() if how.root is not None or how.depth_scale is not None]
    if strange := [name for name in given if not chosen.steps and name not in training.mixture]:
        raise ValueError(
            f"--data-root, --depth-scale: {strange[0]} is not in the mixture ({', '.join(training.mixture)})"
        )
    if not chosen.steps:
        _find(training.mixture, access)
    command = shlex.join(["depthbench", *sys.argv[1:]])
    writable(out_dir)
    try:
        with progress_bar(f"{model} {recipe}" if chosen.steps else model) as bar, tensorboard(out_dir) as board:

            def report(status: Status) -> None:
                bar(status)
                board(status)

            if chosen.steps:
                path = train_child(
                    spec,
                    chosen,
                    out_dir,
                    training=changes,
                    config_file=config,
                    access=access,
                    report=report,
                    command=command,
                )
            else:
                start = replace(spec, path=weights)  # never the shipped weights by themselves
                build = partial(_build, start, training.seed, encoder)
                path = train_model(
                    model,
                    build,
                    training,
                    out_dir,
                    start=weights,
                    encoder=encoder,
                    code=resolve_model(model).digest if spec.kind == "function" else "",
                    access=access,
                    report=report,
                    command=command,
                )
    except FloatingPointError as error:
        err.print(f"depthbench: {error}")
        raise typer.Exit(1) from None
    for line in _skipped(read_tensors(path)[1]):
        err.print(f"left out: {line}")
    if json:
        print_json({"weights": str(path), "samples": training.samples})
    else:
        out.print(f"weights: {path}")
