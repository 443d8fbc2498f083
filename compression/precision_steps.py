"""The steps on an exported file as a plain table: each writes the file in one precision and reports what it did.

A new one is a function, a row here, and a row of :data:`depthbench.compression.precisions.PRECISIONS` with its options.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import onnxruntime as ort

from depthbench.compression.calibration import Image
from depthbench.compression.graph import read_model
from depthbench.compression.half import to_fp16
from depthbench.compression.mixed import quantize_mixed
from depthbench.compression.quantize import quantize_int8, quantize_int8_trt
from depthbench.compression.weights_only import quantize_dynamically, quantize_weights


class PrecisionContext(Protocol):
    """What a precision step may ask of its caller. Images are those of the run's calibration split, never of a test."""

    def calibration(self) -> Iterable[Image]:
        """Network inputs (1, 3, H, W)."""
        ...

    def score(self, model: Path | ort.InferenceSession, places: Sequence[int] | None = None) -> Mapping[str, float]:
        """Mean ``delta1``, ``rmse_m`` and ``abs_rel`` of a file or a session on these images, or on those at ``places``."""
        ...

    def cached(self, key: Any, build: Callable[[], Any]) -> Any:
        """``build()``, a JSON value, kept by the digest of ``key`` and of the images."""
        ...


def keep_fp32(source: Path, out: Path, _context: PrecisionContext) -> dict[str, Any]:
    """The file as it is; ``ValueError`` when it holds no whole ONNX model."""
    read_model(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, out)
    return {}


def fp16_step(source: Path, out: Path, _context: PrecisionContext) -> dict[str, Any]:
    """See :func:`depthbench.compression.half.to_fp16`; needs no calibration."""
    return to_fp16(source, out)


def int8_step(source: Path, out: Path, context: PrecisionContext, **options: Any) -> dict[str, Any]:
    """See :func:`depthbench.compression.quantize.quantize_int8`."""
    return quantize_int8(source, out, context.calibration(), **options)


def trt_step(source: Path, out: Path, context: PrecisionContext, **options: Any) -> dict[str, Any]:
    """See :func:`depthbench.compression.quantize.quantize_int8_trt`."""
    return quantize_int8_trt(source, out, context.calibration(), **options)


def nncf_step(source: Path, out: Path, context: PrecisionContext, **options: Any) -> dict[str, Any]:
    """See :func:`depthbench.compression.nncf_ptq.quantize_nncf`."""
    from depthbench.compression.nncf_ptq import quantize_nncf

    return quantize_nncf(source, out, context.calibration(), score=context.score, **options)


def mixed_step(source: Path, out: Path, context: PrecisionContext, **options: Any) -> dict[str, Any]:
    """See :func:`depthbench.compression.mixed.quantize_mixed`."""
    return quantize_mixed(source, out, context.calibration(), score=context.score, cached=context.cached, **options)


def dynamic_step(source: Path, out: Path, context: PrecisionContext, **options: Any) -> dict[str, Any]:
    """See :func:`depthbench.compression.weights_only.quantize_dynamically`."""
    return quantize_dynamically(source, out, context.calibration(), **options)


def weights_step(source: Path, out: Path, context: PrecisionContext, **options: Any) -> dict[str, Any]:
    """See :func:`depthbench.compression.weights_only.quantize_weights`."""
    return quantize_weights(source, out, context.calibration(), **options)


PRECISION_STEPS: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {
        "fp32": keep_fp32,
        "fp16": fp16_step,
        "int8": int8_step,
        "int8-trt": trt_step,
        "int8-nncf": nncf_step,
        "int8-mixed": mixed_step,
        "int8-dynamic": dynamic_step,
        "int8-weights": weights_step,
    }
)
"""Steps on the exported file: (file, file to write, context, options by keyword) → report."""
