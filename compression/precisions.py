"""The precisions in which a file can be deployed: what each is, and which options it takes. Imports nothing heavy.

The conversions themselves are in the table ``PRECISION_STEPS`` of :mod:`depthbench.compression.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from depthbench.compression.options import unknown

Ranges = Literal["minmax", "mean", "percentile", "entropy"]


class Options(BaseModel):
    """The options of a precision that has none, and what those of the others have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CpuOptions(Options):
    """Options of ``int8``."""

    ranges: Ranges = Field(default="minmax", description="how a tensor's range follows from the calibration images")
    per_channel: bool = Field(default=True, description="a scale per output channel of a weight, not one per weight")
    symmetric: bool = Field(default=False, description="activations in int8 around 0, not in uint8 with a zero point")
    everything: bool = Field(
        default=False, description="quantize also what is faster in float: few channels, tokens, the output"
    )


class BoardOptions(Options):
    """Options of ``int8-trt``."""

    ranges: Ranges = Field(default="minmax", description="how a tensor's range follows from the calibration images")


class NncfOptions(Options):
    """Options of ``int8-nncf``."""

    symmetric: bool = Field(default=False, description="all activations symmetric (NNCF's preset 'performance')")
    transformer: bool = Field(default=False, description="NNCF's model type for transformers")
    bias_correction: Literal["none", "fast", "accurate"] = Field(
        default="fast", description="how the shift of a layer's mean by rounding is taken out of its bias"
    )
    tolerance: float | None = Field(
        default=None, gt=0, lt=1, description="accuracy-aware: how much delta1 may fall; left out, no search"
    )


class MixedOptions(Options):
    """Options of ``int8-mixed``."""

    ranges: Ranges = Field(default="minmax", description="how a tensor's range follows from the calibration images")
    tolerance: float = Field(default=0.01, gt=0, lt=1, description="how much delta1 may fall on calibration images")
    min_sqnr_db: float = Field(default=20.0, ge=0, le=60, description="least signal to quantization noise in dB")
    max_trials: int = Field(default=64, ge=1, le=1000, description="at most this many candidate files are made")
    everything: bool = Field(default=False, description="begin with matrix products and few channels quantized too")


class WeightOptions(Options):
    """Options of ``int8-dynamic`` and ``int8-weights``."""

    per_channel: bool = Field(default=True, description="a scale per output channel of a weight, not one per weight")


@dataclass(frozen=True)
class Precision:
    """A form of a deployed file.

    ``version`` counts the changes to the conversion that alter what it writes; it is a part of a file's key, so that
    files made before are made again.
    """

    summary: str
    version: int = 1
    options: type[Options] = Options
    library: str | None = None
    """The package that does it, where that is not one of those that every result depends on."""


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": Precision("float32 throughout"),
        "fp16": Precision("float16 weights and activations, float32 input and output", 2),
        "int8": Precision(
            "INT8 QDQ for ONNX Runtime on a CPU: uint8 activations, int8 weights per channel", 3, CpuOptions
        ),
        "int8-trt": Precision(
            "INT8 QDQ for TensorRT: symmetric int8 activations and weights, bias and softmax in float", 2, BoardOptions
        ),
        "int8-nncf": Precision("INT8 QDQ by NNCF's post-training quantization", 2, NncfOptions, "nncf"),
        "int8-mixed": Precision(
            "INT8 QDQ with the operators in float that hurt most, found by a search", 2, MixedOptions
        ),
        "int8-dynamic": Precision("int8 weights, activations quantized while it runs", 1, WeightOptions),
        "int8-weights": Precision("int8 weights, computed in float32: a control", 1, WeightOptions),
    }
)


def calibrated(precision: str) -> bool:
    """Whether a file in this precision depends on calibration images: every INT8 one does, if only for its report."""
    return precision.startswith("int8")


def option_faults(precision: str, value: Any) -> list[str]:
    """What is wrong with the options of a precision, each ``key: message``; empty when nothing is."""
    known = PRECISIONS[precision].options
    if not isinstance(value, Mapping):
        return [f"options are a mapping of names to values (got {value!r:.80})"]
    try:
        known.model_validate(dict(value))
    except ValidationError as error:
        return [_line(fault, known) for fault in error.errors()]
    return []


def resolved_options(precision: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a precision, those left out at their defaults; ``ValueError`` with a line a fault."""
    faults = option_faults(precision, value)
    if faults:
        raise ValueError("\n".join(f"{precision}: {fault}" for fault in faults))
    return PRECISIONS[precision].options(**value).model_dump()


def _line(fault: Any, known: type[Options]) -> str:
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"{key}: {unknown('option', key, known.model_fields)}"
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        choices = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{key}: {unknown('value', fault['input'], choices)}"
    return f"{key}: {fault['msg']} (got {fault['input']!r:.80})"
