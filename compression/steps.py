"""The steps of a recipe as plain tables: on the network (``STEPS``), then on the exported file (``PRECISION_STEPS``).

A new step is one function and one row. torch is imported by the steps that need it, when they run.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from depthbench.compression.graph import read_model
from depthbench.compression.quantize import quantize_int8, quantize_int8_trt, to_fp16

if TYPE_CHECKING:
    from torch import nn

PRUNE_SIZE = (224, 224)
"""Height and width at which a pruning step counts MACs, unless its option ``size`` says otherwise."""


class Context(Protocol):
    """What a step may ask of its caller: a training loop."""

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        """The network after more training, and a report."""
        ...


def prune_step(module: nn.Module, options: Mapping[str, Any], _context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """``options``: ``size`` (height, width), and the keywords of :func:`depthbench.compression.prune.prune`.

    ``ValueError`` names an option that is missing, unknown or out of range.
    """
    import torch

    from depthbench.compression.prune import prune

    known = [name for name, value in inspect.signature(prune).parameters.items() if value.kind is value.KEYWORD_ONLY]
    for name in options:
        if name not in (*known, "size"):
            raise ValueError(f"prune: unknown option {name!r}: choose from {', '.join(sorted([*known, 'size']))}")
    if "macs_ratio" not in options:
        raise ValueError("prune: option 'macs_ratio' is missing, the share of MACs to remove")
    keywords = dict(options)
    height, width = keywords.pop("size", PRUNE_SIZE)
    example = torch.zeros(1, 3, height, width, device=next(module.parameters()).device)
    return prune(module, example, **keywords)


def finetune_step(module: nn.Module, options: Mapping[str, Any], context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """Train the network on, with the caller's training loop; ``options`` are its own."""
    return context.finetune(module, options)


NetworkStep = Callable[["nn.Module", Mapping[str, Any], Context], tuple["nn.Module", dict[str, Any]]]
STEPS: Mapping[str, NetworkStep] = MappingProxyType({"prune": prune_step, "finetune": finetune_step})
"""Steps on the network: (network, options, context) → (network, report)."""


def keep_fp32(source: Path, out: Path, _calibration: Iterable[NDArray[np.float32]]) -> dict[str, Any]:
    """The file as it is; ``ValueError`` when it holds no whole ONNX model."""
    read_model(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, out)
    return {}


def fp16_step(source: Path, out: Path, _calibration: Iterable[NDArray[np.float32]]) -> dict[str, Any]:
    """See :func:`depthbench.compression.quantize.to_fp16`; needs no calibration."""
    return to_fp16(source, out)


PrecisionStep = Callable[[Path, Path, Iterable[NDArray[np.float32]]], dict[str, Any]]
PRECISION_STEPS: Mapping[str, PrecisionStep] = MappingProxyType(
    {"fp32": keep_fp32, "fp16": fp16_step, "int8": quantize_int8, "int8-trt": quantize_int8_trt}
)
"""Steps on the exported file: (file, file to write, calibration inputs) → report."""
