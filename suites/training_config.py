"""The configuration of a training: typed, frozen, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from depthbench.suites.data import DATASETS
from depthbench.suites.training_data import Augment


class Loss(BaseModel, frozen=True, extra="forbid"):
    """Weights of the terms of :class:`depthbench.tst.losses.DepthLoss`."""

    silog: float = Field(default=1.0, ge=0)
    gradient: float = Field(default=0.5, ge=0)
    edge: float = Field(default=0.1, ge=0)
    variance_focus: float = Field(default=0.85, ge=0, le=1)


class Stage(BaseModel, frozen=True, extra="forbid"):
    """A share of the samples, and the input sizes (``HxW``) of which each batch draws one."""

    share: float = Field(gt=0, le=1)
    sizes: tuple[str, ...] = Field(min_length=1)

    @field_validator("sizes")
    @classmethod
    def _multiples_of_32(cls, sizes: tuple[str, ...]) -> tuple[str, ...]:
        for size in sizes:
            match = re.fullmatch(r"(\d+)x(\d+)", size)
            if match is None or any(int(side) % 32 or int(side) == 0 for side in match.groups()):
                raise ValueError(f"{size} is not HxW with multiples of 32")
        return sizes

    @property
    def pixels(self) -> list[tuple[int, int]]:
        """The sizes as (height, width)."""
        return [(int(height), int(width)) for height, width in (size.split("x") for size in self.sizes)]


class TrainConfig(BaseModel, frozen=True, extra="forbid"):
    """One training. Lengths are counted in samples, so a batch size changes no other number."""

    samples: int = Field(default=40_000, ge=1)
    batch: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0)
    mixture: dict[str, float] = Field(default={"rooms": 0.5, "nyu-labeled": 0.5}, min_length=1)
    """Data set: its weight, in proportion to the samples drawn from its training split."""
    images: dict[str, int] = {}
    """Data set: only its first so many training images."""
    stages: tuple[Stage, ...] = Field(
        default=(Stage(share=0.7, sizes=("128x128",)), Stage(share=0.3, sizes=("224x224",))), min_length=1
    )
    lr: float = Field(default=0.002, gt=0)
    """Peak learning rate of AdamW; linear warm-up, then a cosine to zero."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the samples in the warm-up."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Of matrices and kernels only."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay per step of the average of the weights that is kept in the end."""
    loss: Loss = Loss()
    augment: Augment = Augment()
    max_depth: float = Field(default=10.0, gt=0)
    """Metres; ground truth beyond it counts as missing."""
    device: str = "cpu"
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch, 0 = as they are."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16``: the network runs under autocast, weights and loss stay float32."""
    channels_last: bool = False
    compile: bool = False
    checkpoint_samples: int = Field(default=2000, ge=1)
    log_samples: int = Field(default=320, ge=1)

    @field_validator("mixture", "images")
    @classmethod
    def _known_data(cls, value: dict[str, float]) -> dict[str, float]:
        for name, number in value.items():
            if name not in DATASETS:
                raise ValueError(f"{name!r} is not one of {', '.join(sorted(DATASETS))}")
            if not number > 0:
                raise ValueError(f"{name}: {number} is not above 0")
        return value

    @model_validator(mode="after")
    def _whole(self) -> TrainConfig:
        total = sum(stage.share for stage in self.stages)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"stages: the shares add up to {total:g}, not to 1")
        return self

    @property
    def steps(self) -> int:
        """Number of batches."""
        return -(-self.samples // self.batch)

    def sizes_at(self, step: int) -> list[tuple[int, int]]:
        """The input sizes that batch ``step`` may have."""
        end = 0.0
        for stage in self.stages:
            end += stage.share
            if (step + 0.5) / self.steps < end:
                return stage.pixels
        return self.stages[-1].pixels


def load_config(
    section: Literal["train", "finetune"] = "train",
    overrides: Mapping[str, Any] | None = None,
    path: Path | None = None,
) -> TrainConfig:
    """The configuration of a section of ``path`` (default: the recipe that ships), with fields replaced.

    ``finetune`` holds only what differs from ``train``. All faults are named in one ``ValueError``, each with its key.
    """
    if path is None:
        text, where = resources.files("depthbench.suites").joinpath("training.yaml").read_text("utf-8"), "training.yaml"
    else:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        text, where = path.read_text("utf-8"), str(path)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not set(content) <= {"train", "finetune"}:
        raise ValueError(f"{where}: expected the sections train and finetune")
    parts = [
        content.get("train") or {},
        (content.get("finetune") or {}) if section == "finetune" else {},
        overrides or {},
    ]
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"{where}: a section must be a mapping of keys to values")
    try:
        return TrainConfig.model_validate({key: value for part in parts for key, value in part.items()})
    except ValidationError as error:
        raise ValueError(f"{where}: {'; '.join(_fault(fault) for fault in error.errors())}") from None


def _fault(fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        inside: dict[str, type[BaseModel]] = (
            {"augment": Augment, "loss": Loss, "stages": Stage} if len(fault["loc"]) > 1 else {}
        )
        fields = inside.get(fault["loc"][0], TrainConfig).model_fields
        return f"{key}: unknown key (choices: {', '.join(sorted(fields))})"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
