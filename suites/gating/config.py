"""``efficiency.yaml``: what a gate builds, measures and tolerates, each tolerance with its reason. Imports no torch.

All faults of a file are reported at once, one line each, with the path to the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from depthbench.compression.recipes import RECIPES
from depthbench.suites.names import lookup, unknown
from depthbench.suites.schema import Size

FILE = "efficiency.yaml"
SCHEMA_VERSION = 1
"""History: 1, first version."""

ACCURACY = ("rmse_m", "abs_rel", "delta1")
EXACT = ("params", "macs", "activation_peak", "nodes", "quantized_nodes", "shapes", "signature", "operators")
METRICS = (*EXACT, "size", *ACCURACY, "latency")
"""Every check of a gate, in the order in which a report shows them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tolerance(_Strict):
    """How far a metric may move, as a share of the base's value, and why."""

    tolerance: float = Field(ge=0, lt=1, strict=False)
    reason: str = Field(min_length=1)


DEFAULTS: Mapping[str, Tolerance] = {
    **{name: Tolerance(tolerance=0, reason="a count is exact; a change of it is meant or a mistake") for name in EXACT},
    "size": Tolerance(tolerance=0.005, reason="names and metadata in the file may change; weights may not"),
    **{
        name: Tolerance(tolerance=0.01, reason="below this nobody sees a difference in a depth map")
        for name in ACCURACY
    },
    "latency": Tolerance(tolerance=0.05, reason="two processes of one file differ by up to 3 % on a shared machine"),
}


class Built(_Strict):
    """A file that a checkout or a revision is asked to build: MODEL, recipe and input size."""

    model: str
    recipe: str = "fp32"
    size: Size = (224, 224)

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, value: str) -> str:
        lookup("recipe", value, RECIPES)
        return value

    @property
    def name(self) -> str:
        """``MODEL--RECIPE--HxW``, the name of the file."""
        model = re.sub(r"[^\w.:-]+", "-", self.model)  # a MODEL may be a path
        return f"{model}--{self.recipe}--{self.size[0]}x{self.size[1]}"


class Images(_Strict):
    """The pinned subset that accuracy is computed on: the first ``limit`` images of a split."""

    name: str = "rooms"
    split: Literal["test", "calibration", "train"] = "test"
    limit: int = Field(default=32, ge=10, description="an interval needs at least 10 images")
    protocol: str | None = None
    depth_scale: float | None = Field(default=None, gt=0, description="stored depth units per metre, of folder")


class Timing(_Strict):
    """How latency is measured: rounds of A B B A blocks, alternating between long-lived processes."""

    rounds: int = Field(default=10, ge=10)
    block_s: float = Field(default=0.075, gt=0, strict=False)
    warmup_s: float = Field(default=0.4, ge=0, strict=False)
    threads: int = Field(default=1, ge=1)


class Policy(_Strict):
    """A whole ``efficiency.yaml``."""

    schema_version: Literal[1] = 1
    build: tuple[Built, ...] = Field(default=(), strict=False)
    data: Images | None = Images()
    timing: Timing = Timing()
    operators: tuple[str, ...] | None = Field(default=None, strict=False)
    defaults: Mapping[str, Tolerance] = {}
    models: Mapping[str, Mapping[str, Tolerance]] = {}
    benchmarks: Mapping[str, Tolerance] = {}

    @field_validator("defaults")
    @classmethod
    def _known_metrics(cls, value: Mapping[str, Tolerance]) -> Mapping[str, Tolerance]:
        for name in value:
            lookup("metric", name, dict.fromkeys(METRICS))
        return value

    @field_validator("models")
    @classmethod
    def _known_model_metrics(
        cls, value: Mapping[str, Mapping[str, Tolerance]]
    ) -> Mapping[str, Mapping[str, Tolerance]]:
        for metrics in value.values():
            cls._known_metrics(metrics)
        return value

    def tolerance(self, model: str, metric: str) -> Tolerance:
        """The tolerance of a metric of a model: its own, else the file's, else the program's."""
        own: Mapping[str, Tolerance] = self.models.get(model, {})
        return own.get(metric) or self.defaults.get(metric) or DEFAULTS[metric]


def load_policy(path: Path | None) -> Policy:
    """The policy in a file; the program's own without one. ``ValueError``: one line a fault."""
    if path is None:
        return Policy()
    return parse_policy(read_yaml(path), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; ``ValueError`` names a file that is missing, damaged, or of another schema version."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a mapping, found {type(value).__name__}")
    version = value.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: schema_version {version!r} is not readable here (this program reads {SCHEMA_VERSION})"
        )
    return value


def parse_policy(value: Mapping[str, Any], source: str) -> Policy:
    """A policy from YAML values; ``source`` begins every line of an error."""
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        raise ValueError("\n".join(f"{source}: {fault_line(fault, _FIELDS)}" for fault in error.errors())) from None


_FIELDS: Mapping[str, type[BaseModel]] = {
    "build": Built,
    "data": Images,
    "timing": Timing,
    **dict.fromkeys(("defaults", "models", "benchmarks"), Tolerance),
}


def fault_line(fault: Any, sections: Mapping[str, type[BaseModel]]) -> str:
    """One line for a fault that pydantic found, with the path to the key and, for an unknown key, the choices."""
    path = ""
    for part in fault["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if fault["type"] == "extra_forbidden":
        section = sections.get(str(fault["loc"][0]), Policy) if len(fault["loc"]) > 1 else Policy
        return f"{path}: {unknown('key', str(fault['loc'][-1]), section.model_fields)}"
    if fault["type"] == "missing":
        return f"{path}: this key is required"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" + ("" if fault["type"] == "value_error" else f" (got {fault['input']!r:.80})")


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """``names``, or those of them that ``only`` lists; ``ValueError`` for one that is not there."""
    for name in only:
        if name not in names:
            raise ValueError(unknown("artefact", name, names))
    return [name for name in names if not only or name in only]
