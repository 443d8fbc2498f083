"""The command that trains: a model of the catalogue or of a user, or its compressed child."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from depthbench.suites.cli.artefacts import Weights
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import err, out, print_json


def _overrides(pairs: list[str] | None, samples: int | None, seed: int | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--set {pair}: not of the form KEY=VALUE, for example --set lr=0.001")
        changes[key] = yaml.safe_load(value)
    named = {"samples": samples, "seed": seed}
    return changes | {key: value for key, value in named.items() if value is not None}


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
    json: Json = False,
) -> None:
    """Train a model; stopped at any moment, the same command goes on from the last checkpoint.

    With --weights a new stretch starts from those weights; the new file counts the samples of all stretches.
    """
    from depthbench.compression.recipes import RECIPES
    from depthbench.suites.compressing import train_child
    from depthbench.suites.models import build_model, resolve_model
    from depthbench.suites.names import lookup
    from depthbench.suites.training.config import load_config
    from depthbench.suites.training.log import Status, progress_bar, tensorboard
    from depthbench.suites.training.loop import train_model

    chosen = lookup("recipe", recipe, RECIPES)
    spec = resolve_model(model, weights=weights)
    if spec.kind == "onnx":
        raise ValueError(f"{model}: an ONNX file cannot be trained; name a catalogue model or package.module:function")
    changes = _overrides(settings, samples, seed)
    training = load_config("finetune" if chosen.steps else "train", changes, config)
    command = shlex.join(["depthbench", *sys.argv[1:]])
    try:
        with progress_bar(f"{model} {recipe}" if chosen.steps else model) as bar, tensorboard(out_dir) as board:

            def report(status: Status) -> None:
                bar(status)
                board(status)

            if chosen.steps:
                path = train_child(
                    spec, chosen, out_dir, training=changes, config_file=config, report=report, command=command
                )
            else:
                start = replace(spec, path=weights)  # never the shipped weights by themselves
                build = partial(build_model, start, training.seed)
                path = train_model(model, build, training, out_dir, start=weights, report=report, command=command)
    except FloatingPointError as error:
        err.print(f"depthbench: {error}", highlight=False, markup=False)
        raise typer.Exit(1) from None
    if json:
        print_json({"weights": str(path), "samples": training.samples})
    else:
        out.print(f"weights: {path}", highlight=False, markup=False)
