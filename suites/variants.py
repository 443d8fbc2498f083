"""Models that a suite trains itself: a catalogue model with options changed, once for each seed. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from depthbench.suites.data import USUAL, Access
from depthbench.suites.models import MODELS, ModelSpec, file_sha256, resolve_model
from depthbench.suites.names import unknown
from depthbench.suites.training.config import SAME_RESULT, TrainConfig, load_config

if TYPE_CHECKING:
    from depthbench.suites.schema import ModelEntry, TrainSpec


WEIGHTS_FILE = ".safetensors"


@dataclass(frozen=True)
class Variant:
    """What a suite builds and trains: a model with options of its builder, a seed, and the training's configuration."""

    name: str
    model: str
    options: tuple[tuple[str, Any], ...]
    seed: int
    config: TrainConfig

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the weights but the data's content and the libraries, as JSON-ready values.

        Of a teacher's weights file its name alone: where it lies decides nothing, and what is in it is in the digests.
        """
        config = self.config.model_dump(mode="json", exclude=SAME_RESULT)
        if self.config.distill and self.config.distill.teacher.endswith(WEIGHTS_FILE):
            config["distill"]["teacher"] = Path(self.config.distill.teacher).name
        return {
            "variant": self.name,
            "model": self.model,
            "options": dict(self.options),
            "seed": self.seed,
            "config": config,
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
    config = MODELS[model].config
    if not faults and config is not None:
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        try:
            replace(config(), **given)  # its own checks speak
        except ValueError as error:
            faults.append(f": {error}")
    return faults


def recipe_config(train: TrainSpec, seed: int, base: Path | None = None) -> TrainConfig:
    """The training of one seed: the shipped recipe on one thread, the suite's overrides, budget and seed.

    ``base``: the folder from which a teacher's weights file is named.
    """
    config = load_config("train", {"threads": 1, **train.recipe, "samples": train.samples, "seed": seed})
    if base is None or config.distill is None or not config.distill.teacher.endswith(WEIGHTS_FILE):
        return config
    teacher = str(base / config.distill.teacher)
    return config.model_copy(update={"distill": config.distill.model_copy(update={"teacher": teacher})})


def training_digests(train: TrainSpec, access: Mapping[str, Access], base: Path | None = None) -> dict[str, str]:
    """Digests of all that a suite's trainings read: the data sets' training splits and the teacher, by name."""
    config = recipe_config(train, train.seeds[0], base)
    found = {
        name: access.get(name, USUAL).open(name, "train", config.images.get(name)).digest for name in config.mixture
    }
    if config.distill:
        teacher = config.distill.teacher
        found["teacher"] = (
            file_sha256(Path(teacher)) if teacher.endswith(WEIGHTS_FILE) else resolve_model(teacher).digest
        )
    return found


def trained_specs(
    entry: ModelEntry, train: TrainSpec, digests: Mapping[str, str], base: Path | None = None
) -> list[ModelSpec]:
    """The models that an entry of a suite stands for, one a seed. Their digests are those of what they are trained by."""
    origin = resolve_model(entry.model)
    specs = []
    for seed in train.seeds:
        config = recipe_config(train, seed, base)
        variant = Variant(entry.name, entry.model, tuple(entry.options.items()), seed, config)
        identity = [variant.to_json(), origin.kind, origin.digest if origin.kind == "function" else None, dict(digests)]
        text = json.dumps({"training": identity}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        specs.append(ModelSpec(f"{entry.name}-seed{seed}", origin.kind, origin.family, digest, variant=variant))
    return specs
