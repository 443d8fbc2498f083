"""Three pairs of ONNX files whose INT8 form is slower, each for one known reason, and what ``explain`` says of them.

The files are written by hand and run in ONNX Runtime. The reasons are overwhelming: the next one loses less than half as much
time, so that a busy machine does not change the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from depthbench.suites.explain import Explanation, explain


class Net:
    """A network written node by node, in float32 or with Q/DQ pairs around what is quantized."""

    def __init__(self, shape: tuple[int, int, int], *, quantized: bool) -> None:
        self.quantized = quantized
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = shape
        self.rng = np.random.default_rng(0)

    def add(self, op: str, *inputs: str, name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def requantized(self, x: str, name: str, scale: float = 0.02, *, signed: bool = False) -> str:
        """A Q/DQ pair on a tensor, in the quantized form alone."""
        if not self.quantized:
            return x
        s = self.constant(f"{name}_s", np.float32(scale))
        z = self.constant(f"{name}_z", np.int8(0) if signed else np.uint8(128))
        q = self.add("QuantizeLinear", x, s, z, name=f"{name}_q")
        return self.add("DequantizeLinear", q, s, z, name=f"{name}_dq")

    def weight(self, name: str, shape: tuple[int, ...], *, int8: bool) -> str:
        values = self.rng.uniform(-1, 1, shape).astype(np.float32)
        if not (self.quantized and int8):
            return self.constant(name, values)
        s = self.constant(f"{name}_s", np.float32(1 / 127))
        z = self.constant(f"{name}_z", np.int8(0))
        return self.add(
            "DequantizeLinear", self.constant(name, np.round(values * 127).astype(np.int8)), s, z, name=f"{name}_dq"
        )

    def conv(self, x: str, channels: tuple[int, int], name: str, *, int8: bool = True, kernel: int = 1) -> str:
        """A convolution, its input and output quantized when ``int8``."""
        if int8:
            x = self.requantized(x, f"{name}_x")
        w = self.weight(f"{name}_w", (channels[1], channels[0], kernel, kernel), int8=int8)
        y = self.add("Conv", x, w, name=name, pads=[kernel // 2] * 4)
        return self.requantized(y, f"{name}_y", 0.1) if int8 else y

    def write(self, path: Path, y: str) -> Path:
        info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *self.shape])
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "pair", [info], [out], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def conversions(folder: Path, *, quantized: bool) -> Path:
    """Large tensors handed from signed to unsigned INT8 and back around cheap operators, then small convolutions."""
    net, y = Net((16, 192, 192), quantized=quantized), "x"
    for i in range(4):
        y = net.requantized(y, f"unsigned{i}", 0.02 + 0.001 * i)
        y = net.requantized(y, f"signed{i}", 0.02, signed=True)
        y = net.add("Abs", y, name=f"abs{i}")
    y = net.add("MaxPool", net.requantized(y, "last"), name="small", kernel_shape=[1, 1], strides=[8, 8])
    for i in range(2):
        y = net.conv(y, (16, 16), f"conv{i}", kernel=3)
    return net.write(folder / f"conversions-{quantized}.onnx", y)


def middle(folder: Path, *, quantized: bool) -> Path:
    """A transposed convolution, for which there is no INT8 kernel, between two small convolutions."""
    net = Net((8, 64, 64), quantized=quantized)
    y = net.conv("x", (8, 48), "before")
    y = net.add("ConvTranspose", y, net.weight("wide_w", (48, 48, 5, 5), int8=True), name="wide", pads=[2] * 4)
    y = net.requantized(y, "wide_y", 0.5)
    return net.write(folder / f"middle-{quantized}.onnx", net.conv(y, (48, 8), "after"))


def memory(folder: Path, *, quantized: bool) -> Path:
    """Sums of large tensors, in float in both forms, and one small convolution that is quantized."""
    net = Net((16, 384, 384), quantized=quantized)
    small = net.add("MaxPool", "x", name="small", kernel_shape=[16, 16], strides=[16, 16])
    small = net.conv(small, (16, 16), "conv", kernel=3)
    bias = net.add("GlobalAveragePool", small, name="mean")
    y = net.add("Add", "x", bias, name="sum0")
    for i in range(1, 16):
        y = net.add("Add" if i % 2 else "Sub", y, "x", name=f"sum{i}")
    return net.write(folder / f"memory-{quantized}.onnx", y)


Build = Callable[..., Path]


def explained(build: Build, folder: Path) -> Explanation:
    parent, child = build(folder, quantized=False), build(folder, quantized=True)
    return explain(parent, child, names=("fp32", "int8"), seconds=0.4)


@pytest.mark.parametrize(
    ("build", "cause", "named", "remedy"),
    [
        (conversions, "conversions", "Quantize/Dequantize", "nodes around the Abs"),
        (
            middle,
            "float operators",
            "in the middle of the INT8 ones, most of it into ConvTranspose",
            "replace ConvTranspose",
        ),
        (memory, "memory", "is bound by memory, in Add and Sub", "cheaper arithmetic cannot shorten it"),
    ],
)
def test_explain_names_the_true_cause(build: Build, cause: str, named: str, remedy: str, tmp_path: Path) -> None:
    found = explained(build, tmp_path)
    assert found.cause == cause, [(one.name, one.lost_ms) for one in found.causes]
    told = [sentence for sentence in found.sentences if "of the INT8 time" in sentence]  # another may stand before
    assert len(told) in (1, 2)
    assert named in told[0]
    assert remedy in told[0]
