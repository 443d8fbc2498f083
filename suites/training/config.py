"""The configuration of a training: typed, frozen, read from YAML. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from depthbench.suites.data import DATASETS
from depthbench.suites.names import unknown

SAME_RESULT = {"checkpoint_samples", "log_samples", "workers", "explosion"}
"""Fields of :class:`TrainConfig` that do not change what a training ends with."""

FARTHEST_M = 655
"""Training keeps depth in 16 bits, in steps of a centimetre at most."""


class Augment(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How far a training image is varied; a range's width, 0 switches that variation off."""

    crop: float = Field(default=0.75, gt=0, le=1)
    """Smallest side of the random crop as a share of the image; the crop keeps the image's aspect ratio."""
    flip: bool = True
    """Mirrored left to right, every second image."""
    gamma: float = Field(default=0.25, ge=0, lt=1)
    """Gamma of the brightness, around 1."""
    brightness: float = Field(default=0.25, ge=0, lt=1)
    """Gain of all channels, around 1."""
    contrast: float = Field(default=0.2, ge=0, lt=1)
    """Contrast around the image's mean, around 1."""
    colour: float = Field(default=0.1, ge=0, lt=1)
    """Gain of each channel; saturation varies four times as far."""
    gray: float = Field(default=0.05, ge=0, lt=1)
    """Share of images without colour."""
    noise: float = Field(default=0.02, ge=0, lt=1)
    """Largest standard deviation of the noise, of a range of 1."""
    blur: float = Field(default=0.0, ge=0, le=8)
    """Largest standard deviation of a Gaussian blur, in pixels of the network's input."""


class Loss(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Weights of the terms of :class:`depthbench.tst.losses.DepthLoss`."""

    silog: float = Field(default=1.0, ge=0)
    """Scale-invariant logarithmic error."""
    gradient: float = Field(default=0.5, ge=0)
    """Differences of the depth's gradients."""
    edge: float = Field(default=0.1, ge=0)
    """Edge-aware term: depth is smooth where the image is."""
    variance_focus: float = Field(default=0.85, ge=0, le=1)
    """Share of the squared mean that the scale-invariant error forgives."""
    metric: float = Field(default=0.0, ge=0)
    """Root mean square error of each image in metres, per metre: what RMSE reports. The logarithm alone minds an error at
    5 m as little as the fifth of it at 1 m."""


class Distill(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Knowledge distillation: the network also learns what a larger, trained one says about the same pictures."""

    teacher: str = Field(min_length=1)
    """A catalogue model that ships with weights, a weights file that ``depthbench train`` wrote, or ``parent``: the network
    that a recipe prunes, as it was before."""
    weight: float = Field(default=0.5, gt=0)
    """Of the mean |ln(prediction / teacher's prediction)| over all pixels, those without ground truth too."""


class Stage(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A share of the samples, and the input sizes (``HxW``) of which each batch draws one."""

    share: float = Field(gt=0, le=1)
    """Of all samples; the shares of all stages add up to 1."""
    sizes: tuple[str, ...] = Field(min_length=1)
    """HxW, multiples of 32. Training images are kept with 240 px on the shorter side and are blown up beyond."""

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


class TrainConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One training. Lengths are counted in samples, so a batch size changes no other number."""

    samples: int = Field(default=40_000, ge=1)
    """Images that the training sees, repetitions counted."""
    batch: int = Field(default=16, ge=1)
    """Images of a batch."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose mean gradient makes one step of the optimizer."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the first weights, the order of the images and how they are varied."""
    mixture: dict[str, float] = Field(default={"rooms": 0.5, "nyu-labeled": 0.5}, min_length=1)
    """Data set: its weight, in proportion to the samples drawn from its training split."""
    images: dict[str, int] = {}
    """Data set: only its first so many training images."""
    stages: tuple[Stage, ...] = Field(
        default=(Stage(share=0.7, sizes=("128x128",)), Stage(share=0.3, sizes=("224x224",))), min_length=1
    )
    """One after the other, for example small images first."""
    lr: float = Field(default=0.002, gt=0)
    """Peak learning rate of AdamW; linear warm-up, then a cosine to zero."""
    transformer_lr: float = Field(default=1.0, gt=0)
    """Learning rate of linear layers and layer norms, in units of ``lr``. Their weights begin small, so a step
    that suits convolutions changes them too much: a MobileViT's residual stream then grows until its gradients explode."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the samples in the warm-up."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Of matrices and kernels only."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay per step of the average of the weights that is kept in the end."""
    loss: Loss = Loss()
    """Weights of the terms of the loss."""
    distill: Distill | None = None
    """Learning from a larger network too."""
    augment: Augment = Augment()
    """How far a training image is varied."""
    max_depth: float = Field(default=10.0, gt=0)
    """Metres; ground truth beyond it counts as missing. Up to 10 m depth is kept in steps of 0.2 mm, for 80 m in steps of
    1.2 mm."""
    explosion: float = Field(default=5.0, gt=1)
    """A running mean of the loss this many times the lowest one so far stops the training as diverged."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """On ``cuda`` the data set ``rooms`` is rendered while training, every picture a new one."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch, 0 = as they are."""
    workers: int | None = Field(default=None, ge=0)
    """Threads that prepare batches ahead; 0 prepares each when its turn comes. Left out: on ``cuda`` one a core, 8 at most, on
    ``cpu`` none. They change no result."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """``bf16``, ``fp16``: the network runs under autocast, weights and loss stay float32; ``fp16`` scales its loss and needs
    ``cuda``."""
    channels_last: bool = False
    """Memory layout of the images and weights: often faster, the same result to rounding."""
    compile: bool = False
    """With torch.compile."""
    checkpoint_samples: int = Field(default=2000, ge=1)
    """A checkpoint is written every so many samples."""
    log_samples: int = Field(default=320, ge=1)
    """A line is written to the log every so many samples."""

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
        if self.max_depth > 10 and self.max_depth / self.augment.crop > FARTHEST_M:
            crops = "" if self.augment.crop == 1 else f" in crops of {self.augment.crop:g}"
            raise ValueError(f"max_depth: {self.max_depth:g}{crops} is beyond the {FARTHEST_M} m that depth is kept to")
        if self.precision == "fp16" and self.device == "cpu":
            raise ValueError("precision: fp16 needs device cuda; use bf16 on the CPU")
        return self

    @property
    def ahead(self) -> int:
        """Threads that prepare batches ahead."""
        if self.workers is not None:
            return self.workers
        return 0 if self.device == "cpu" else min(8, os.cpu_count() or 1)

    @property
    def step_samples(self) -> int:
        """Samples that one step of the optimizer sees."""
        return self.batch * self.accumulate

    @property
    def steps(self) -> int:
        """Number of steps of the optimizer."""
        return -(-self.samples // self.step_samples)

    def sizes_at(self, step: int) -> list[tuple[int, int]]:
        """The input sizes that the batches of ``step`` may have."""
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
    where = "training.yaml" if path is None else str(path)
    parts = [*_sections(section, path, where), overrides or {}]
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"{where}: a section must be a mapping of keys to values")
    try:
        return TrainConfig.model_validate({key: value for part in parts for key, value in part.items()})
    except ValidationError as error:
        raise ValueError(f"{where}: {'; '.join(_faults(error))}") from None


def config_faults(overrides: Mapping[str, Any]) -> list[str]:
    """What is wrong with fields that replace those of the shipped recipe: ``key: message`` each, none when all is well."""
    try:
        TrainConfig.model_validate({**_sections("train", None, "training.yaml")[0], **overrides})
    except ValidationError as error:
        return _faults(error)
    return []


def _sections(section: str, path: Path | None, where: str) -> list[Any]:
    """The sections of a recipe file that count for ``section``, the general one first."""
    if path is None:
        text = resources.files("depthbench.suites").joinpath("training.yaml").read_text("utf-8")
    elif path.is_file():
        text = path.read_text("utf-8")
    else:
        raise ValueError(f"{path}: no such file")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not set(content) <= {"train", "finetune"}:
        raise ValueError(f"{where}: expected the sections train and finetune")
    return [content.get(name) or {} for name in ("train", "finetune")[: 2 if section == "finetune" else 1]]


def _faults(error: ValidationError) -> list[str]:
    return [_fault(fault) for fault in error.errors()]


def _fault(fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        inside: dict[str, type[BaseModel]] = {"augment": Augment, "loss": Loss, "stages": Stage, "distill": Distill}
        owner = inside.get(fault["loc"][0], TrainConfig) if len(fault["loc"]) > 1 else TrainConfig
        return f"{key}: {unknown('key', str(fault['loc'][-1]), owner.model_fields)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
