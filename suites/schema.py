"""A suite: the YAML file that says what is compared, validated before anything runs. Imports no torch.

All faults of a file are reported at once, one line each, with the path to the key:
``matrix[0].models[1]: unknown model 'tst-x'; did you mean tst-s? (choices: ...)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator

from depthbench.compression.recipes import RECIPES
from depthbench.suites.models import MODELS, resolve_model
from depthbench.suites.names import lookup, unknown
from depthbench.suites.targets import TARGETS

CATALOG = "depthbench.suites.catalog"

ProfileName = Literal["quick", "standard", "sustained"]


def parse_size(value: Any) -> tuple[int, int]:
    """``"HxW"`` as (height, width); ``ValueError`` unless both are multiples of 32 from 32 to 4096."""
    if not isinstance(value, str) or not (match := re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)):
        raise ValueError(f"size {value!r} is not of the form HxW, for example 224x224")
    height, width = int(match[1]), int(match[2])
    near = tuple(min(max(32, round(side / 32) * 32), 4096) for side in (height, width))
    if near != (height, width):
        raise ValueError(
            f"size {value} is not usable: height and width must be multiples of 32 up to 4096, for example {near[0]}x{near[1]}"
        )
    return height, width


Size = Annotated[tuple[int, int], BeforeValidator(parse_size)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSpec(_Strict):
    """The images that accuracy is computed on."""

    name: str = Field(default="rooms", description="a data set (depthbench datasets)")
    split: Literal["test", "train", "calibration"] = "test"
    limit: int | None = Field(default=None, ge=1, description="at most this many images, the first ones")
    protocol: str | None = Field(default=None, description="evaluation protocol; the data set's own when left out")


class MeasureSpec(_Strict):
    """How latency is measured."""

    profile: ProfileName = "quick"


class ModelEntry(_Strict):
    """A model that the suite trains by its ``train`` section, under a name of its own, once for each seed."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    model: str = Field(description="a catalogue model or package.module:function")
    options: dict[str, Any] = Field(default={}, description="fields of the model's configuration that are changed")


class TrainSpec(_Strict):
    """The training that every entry of the suite gets: one budget, one recipe, these seeds."""

    samples: int = Field(ge=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1, strict=False)
    recipe: dict[str, Any] = Field(default={}, description="fields that replace those of the shipped training recipe")

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"a seed is given twice in {', '.join(map(str, value))}")
        return value


_NAME, _ENTRY = "<name>", "<entry>"
Model = Annotated[
    Annotated[str, Tag(_NAME)] | Annotated[ModelEntry, Tag(_ENTRY)],
    Discriminator(lambda value: _ENTRY if isinstance(value, dict | ModelEntry) else _NAME),
]
"""A MODEL in words, or an entry that the suite trains."""


class Block(_Strict):
    """A block of the matrix: every model × recipe × size × target in it is a cell."""

    models: tuple[Model, ...] = Field(min_length=1, strict=False)
    recipes: tuple[str, ...] = Field(min_length=1, strict=False)
    sizes: tuple[Size, ...] = Field(default=((224, 224),), min_length=1, strict=False)
    targets: tuple[str, ...] = Field(min_length=1, strict=False)

    @field_validator("recipes")
    @classmethod
    def _known_recipes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            lookup("recipe", name, RECIPES)
        return value

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            lookup("target", name, TARGETS)
        return value


class Suite(_Strict):
    """A whole suite."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    summary: str = ""
    data: DataSpec = DataSpec()
    measure: MeasureSpec = MeasureSpec()
    train: TrainSpec | None = None
    matrix: tuple[Block, ...] = Field(min_length=1, strict=False)


def catalogue() -> list[str]:
    """Names of the suites that ship with the package, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in resources.files(CATALOG).iterdir() if f.name.endswith(".yaml"))


def load_suite(text: str) -> tuple[Suite, Path | None]:
    """The suite that a catalogue name or a path names, and the folder that its relative paths start from.

    ``ValueError`` for a missing file, YAML that cannot be read, or faults in it: one line each.
    """
    if text in catalogue():
        return parse_suite(resources.files(CATALOG).joinpath(f"{text}.yaml").read_text("utf-8"), f"{text}.yaml"), None
    path = Path(text)
    if not path.is_file():
        known = unknown("suite", text, catalogue())
        raise ValueError(f"{text}: no such suite file" if text.endswith((".yaml", ".yml")) else known)
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    return parse_suite(content, str(path), base=path.parent), path.parent


def parse_suite(content: str, source: str, base: Path | None = None) -> Suite:
    """A suite from YAML text; ``source`` begins every line of an error."""
    try:
        value = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{source}: a suite is a mapping with the keys name, data, measure and matrix")
    try:
        suite = Suite.model_validate(value)
    except ValidationError as error:
        raise ValueError("\n".join(f"{source}: {_line(fault)}" for fault in _innermost(error.errors()))) from None
    faults = [*_model_faults(suite, base), *_train_faults(suite)]
    if faults:
        raise ValueError("\n".join(f"{source}: {fault}" for fault in faults))
    return suite


def _model_faults(suite: Suite, base: Path | None) -> Iterator[str]:
    from depthbench.suites.variants import option_faults

    for b, block in enumerate(suite.matrix):
        for m, model in enumerate(block.models):
            place = f"matrix[{b}].models[{m}]"
            name, place = (model, place) if isinstance(model, str) else (model.model, f"{place}.model")
            try:
                spec = resolve_model(name, base)
            except ValueError as error:
                yield f"{place}: {error}"
                continue
            if not isinstance(model, str):
                if spec.kind == "onnx":
                    yield f"{place}: an ONNX file cannot be trained"
                else:
                    options = place.removesuffix("model") + "options"
                    yield from (f"{options}{fault}" for fault in option_faults(name, model.options))


def _train_faults(suite: Suite) -> Iterator[str]:
    """Faults of the ``train`` section, and of the names of what it trains."""
    from depthbench.suites.training_config import config_faults

    entries: dict[str, ModelEntry] = {}
    for b, block in enumerate(suite.matrix):
        for m, model in enumerate(block.models):
            if isinstance(model, str):
                continue
            place = f"matrix[{b}].models[{m}].name"
            if entries.setdefault(model.name, model) != model:
                yield f"{place}: another entry has the name {model.name} already"
            elif model.name in MODELS:
                yield f"{place}: {model.name} is a catalogue model; give what is trained here another name"
    if suite.train is None:
        if entries:
            yield f"train: this key is required to train {', '.join(entries)}"
        return
    if not entries:
        yield "train: no entry of the matrix has a name and a model to train"
    recipe = dict(suite.train.recipe)
    for key in ("samples", "seed"):
        if recipe.pop(key, None) is not None:
            yield f"train.recipe.{key}: stands in train.{'seeds' if key == 'seed' else key}, not in the recipe"
    yield from (f"train.recipe.{fault}" for fault in config_faults(recipe))


def _innermost(faults: Sequence[Any]) -> list[Any]:
    """Without the faults of a list that only follow from a fault inside it."""
    places = [fault["loc"] for fault in faults]
    return [f for f in faults if not any(len(p) > len(f["loc"]) and p[: len(f["loc"])] == f["loc"] for p in places)]


def _shown(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """A fault's path without the marks of which form a model has."""
    return tuple(part for part in loc if part not in {_NAME, _ENTRY})


def _line(fault: Any) -> str:
    path = ""
    for part in _shown(fault["loc"]):
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        fields = _fields(fault["loc"])
        return f"{path}: {unknown('key', str(fault['loc'][-1]), fields)}"
    if fault["type"] == "missing":
        return f"{path}: this key is required"
    shown = repr(fault["input"])
    return f"{path}: {message}" + (f" (got {shown[:80]})" if fault["type"] != "value_error" else "")


def _fields(loc: tuple[Any, ...]) -> list[str]:
    """Names of the keys that are allowed beside the last part of a fault's path."""
    sections: dict[tuple[str, ...], type[_Strict]] = {
        ("data",): DataSpec,
        ("measure",): MeasureSpec,
        ("train",): TrainSpec,
        ("matrix",): Block,
        ("matrix", "models"): ModelEntry,
    }
    section = sections.get(tuple(p for p in _shown(loc)[:-1] if isinstance(p, str)), Suite)
    return list(section.model_fields)
