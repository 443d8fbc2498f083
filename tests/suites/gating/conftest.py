"""Small networks and ONNX surgery: what people change in a model, on real files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from depthbench.compression.quantize import quantize_int8
from depthbench.suites.export import export_onnx
from depthbench.tst.config import VARIANTS
from depthbench.tst.model import TST

SIZE = (64, 64)
TINY = replace(
    VARIANTS["tst-t"], channels=(8, 8, 16, 16), depths=(1, 1, 1, 1), dim=32, heads=2, layers=3, decoder=16, grid=2
)

Export = Callable[..., Path]


def _twice(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0)


class Plain(nn.Module):
    """Two convolutions at full size, then one that is applied before or after the upsampling."""

    def __init__(self, width: int = 8, late: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)
        self.late = late

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(rgb).relu()).relu()
        x = self.head(_twice(x)) if self.late else _twice(self.head(x))
        return 10 * x.sigmoid()


class Branches(nn.Module):
    """Two wide branches that are pooled; ``wait``: both are computed before the first is pooled."""

    def __init__(self, wait: bool) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 16, 3, padding=1)
        self.right = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 1, 1)
        self.wait = wait

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        left = self.left(rgb)
        if self.wait:
            right = self.right(rgb)
            left = F.max_pool2d(left, 4)
        else:
            left = F.max_pool2d(left, 4)
            right = self.right(rgb)
        x = self.head(left + F.max_pool2d(right, 4))
        return F.interpolate(x, scale_factor=4.0).sigmoid()


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Write a module as ``tmp_path/NAME.onnx``, its weights drawn from a fixed seed."""

    def write(make: Callable[[], nn.Module], name: str = "net", size: tuple[int, int] = SIZE) -> Path:
        torch.manual_seed(0)
        return export_onnx(make(), tmp_path / f"{name}.onnx", size)

    return write


@pytest.fixture(scope="session")
def tst(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A small Token-Sharing Transformer with some numbers of its configuration changed; the same file for the same numbers."""
    folder = tmp_path_factory.mktemp("tst")

    @cache
    def write(**changes: Any) -> Path:
        torch.manual_seed(0)
        name = "-".join(f"{key}-{value}" for key, value in changes.items()) or "base"
        return export_onnx(TST(replace(TINY, **changes)), folder / f"{name}.onnx", SIZE)

    return write


@pytest.fixture(scope="session")
def nets() -> ModuleType:
    """This module: its networks and its surgery."""
    return sys.modules[__name__]


def images(count: int = 4) -> list[np.ndarray[Any, Any]]:
    """Network inputs (1, 3, H, W)."""
    rng = np.random.default_rng(0)
    return [rng.random((1, 3, *SIZE), dtype=np.float32) for _ in range(count)]


def quantized(source: Path, out: Path) -> Path:
    """The INT8 form of a file."""
    quantize_int8(source, out, images())
    return out


def edited(source: Path, out: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy of a file after ``edit`` changed the model in place."""
    model = onnx.load(source)
    edit(model)
    onnx.save(model, out)
    return out


def add_relu_at_the_end(model: onnx.ModelProto) -> None:
    """An extra node: depth is positive, so that it changes no result."""
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Relu", ["before"], ["depth"], name="/extra/Relu"))


def swap_first(model: onnx.ModelProto, old: str, new: str) -> str:
    """Put another operator in the place of the first one of a kind; its name."""
    node = next(node for node in model.graph.node if node.op_type == old)
    node.op_type = new
    return node.name.strip("/").replace("/", ".")


def dequantize(model: onnx.ModelProto, name: str) -> None:
    """Let one convolution of a QDQ file compute in float again, and drop what nobody reads any more."""
    graph = model.graph
    makers = {node.output[0]: node for node in graph.node}
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    conv = next(node for node in graph.node if node.op_type == "Conv" and name in node.name)
    conv.input[0] = makers[makers[conv.input[0]].input[0]].input[0]
    for i in range(1, len(conv.input)):
        values, scale, zero = (stored[one] for one in makers[conv.input[i]].input)
        shape = (-1, *[1] * (values.ndim - 1))  # (C, 1, 1, 1)
        real = (values.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)  # (C, 1, 1, 1) each
        graph.initializer.append(numpy_helper.from_array(real.astype(np.float32), f"{conv.name}.float.{i}"))
        conv.input[i] = f"{conv.name}.float.{i}"
    while True:
        read = {one for node in graph.node for one in node.input} | {value.name for value in graph.output}
        idle = [node for node in graph.node if not set(node.output) & read]
        spare = [entry for entry in graph.initializer if entry.name not in read]
        for node in idle:
            graph.node.remove(node)
        for entry in spare:
            graph.initializer.remove(entry)
        if not idle and not spare:
            return
