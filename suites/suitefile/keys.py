"""The keys of a suite, as pydantic models: their types, defaults and what they mean. Imports no torch.

``depthbench schema`` and docs/suites.md are made from this module; the descriptions here are what a user reads.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_serializer,
    field_validator,
)

from depthbench.suites.targets import LARGEST_BATCH
from depthbench.suites.targets.boardfile import Boards

ProfileName = Literal["quick", "standard", "sustained"]


def parse_size(value: Any) -> tuple[int, int]:
    """``"HxW"`` as (height, width); ``ValueError`` unless both are multiples of 32 from 32 to 4096."""
    if not isinstance(value, str) or not (match := re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", value)):
        raise ValueError(f"size {value!r:.40} is not of the form HxW, for example 224x224")
    height, width = int(match[1]), int(match[2])
    near = tuple(min(max(32, round(side / 32) * 32), 4096) for side in (height, width))
    if near != (height, width):
        raise ValueError(
            f"size {value} is not usable: height and width must be multiples of 32 up to 4096, for example {near[0]}x{near[1]}"
        )
    return height, width


Size = Annotated[
    tuple[int, int],
    BeforeValidator(parse_size),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$", "examples": ["224x224"]}),
]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_TEXTS: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Patterns = Annotated[
    tuple[str, ...], BeforeValidator(_several), Field(min_length=1, strict=False), WithJsonSchema(_TEXTS)
]
"""A pattern (``*``, ``?``, ``[...]``) or a list of them."""


def each_once(what: str, value: tuple[int, ...]) -> tuple[int, ...]:
    """``value`` itself; ``ValueError`` when a number in it is given twice."""
    if len(set(value)) < len(value):
        raise ValueError(f"a {what} is given twice in {', '.join(map(str, value))}")
    return value


class Strict(BaseModel):
    """Unknown keys are refused, nothing is converted, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataDefaults(Strict):
    """What data sets have in common."""

    split: Literal["test", "train", "calibration"] = Field(default="test", description="the split that is evaluated")
    limit: int | None = Field(default=None, ge=1, description="at most this many images, the first ones")
    protocol: str | None = Field(
        default=None, description="evaluation protocol; the data set's own when left out (see `depthbench datasets`)"
    )
    skip_broken: int = Field(
        default=0, ge=0, description="leave out up to so many broken images of a split, and record which"
    )


class DataSpec(DataDefaults):
    """The images that accuracy is computed on."""

    name: str = Field(default="rooms", description="a data set (`depthbench datasets`)")
    depth_scale: float | None = Field(
        default=None,
        gt=0,
        description="stored depth units per metre, for `folder` only; by its layout when left out",
    )


class MeasureSpec(Strict):
    """How latency is measured."""

    profile: ProfileName = Field(default="quick", description="how long each cell is measured")
    batches: tuple[Annotated[int, Field(ge=1, le=LARGEST_BATCH)], ...] = Field(
        default=(),
        max_length=16,
        strict=False,
        description="batch sizes whose throughput is measured too, on a CPU or a GPU",
    )

    @field_validator("batches")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return each_once("batch size", value)


class EntryDefaults(Strict):
    """What entries that the suite trains have in common."""

    model: str | None = Field(default=None, description="a catalogue model or `package.module:function`")
    options: dict[str, Any] = Field(default={}, description="fields of the model's configuration that are changed")


class ModelEntry(Strict):
    """A model that the suite trains by its `train` section, under a name of its own, once for each seed."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="its name in the results, with `-seedN` behind it"
    )
    model: str = Field(description="a catalogue model or `package.module:function`")
    options: dict[str, Any] = Field(default={}, description="fields of the model's configuration that are changed")


class TrainSpec(Strict):
    """The training that every entry of the suite gets: one budget, one recipe, these seeds."""

    samples: int = Field(ge=1, description="images that each training sees")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        default=(0,), min_length=1, max_length=1000, strict=False, description="each entry is trained once for each"
    )
    recipe: dict[str, Any] = Field(default={}, description="fields that replace those of the shipped training recipe")

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return each_once("seed", value)


NAME, ENTRY = "<name>", "<entry>"
"""Marks, in the place of a fault, of which of its two forms a value has."""

Model = Annotated[
    Annotated[str, Tag(NAME)] | Annotated[ModelEntry, Tag(ENTRY)],
    Discriminator(lambda value: ENTRY if isinstance(value, dict | ModelEntry) else NAME),
]
"""A MODEL in words, or an entry that the suite trains."""

DataChoice = Annotated[
    Annotated[str, Tag(NAME)] | Annotated[DataSpec, Tag(ENTRY)],
    Discriminator(lambda value: ENTRY if isinstance(value, dict | DataSpec) else NAME),
]
"""A data set by its name, or with its split, limit, protocol and how it is read."""


class Cells(Strict):
    """A choice of cells: those that match every key that is given. A pattern may hold `*`, `?` and `[...]`."""

    model: Patterns | None = Field(default=None, description="a model or entry as the suite writes it, or a pattern")
    recipe: Patterns | None = Field(default=None, description="a recipe, or a pattern")
    size: Patterns | None = Field(default=None, description="an input size HxW, or a pattern")
    target: Patterns | None = Field(default=None, description="a target, or a pattern")
    data: Patterns | None = Field(default=None, description="a data set, or a pattern")


_MODELS = "catalogue names, `.onnx` files below the suite's folder, `package.module:function`, or entries to train"
_DATA = "data sets, by name or with split, limit and protocol; the suite's own `data` when left out"
_EXCLUDE = "cells of this block that are left out"
_INCLUDE = (
    "cells that are added after `exclude`; a key that is left out stands for the block's whole list, a pattern for those of "
    "the block's that match, any other name for itself"
)


class BlockDefaults(Strict):
    """What blocks of the matrix have in common."""

    models: tuple[Model, ...] = Field(default=(), min_length=1, strict=False, description=_MODELS)
    recipes: tuple[str, ...] = Field(
        default=(), min_length=1, strict=False, description="recipes (`depthbench recipes`), or the suite's own"
    )
    sizes: tuple[Size, ...] = Field(
        default=((224, 224),), min_length=1, strict=False, description="input sizes HxW, multiples of 32"
    )
    targets: tuple[str, ...] = Field(
        default=(), min_length=1, strict=False, description="targets (`depthbench targets`)"
    )
    data: tuple[DataChoice, ...] | None = Field(default=None, min_length=1, strict=False, description=_DATA)
    exclude: tuple[Cells, ...] = Field(default=(), max_length=200, strict=False, description=_EXCLUDE)
    include: tuple[Cells, ...] = Field(default=(), max_length=200, strict=False, description=_INCLUDE)


class Block(BlockDefaults):
    """A block of the matrix: every model × recipe × size × target × data set in it is a cell."""

    models: tuple[Model, ...] = Field(min_length=1, strict=False, description=_MODELS)
    recipes: tuple[str, ...] = Field(
        min_length=1, strict=False, description="recipes (`depthbench recipes`), or the suite's own"
    )
    targets: tuple[str, ...] = Field(min_length=1, strict=False, description="targets (`depthbench targets`)")


RecipeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class Suite(Strict):
    """A whole suite, after `extends`, `env` and `defaults` are resolved."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="the suite's name; a run folder holds one suite"
    )
    summary: str = Field(default="", description="one line about it")
    data: DataSpec = Field(
        default=DataSpec(), description="the images that accuracy is computed on; its calibration split calibrates INT8"
    )
    measure: MeasureSpec = Field(default=MeasureSpec(), description="how latency is measured")
    train: TrainSpec | None = Field(
        default=None, description="the training of the entries that have a name and a model"
    )
    recipes: dict[RecipeName, dict[str, Any]] = Field(default={}, description="recipes of the suite's own, by name")
    boards: Boards = Field(
        default={}, description="boards over SSH by name, each a target of this suite, as in the user's boards.yaml"
    )
    matrix: tuple[Block, ...] = Field(min_length=1, strict=False, description="blocks of cells")

    @field_serializer("boards")
    def _movable(self, boards: Boards) -> dict[str, Any]:
        """Without the files of this machine: what a run says of its suite holds wherever the run is moved."""
        return {name: entry.model_dump(exclude={"key", "known_hosts"}) for name, entry in boards.items()}

    @property
    def data_sets(self) -> dict[str, DataSpec]:
        """Every data set that a cell may name, by name, the suite's own first."""
        given = [self.data, *(choice for block in self.matrix for choice in block.data or ())]
        found = {spec.name: spec for spec in given if isinstance(spec, DataSpec)}
        return found | {name: DataSpec(name=name) for name in given if isinstance(name, str) and name not in found}

    def on(self, name: str) -> Suite:
        """This suite with all its cells on one data set, whatever it says itself."""
        spec = self.data_sets.get(name, DataSpec(name=name))
        blocks = tuple(block.model_copy(update={"data": None}) for block in self.matrix)
        return self.model_copy(update={"data": spec, "matrix": blocks})


class Defaults(Strict):
    """Values for what a section leaves out; mappings are merged key by key, lists replaced."""

    matrix: BlockDefaults = Field(default=BlockDefaults(), description="for every block of the matrix")
    models: EntryDefaults = Field(default=EntryDefaults(), description="for every entry that the suite trains")
    data: DataDefaults = Field(default=DataDefaults(), description="for every data set that is given as a mapping")


class SuiteFile(Suite):
    """A suite as it is written in a file."""

    extends: str | None = Field(
        default=None,
        description="another suite, by catalogue name or by a file below this one's folder, whose sections this one changes: "
        "mappings are merged key by key, lists replaced",
    )
    env: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = Field(
        default=(),
        strict=False,
        description="environment variables that values may hold as `${NAME}`; no others are read",
    )
    defaults: Defaults = Field(default=Defaults(), description="values for what a section leaves out")
