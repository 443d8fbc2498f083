"""What an ONNX graph costs: shapes, multiply-accumulates, operator classes, parameters, activation memory.

Works on the file alone, also when its weights carry no values, and without torch. Only convolutions and matrix
products have MACs here; biases, normalization and activations have none. 1 MAC = 2 FLOPs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from depthbench.suites.export import opset_of, read_onnx
from depthbench.suites.graphs.shapes import infer_shapes

_OPERATORS = {
    "conv": "Conv ConvInteger ConvTranspose QLinearConv",
    "matmul": "Gemm MatMul MatMulInteger QLinearMatMul",
    "elementwise": (
        "Abs Add And Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater HardSigmoid HardSwish LeakyRelu Less Log Max "
        "Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub "
        "Sum Tanh Where"
    ),
    "resize": "GridSample Resize Upsample",
    "pooling": "AveragePool GlobalAveragePool GlobalMaxPool LpPool MaxPool",
    "normalization": "BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization",
    "softmax": "LogSoftmax Softmax",
    "layout": "Concat DepthToSpace Expand Gather GatherElements GatherND Pad ScatterND Slice SpaceToDepth Split Tile Transpose",
    "view": "Cast DequantizeLinear Dropout Flatten Identity QuantizeLinear Reshape Squeeze Unsqueeze",
}
KINDS = {op: kind for kind, ops in _OPERATORS.items() for op in ops.split()}
UNCOUNTED = frozenset(
    {"Attention", "DeformConv", "Einsum", "FusedConv", "FusedMatMul", "GRU", "If", "LSTM", "Loop", "QAttention", "RNN"}
)
"""Operators that multiply but whose MACs are not counted: named wherever counts are compared."""


@dataclass(frozen=True)
class Tensor:
    """Shape and element type of one tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Node:
    """One operator: ``kind`` is its class, ``macs`` its multiply-accumulates, ``quantized`` whether those are in INT8.

    Kinds: dense, pointwise, depthwise, grouped (convolutions), matmul, elementwise, resize, pooling, normalization,
    softmax, layout (data moved), view (no data moved), constant (known before the network runs), other.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: str
    macs: int
    quantized: bool


@dataclass(frozen=True)
class Graph:
    """A network read from ONNX; ``nodes`` in execution order.

    ``storage`` maps every activation to the tensor in whose memory it lies: views, casts and quantize/dequantize pairs
    share their input's. ``int8`` holds the storages that are only ever read in INT8.
    """

    opset: int
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: frozenset[str]
    storage: Mapping[str, str]
    int8: frozenset[str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(node.macs for node in self.nodes)

    @property
    def quantized_nodes(self) -> int:
        """How many convolutions and matrix products compute in INT8."""
        return sum(node.quantized for node in self.nodes)

    def histogram(self) -> dict[str, int]:
        """Number of nodes per operator, as the file has them, sorted by operator."""
        return dict(sorted(Counter(node.op for node in self.nodes).items()))

    def uncounted(self) -> dict[str, int]:
        """Operators that multiply but have no count here, with their number."""
        return {op: count for op, count in self.histogram().items() if op in UNCOUNTED}

    def parameters(self) -> int:
        """Elements of all stored weights, each once; without quantizers' scales and without integer constants."""
        return sum(self.tensors[name].elements for name in self.weights)

    def reads(self, node: Node) -> tuple[str, ...]:
        """The activations a node reads, each once, named by their storage."""
        return tuple(dict.fromkeys(self.storage[name] for name in node.inputs if name in self.storage))

    def writes(self, node: Node) -> tuple[str, ...]:
        """The storages a node fills; none for a view or a constant."""
        return tuple(name for name in node.outputs if self.storage.get(name) == name)

    def peak_activation_bytes(self) -> int:
        """Largest sum of live activations over the schedule, in the file's own types.

        A tensor lives from the node that writes it to the last node that reads it; an elementwise operator writes over
        an input of the same size that nobody reads afterwards. Weights and scratch memory are not included.
        """
        last = {name: i for i, node in enumerate(self.nodes) for name in self.reads(node)}
        last.update({self.storage[name]: len(self.nodes) for name in self.outputs if name in self.storage})
        live = {name: self._bytes(name) for name in self.inputs}
        peak = sum(live.values())
        for i, node in enumerate(self.nodes):
            written = {name: self._bytes(name) for name in self.writes(node)}
            dying = [name for name in self.reads(node) if last[name] == i]
            replaced = (
                {live[name] for name in dying if name not in self.inputs} if node.kind == "elementwise" else set()
            )
            peak = max(peak, sum(live.values()) + sum(size for size in written.values() if size not in replaced))
            live.update({name: size for name, size in written.items() if name in last})
            for name in dying:
                del live[name]
        return peak

    def _bytes(self, name: str) -> int:
        tensor = self.tensors[name]
        return tensor.elements * (1 if name in self.int8 else tensor.dtype.itemsize)


def load_graph(path: Path) -> Graph:
    """Read an ONNX file; ``ValueError`` when it is not one or a shape in it is not fixed."""
    model = read_onnx(path)
    try:
        return build_graph(model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def build_graph(model: onnx.ModelProto) -> Graph:
    """The costs of a model in memory; ``ValueError`` names a tensor whose shape is not fixed."""
    source = model.graph
    tensors = {
        name: Tensor(shape, helper.tensor_dtype_to_np_dtype(kind))
        for name, (shape, kind) in infer_shapes(model).items()
    }
    stored = {entry.name: tensors[entry.name] for entry in source.initializer}
    inputs = tuple(value.name for value in source.input if value.name not in stored)
    outputs = tuple(value.name for value in source.output)
    constants = set(stored)
    quantized: set[str] = set()  # names whose values went through a QuantizeLinear
    storage = {name: name for name in inputs}
    nodes = []
    for i, node in enumerate(source.node):
        kind, macs = "constant", 0
        names = [name for name in node.input if name]
        if node.op_type in ("Constant", "Shape", "Size") or constants.issuperset(names):
            constants.update(node.output)
        else:
            multiplies = KINDS.get(node.op_type) in ("conv", "matmul")
            for name in (*names, *filter(None, node.output)):
                if name not in tensors and (multiplies or name not in constants):
                    raise ValueError(f"tensor {name} (of {node.op_type} {node.name}) has no fixed shape")
            kind = _kind(node, tensors)
            macs = _macs(node, tensors) if multiplies else 0
            for name in filter(None, node.output):
                storage[name] = storage[next(n for n in names if n in storage)] if kind == "view" else name
        in_int8 = (
            node.op_type.startswith("QLinear") or node.op_type.endswith("Integer") or quantized.issuperset(names[:2])
        )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or (kind == "view" and names[0] in quantized):
            quantized.update(node.output)
        nodes.append(
            Node(
                name=node.name or f"{node.op_type}_{i}",
                op=node.op_type,
                inputs=tuple(node.input),
                outputs=tuple(filter(None, node.output)),
                kind=kind,
                macs=macs,
                quantized=macs > 0 and in_int8,
            )
        )
    return Graph(
        opset=opset_of(model),
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=inputs,
        outputs=outputs,
        weights=_weights(nodes, stored),
        storage=storage,
        int8=_int8_storages(nodes, storage, quantized, tensors, {*inputs, *outputs}),
    )


def _weights(nodes: list[Node], stored: Mapping[str, Tensor]) -> frozenset[str]:
    """The stored tensors that are parameters: floating-point ones, and the integer ones that stand for those."""
    scales: set[str] = set()
    integers: set[str] = set()
    for node in nodes:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            scales.update(node.inputs[1:])
            integers.add(node.inputs[0])
        elif node.op.startswith("QLinear"):
            scales.update(node.inputs[i] for i in (1, 4, 6))
            integers.update((*node.inputs[3:4], *node.inputs[8:]))
        elif node.op.endswith("Integer"):
            integers.add(node.inputs[1])
    return frozenset(
        name
        for name, tensor in stored.items()
        if name not in scales and (tensor.dtype.name.endswith(("float16", "float32", "float64")) or name in integers)
    )


def _int8_storages(
    nodes: list[Node], storage: Mapping[str, str], quantized: set[str], tensors: Mapping[str, Tensor], ends: set[str]
) -> frozenset[str]:
    """The storages whose every reader reads INT8; the network's inputs and outputs never are."""
    read = {True: set[str](), False: {storage[name] for name in ends if name in storage}}
    for node in nodes:
        for name in node.inputs if node.kind not in ("constant", "view") else ():
            if name in storage:
                read[name in quantized or tensors[storage[name]].dtype.itemsize == 1].add(storage[name])
    return frozenset(read[True] - read[False])


def _kind(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> str:
    kind = KINDS.get(node.op_type, "other")
    shape, result = tensors[node.input[0]].shape, tensors[node.output[0]].shape
    if kind == "conv":
        weight, group = _weight(node, tensors), _attribute(node, "group", 1)
        channels = weight[0] if node.op_type == "ConvTranspose" else weight[1] * group
        if group > 1:
            return "depthwise" if group == channels else "grouped"
        return "pointwise" if prod(weight[2:]) == 1 else "dense"
    if node.op_type.startswith("Reduce"):  # over the channels of tokens, or over an image
        return "normalization" if result == (*shape[:-1], 1) else "pooling"
    if node.op_type == "Transpose":
        order = _attribute(node, "perm", list(range(len(shape)))[::-1])
        moved = [axis for axis in order if shape[axis] > 1]
        return "view" if moved == sorted(moved) else kind
    return "view" if kind in ("layout", "resize") and shape == result else kind


def _macs(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> int:
    result = prod(tensors[node.output[0]].shape)
    shape = tensors[node.input[0]].shape
    if node.op_type == "Gemm":
        return result * shape[0 if _attribute(node, "transA", 0) else 1]
    if KINDS[node.op_type] == "matmul":
        return result * shape[-1]
    return (prod(shape) if node.op_type == "ConvTranspose" else result) * prod(_weight(node, tensors)[1:])


def _weight(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Shape of a convolution's weight."""
    return tensors[node.input[3 if node.op_type == "QLinearConv" else 1]].shape


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
