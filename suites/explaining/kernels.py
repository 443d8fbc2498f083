"""The kernels that ONNX Runtime ran for a file, from its optimized graph and its profiler: class, MACs, traffic, precision.

Needs numpy and onnx alone. 1 MAC = 2 FLOPs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from depthbench.compression.executed import INT8
from depthbench.suites.graphs.graph import KINDS, Graph

CLASSES: Mapping[str, str] = {
    "dense": "conv dense",
    "pointwise": "conv pointwise",
    "depthwise": "conv depthwise",
    "grouped": "conv grouped",
    "matmul": "matmul",
    "attention": "attention",
    "elementwise": "elementwise",
    "resize": "resize",
    "pooling": "pooling",
    "normalization": "normalization",
    "quantize": "quantize/dequantize",
    "reorder": "reorder",
    "layout": "layout",
    "other": "other",
}
"""Classes of kernels and how they are shown. ``quantize`` converts numbers, ``reorder`` changes a tensor's layout for the
next kernel and is not in the file; ``normalization`` holds softmax, ``layout`` what moves or renames data in the file."""

PRODUCTS = ("dense", "pointwise", "depthwise", "grouped", "matmul", "attention")
CONVERSIONS = ("quantize", "reorder")

_QUANTIZE = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"})
_REORDER = frozenset({"ReorderInput", "ReorderOutput"})
_MOVES = frozenset({"Transpose", "Reshape"})
_SPECIAL = {"softmax": "normalization", "view": "layout"}
_FUSED = ("QLinear", "Fused", "Nhwc", "Skip", "Simplified", "Bias", "Fast", "Quick", "Q")
_ATTENTIONS = ("Attention", "MultiHeadAttention", "QAttention")

Tensor = tuple[str, tuple[int, ...]]
"""Type (``float``, ``uint8``, ...) and shape."""

_SIZES = {"float": 4, "double": 8, "float16": 2, "int8": 1, "uint8": 1, "bool": 1, "int64": 8, "int32": 4, "int16": 2}
_PRECISIONS = {
    "float": "fp32",
    "double": "fp64",
    "float16": "fp16",
    "int8": "int8",
    "uint8": "int8",
    "bfloat16": "bf16",
}


@dataclass(frozen=True)
class Kernel:
    """One operator as it was executed; ``kind`` is a key of ``CLASSES``.

    ``ms``: its time. ``macs``: multiply-accumulates executed, padding channels included; ``useful_macs``: without them.
    ``bytes``: read and written, weights included. ``precision``: what it computes in. ``channels``: its output channels in the
    file (0 for other than convolutions and products), ``executed``: those that were computed. ``positions``: at how many
    places. ``window``: of a convolution.
    ``ideal_ms``: what the machine's attainable rates allow, ``bound``: by which of them (``arithmetic``, ``memory``,
    ``launch``); empty before they are known.
    """

    name: str
    op: str
    kind: str
    ms: float
    macs: int
    bytes: int
    precision: str
    channels: int = 0
    executed: int = 0
    useful_macs: int = 0
    positions: int = 0
    window: tuple[int, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    ideal_ms: float = 0.0
    bound: str = ""

    @property
    def is_product(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return self.kind in PRODUCTS

    @property
    def is_conversion(self) -> bool:
        """Whether it only changes how numbers are stored, for the sake of its neighbours."""
        return self.kind in CONVERSIONS


def run_tensors(
    model: onnx.ModelProto, events: Sequence[Mapping[str, Any]], feed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Type and shape of every tensor of an optimized graph: its constants, its inputs, and what its nodes wrote in a run.

    ``events``: the profiler's, one a node, in the order of the graph.
    """
    tensors: dict[str, Tensor] = dict(feed)
    for entry in model.graph.initializer:
        kind = helper.tensor_dtype_to_np_dtype(entry.data_type).name
        tensors[entry.name] = ({"float32": "float", "float64": "double"}.get(kind, kind), tuple(entry.dims))
    for node, event in zip(model.graph.node, events, strict=True):
        written = [next(iter(shape.items())) for shape in event["args"].get("output_type_shape", [])]
        for name, (kind, shape) in zip(filter(None, node.output), written, strict=False):
            tensors[name] = (kind, tuple(shape))
    return tensors


def executed_kernels(
    model: onnx.ModelProto, tensors: Mapping[str, Tensor], times_ms: Sequence[float], source: Graph
) -> list[Kernel]:
    """The kernels of an optimized graph with their times (ms, one a node); ``source`` is the graph of the file itself."""
    constants = {entry.name for entry in model.graph.initializer}
    named = {node.name for node in source.nodes}
    kernels = [
        _kernel(node, tensors, constants, ms, named)
        for node, ms in zip(model.graph.node, times_ms, strict=True)
        if node.op_type != "Constant"
    ]
    return _as_in_file(kernels, source)


def _kernel(
    node: onnx.NodeProto, tensors: Mapping[str, Tensor], constants: set[str], ms: float, named: set[str]
) -> Kernel:
    names = [name for name in node.input if name]
    read = [tensors[name] for name in dict.fromkeys(names) if name in tensors]
    written = [tensors[name] for name in node.output if name in tensors]
    kind = _kind(node, tensors, constants, named)
    moved = 0 if kind == "layout" and KINDS.get(node.op_type) == "view" else sum(map(_bytes, (*read, *written)))
    if node.op_type in ("Gather", "Slice", "Split"):
        moved = 2 * sum(map(_bytes, written))
    macs, channels, positions, window = _product(node, kind, tensors)
    return Kernel(
        name=node.name or (node.output[0] if node.output else node.op_type),
        op=node.op_type,
        kind=kind,
        ms=ms,
        macs=macs,
        bytes=moved,
        precision=_precision(node, tensors, kind),
        channels=channels,
        executed=channels,
        useful_macs=macs,
        positions=positions,
        window=window,
        inputs=tuple(name for name in names if name not in constants),
        outputs=tuple(filter(None, node.output)),
    )


def _bytes(tensor: Tensor) -> int:
    return _SIZES.get(tensor[0], 4) * prod(tensor[1])


def base_operator(op: str) -> str:
    """The ONNX operator that a fused or quantized one of ONNX Runtime stands for."""
    for prefix in _FUSED:
        if op not in KINDS and op.startswith(prefix) and op.removeprefix(prefix) in KINDS:
            return op.removeprefix(prefix)
    return op


def _kind(node: onnx.NodeProto, tensors: Mapping[str, Tensor], constants: set[str], named: set[str]) -> str:
    op = node.op_type
    kind = KINDS.get(base_operator(op), "matmul" if "MatMul" in op or op == "QGemm" else "other")
    if op in _QUANTIZE:
        kind = "quantize"
    elif op in _REORDER or (op in _MOVES and node.name not in named):
        kind = "reorder"
    elif op in _ATTENTIONS or (kind == "matmul" and not constants & set(_operands(node))):
        kind = "attention"
    elif kind == "conv":
        kind = _convolution(node, tensors)
    elif op.startswith("Reduce"):
        kind = "normalization"
    return _SPECIAL.get(kind, kind)


def _convolution(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> str:
    weight, shape = tensors[_operands(node)[1]][1], tensors[node.input[0]][1]
    channels = (shape[1], shape[-1])  # of either layout
    if weight[1] == 1 and weight[0] > 1 and 1 not in channels:
        return "depthwise"
    if node.op_type != "ConvTranspose" and weight[1] not in channels:
        return "grouped"
    return "pointwise" if prod(weight[2:]) == 1 else "dense"


def _operands(node: onnx.NodeProto) -> tuple[str, str]:
    """The two tensors that a convolution or product multiplies."""
    second = 3 if node.op_type.startswith("QLinear") or node.op_type == "QGemm" else 1
    return node.input[0], node.input[second]


def _product(node: onnx.NodeProto, kind: str, tensors: Mapping[str, Tensor]) -> tuple[int, int, int, tuple[int, ...]]:
    """MACs, output channels, positions and window (of a convolution) of a kernel; zeros for other than products."""
    if kind not in PRODUCTS:
        return 0, 0, 0, ()
    first, second = _operands(node)
    if second not in tensors:  # a fused attention with one packed input
        return 0, 0, 0, ()
    x, w, y = tensors[first][1], tensors[second][1], tensors[node.output[0]][1]
    if node.op_type in _ATTENTIONS:
        return _attention_macs(node.op_type, x, w), y[-1], prod(y[:-1]), ()
    if kind in ("matmul", "attention"):
        terms = isqrt(prod(x) * prod(w) // max(prod(y) * prod(w[:-2]), 1))
        return prod(y) * terms, y[-1], prod(y) // max(y[-1], 1), ()
    turned = node.op_type == "ConvTranspose"
    macs = (prod(x) if turned else prod(y)) * prod(w[1:])
    channels = y[1] if turned else w[0]
    return macs, channels, prod(y) // max(channels, 1), tuple(w[2:])


def _attention_macs(op: str, x: tuple[int, ...], w: tuple[int, ...]) -> int:
    batch, tokens, width = x[0], x[-2], x[-1]
    inner = w[-1] // 3 if op != "MultiHeadAttention" else width
    seen = w[-2] if op == "MultiHeadAttention" else tokens
    projected = 0 if op == "MultiHeadAttention" else batch * tokens * width * w[-1]
    return projected + 2 * batch * tokens * seen * inner


def _precision(node: onnx.NodeProto, tensors: Mapping[str, Tensor], kind: str) -> str:
    if node.op_type in INT8 or node.op_type.startswith("QLinear"):
        return "int8"
    first = next((tensors[name][0] for name in node.input if name in tensors), "float")
    return _PRECISIONS.get(first, first) if kind != "quantize" else ""


def _as_in_file(kernels: Sequence[Kernel], source: Graph) -> list[Kernel]:
    """The kernels with the channels and MACs that the file has: ONNX Runtime rounds channels of its blocked layout up.

    The order of branches may be another one, so products are matched by what padding leaves alone, and among those by MACs.
    """
    mine: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    theirs: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for i, kernel in enumerate(kernels):
        if kernel.is_product:
            mine[_token(kernel)].append(i)
    for node in source.nodes:
        if node.macs:
            shape = source.tensors[node.outputs[0]].shape
            by_matrix = node.kind == "matmul"
            token = ("matmul", node.macs) if by_matrix else (node.kind, prod(shape) // shape[1])
            theirs[token].append((node.macs, shape[-1] if by_matrix else shape[1]))
    result = list(kernels)
    for token, places in mine.items():
        told = sorted(theirs[token])
        for i, (macs, channels) in zip(
            sorted(places, key=lambda i: (kernels[i].macs, kernels[i].executed)), told, strict=False
        ):
            if len(told) == len(places) and macs <= kernels[i].macs and channels <= kernels[i].channels:
                result[i] = replace(kernels[i], channels=channels, useful_macs=macs)
    return result


def _token(kernel: Kernel) -> tuple[str, int]:
    """What stays of a product when channels are padded: a convolution's class and positions, a product's MACs."""
    if kernel.kind in ("matmul", "attention"):
        return "matmul", kernel.macs
    return kernel.kind, kernel.positions


def by_class(kernels: Iterable[Kernel]) -> dict[str, float]:
    """Milliseconds by class, in the order of ``CLASSES``; classes without a kernel are left out."""
    total: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels:
        total[kernel.kind] += kernel.ms
    return {kind: total[kind] for kind in CLASSES if kind in total}


def low_quartile(samples: Sequence[float]) -> float:
    """The lower quartile: what a kernel takes when nothing interrupts it."""
    return float(np.quantile(np.asarray(samples), 0.25))
