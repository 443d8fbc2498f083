"""Recipes: what is done to a network before it is deployed, as data.

A recipe is an ordered list of steps on the network (prune, fine-tune) and, for each kind of target, the precision of the
file that is deployed there. This module imports nothing heavy; the steps are carried out by
:mod:`depthbench.compression.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

PRECISIONS: Mapping[str, str] = MappingProxyType(
    {
        "fp32": "float32 throughout",
        "fp16": "float16 weights and activations, float32 input and output",
        "int8": "INT8 QDQ for ONNX Runtime on a CPU: uint8 activations, int8 weights per channel",
        "int8-trt": "INT8 QDQ for TensorRT: symmetric int8 activations and weights, bias and softmax in float",
    }
)

TARGET_KINDS = ("cpu", "cuda", "board")


@dataclass(frozen=True)
class Step:
    """One step of a recipe: the name of an entry of ``STEPS`` and its options."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A named list of steps, and the precision deployed per kind of target (a kind left out cannot run the recipe)."""

    name: str
    summary: str
    precision: Mapping[str, str]
    steps: tuple[Step, ...] = ()


PRUNE30 = (Step("prune", {"macs_ratio": 0.30, "round_to": 16}), Step("finetune", {}))

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe("fp32", "the trained network as it is", {"cpu": "fp32", "cuda": "fp32"}),
            Recipe("fp16", "half precision, for boards and GPUs", {"cuda": "fp16", "board": "fp16"}),
            Recipe("int8", "static INT8 for ONNX Runtime on a CPU", {"cpu": "int8"}),
            Recipe("int8-trt", "static symmetric INT8 for TensorRT on boards", {"board": "int8-trt"}),
            Recipe(
                "prune30",
                "30 % of the MACs pruned away, fine-tuned",
                {"cpu": "fp32", "cuda": "fp16", "board": "fp16"},
                PRUNE30,
            ),
            Recipe("prune30-int8", "prune30, then static INT8", {"cpu": "int8", "board": "int8-trt"}, PRUNE30),
        )
    }
)
