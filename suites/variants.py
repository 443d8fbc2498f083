"""Models that a suite trains itself: a catalogue model with options changed, once for each seed. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from depthbench.suites.data import open_dataset
from depthbench.suites.models import MODELS, ModelSpec, file_sha256, resolve_model
from depthbench.suites.names import unknown
from depthbench.suites.training_config import SAME_RESULT, TrainConfig, load_config

if TYPE_CHECKING:
    from depthbench.suites.schema import ModelEntry, TrainSpec


@dataclass(frozen=True)
class Variant:
    """What a suite builds and trains: a model with options of its builder, a seed, and the training's configuration."""

    name: str
    model: str
    options: tuple[tuple[str, Any], ...]
    seed: int
    config: TrainConfig

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the weights but the data's content and the libraries, as JSON-ready values."""
        return {
            "variant": self.name,
            "model": self.model,
            "options": dict(self.options),
            "seed": self.seed,
            "config": self.config.model_dump(mode="json", exclude=SAME_RESULT),
        }


def option_faults(model: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with options of a catalogue model's builder: ``.option: message`` each, none when all is well."""
    if not options:
        return []
    known = MODELS[model].options() if model in MODELS else {}
    if not known:
        return [f": {model} has no options"]
    faults = [f".{name}: {unknown('option', name, known)}" for name in options if name not in known]
    for name, value in options.items():
        if name in known:
            try:
                # A YAML list is a tuple of the configuration; nothing else is converted.
                TypeAdapter(known[name]).validate_python(value, strict=not isinstance(value, list))
            except ValidationError as error:
                faults.append(f".{name}: {error.errors()[0]['msg']} (got {value!r})")
    if not faults:
        import torch

        try:
            with torch.random.fork_rng(devices=[]):
                MODELS[model].build(**options)  # its own checks speak
        except ValueError as error:
            faults.append(f": {error}")
    return faults


def recipe_config(train: TrainSpec, seed: int) -> TrainConfig:
    """The training of one seed: the shipped recipe on one thread, the suite's overrides, budget and seed."""
    return load_config("train", {"threads": 1, **train.recipe, "samples": train.samples, "seed": seed})


def training_digests(train: TrainSpec, roots: Mapping[str, Path]) -> dict[str, str]:
    """Digests of all that a suite's trainings read: the data sets' training splits and the teacher, by name."""
    config = recipe_config(train, train.seeds[0])
    found = {
        name: open_dataset(name, "train", root=roots.get(name), limit=config.images.get(name)).digest
        for name in config.mixture
    }
    if config.distill:
        teacher = config.distill.teacher
        file = Path(teacher) if teacher.endswith(".safetensors") else None
        found["teacher"] = file_sha256(file) if file else resolve_model(teacher).digest
    return found


def trained_specs(entry: ModelEntry, train: TrainSpec, digests: Mapping[str, str]) -> list[ModelSpec]:
    """The models that an entry of a suite stands for, one a seed. Their digests are those of what they are trained by."""
    base = resolve_model(entry.model)
    specs = []
    for seed in train.seeds:
        variant = Variant(entry.name, entry.model, tuple(entry.options.items()), seed, recipe_config(train, seed))
        identity = [variant.to_json(), base.kind, base.digest if base.kind == "function" else None, dict(digests)]
        text = json.dumps({"training": identity}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        specs.append(ModelSpec(f"{entry.name}-seed{seed}", base.kind, base.family, digest, variant=variant))
    return specs
