"""The options of a recipe's steps on the network, checked before anything runs. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Importance = Literal["l1", "l2", "bn", "taylor", "lamp", "random"]
Scope = Literal["uniform", "global", "sensitivity"]

TARGETS: Mapping[str, str] = MappingProxyType(
    {"macs_ratio": "macs", "params_ratio": "params", "latency_ratio": "latency"}
)
"""Option that says how much to remove: of which cost."""

PARENT = "parent"
"""The teacher that is the unpruned network itself."""


class DistillOptions(BaseModel):
    """Knowledge distillation while fine-tuning: the network also learns what a trained one says about the same pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    teacher: str = Field(default=PARENT, min_length=1)
    """``parent``: the network as it was before the recipe's first step; else a model that ships with weights, or a weights
    file."""
    weight: float = Field(default=0.5, gt=0)
    """Of the mean |ln(prediction / teacher's prediction)| over all pixels."""


class FinetuneOptions(BaseModel):
    """Options of the step ``finetune``: ``distill``, and any field of the training's configuration.

    The training loop belongs to the caller of the steps, and so does the check of its fields.
    """

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    samples: int | None = Field(default=None, ge=1)
    """Images that the network sees once more."""
    distill: DistillOptions | None = None
    """Learning from a larger network, or from the one before pruning."""

    @property
    def training(self) -> dict[str, Any]:
        """The fields that are given, as plain values."""
        return self.model_dump(exclude_unset=True) | ({"distill": self.distill.model_dump()} if self.distill else {})


class PruneOptions(BaseModel):
    """Options of the step ``prune``; one of ``macs_ratio``, ``params_ratio`` and ``latency_ratio`` says how much to remove."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    macs_ratio: float | None = None
    """Share of the multiply-accumulates (convolution, linear, matrix product) to remove, in (0, 1)."""
    params_ratio: float | None = None
    """Share of the stored parameters to remove, in (0, 1)."""
    latency_ratio: float | None = None
    """Share of the latency predicted for ``board`` to remove, in (0, 1)."""
    board: str | None = None
    """For which ``latency_ratio`` is predicted."""
    precision: str = "fp16"
    """In which the network will run on ``board``."""
    importance: Importance = "l2"
    """What a group's channels are ranked by. ``l1``, ``l2``: norm of the weights; ``bn``: scale of the batch norms; ``taylor``:
    first-order change of the training loss; ``lamp``: the norm over the sum of those that are left; ``random``: the
    control."""
    scope: Scope = "uniform"
    """``uniform``: the same share of every group; ``global``: the chunks of all groups in one order; ``sensitivity``: in the
    order of measured harm per cost saved."""
    round_to: int = Field(default=16, ge=1)
    """Channels that stay are a multiple of it. Sixteen are what ONNX Runtime's kernels for AVX512 work in: at multiples of 8
    the same MACs saved give less speed, in INT8 hardly any."""
    max_channel_ratio: float = 0.75
    """No group loses more than this share of its channels, in (0, 1)."""
    heads: bool = False
    """Whole attention heads may go too, beside dimensions of every head."""
    renew_norms: bool = True
    """Statistics of batch norms are measured anew on images when channels before them have gone; no weight changes. Without
    it most of the harm before any training is theirs."""
    iterations: int = Field(default=1, ge=1)
    """In so many passes, each removing the same share of what the last one left."""
    finetune: FinetuneOptions | None = None
    """Training between the passes."""
    seed: int = Field(default=0, ge=0)
    """Of the ``random`` importance."""
    size: tuple[int, int] = (224, 224)
    """Height and width of the input at which costs are counted."""

    @field_validator("macs_ratio", "params_ratio", "latency_ratio", "max_channel_ratio")
    @classmethod
    def _share(cls, value: float | None) -> float | None:
        if value is not None and not 0.0 < value < 1.0:
            raise ValueError(f"{value:g} is not in (0, 1)")
        return value

    @field_validator("size")
    @classmethod
    def _pixels(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 1:
            raise ValueError(f"{list(size)} is not a height and a width in pixels")
        return size

    @model_validator(mode="after")
    def _whole(self) -> PruneOptions:
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ValueError(f"exactly one of {', '.join(TARGETS)} is needed, the share to remove ({said} given)")
        if (self.latency_ratio is None) != (self.board is None):
            raise ValueError("latency_ratio and board belong together: the latency is the one predicted for that board")
        if self.finetune is not None and self.iterations == 1:
            raise ValueError("finetune: trains between passes, and iterations is 1; add a step finetune instead")
        return self

    @property
    def target(self) -> tuple[str, str, float]:
        """The option that says how much to remove, the cost it means (``macs``, ``params``, ``latency``), and the share."""
        [(name, ratio)] = [(name, getattr(self, name)) for name in TARGETS if getattr(self, name) is not None]
        return name, TARGETS[name], ratio


STEP_OPTIONS: Mapping[str, type[PruneOptions] | type[FinetuneOptions]] = MappingProxyType(
    {"prune": PruneOptions, "finetune": FinetuneOptions}
)
"""Kind of a step on the network: the model of its options."""


def step_faults(kind: str, options: Any) -> list[str]:
    """What is wrong with a step: ``key.path: message`` each (an unknown kind without a path), none when all is well."""
    if kind not in STEP_OPTIONS:
        return [unknown("step", kind, STEP_OPTIONS)]
    if not isinstance(options, Mapping):
        return [f"{options!r} is not a mapping of options to values"]
    try:
        STEP_OPTIONS[kind].model_validate(dict(options))
    except ValidationError as error:
        return [_fault(kind, dict(fault)) for fault in error.errors()]
    return []


def prune_options(options: Mapping[str, Any]) -> PruneOptions:
    """The options of a step ``prune``; all faults in one ``ValueError``."""
    _refuse("prune", options)
    return PruneOptions.model_validate(dict(options))


def finetune_options(options: Mapping[str, Any]) -> FinetuneOptions:
    """The options of a step ``finetune``; all faults in one ``ValueError``."""
    _refuse("finetune", options)
    return FinetuneOptions.model_validate(dict(options))


def _refuse(kind: str, options: Mapping[str, Any]) -> None:
    faults = step_faults(kind, options)
    if faults:
        raise ValueError(f"{kind}: {'; '.join(faults)}")


def _fault(kind: str, fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *above, name = (str(part) for part in fault["loc"])
        known = DistillOptions if above and above[-1] == "distill" else STEP_OPTIONS[kind]
        return f"{key}: {unknown('option', name, known.model_fields)}"
    if fault["type"] == "literal_error":
        choices = get_args(PruneOptions.model_fields[str(fault["loc"][0])].annotation)
        return f"{key}: {unknown('choice', str(fault['input']), choices)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def unknown(what: str, name: str, choices: Iterable[str]) -> str:
    """One line that names the wrong ``name``, the nearest choice if one is near, and all choices, sorted."""
    ordered = sorted(choices)
    near = difflib.get_close_matches(name, ordered, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown {what} '{name}'{hint} (choices: {', '.join(ordered)})"
