"""What ONNX Runtime executes of a file, and what it delivers: multiply-accumulates in INT8, and the noise of rounding.

A file in INT8 for TensorRT is judged as it is written (:func:`depthbench.compression.graph.take_as_written`).
Counted on the graph that ONNX Runtime's CPU provider makes of the file, with the shapes of one run of it: a QDQ pair that
it could not fuse leaves its product in float, whatever the file says. Needs numpy, onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from depthbench.compression.graph import attribute, optimized, take_as_written

Image = NDArray[np.float32]

CONVOLUTIONS: Mapping[str, int] = {"Conv": 1, "FusedConv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operators that convolve, and the place of the weight among their inputs."""

FLOAT_PRODUCTS = ("FusedGemm", "FusedMatMul", "Gemm", "MatMul")
INT8_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearMatMul")
PRODUCTS = frozenset((*FLOAT_PRODUCTS, *INT8_PRODUCTS))
"""Operators that multiply matrices; the first input is the left factor."""

INT8 = frozenset(("ConvInteger", "QLinearConv", *INT8_PRODUCTS))
"""The operators of both kinds that multiply in INT8."""

NOISE_IMAGES = 16
"""On so many of a file's calibration images the noise in its report is told: each runs through both files."""


@dataclass(frozen=True)
class Executed:
    """Multiply-accumulates of convolutions and matrix products in one run, and the convolutions, in INT8 and in all."""

    macs: Mapping[str, int]
    int8_convolutions: int
    convolutions: int

    @property
    def int8_share(self) -> float:
        """Share of the multiply-accumulates that are executed in INT8, 0 to 1."""
        total = sum(self.macs.values())
        return sum(macs for operator, macs in self.macs.items() if operator in INT8) / total if total else 0.0


def executed(path: Path) -> Executed:
    """What one run of a file executes; ``macs`` by operator of ONNX Runtime.

    The file has fixed shapes. ``ValueError`` when ONNX Runtime refuses it.
    """
    # layouts are left as they are: they change no product, and blocks of channels would be counted with their filling
    model = optimized(path, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    counts = node_macs(model)
    macs: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    for node in model.graph.node:
        if node.name in counts:
            macs[node.op_type] += counts[node.name]
            convolutions[node.op_type] += node.op_type in CONVOLUTIONS
    int8 = sum(count for kind, count in convolutions.items() if kind in INT8)
    return Executed(dict(macs), int8, sum(convolutions.values()))


def node_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of every convolution and matrix product of a model whose nodes have names of their own."""
    shapes = _run_shapes(model)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:  # of a product that could not be fused
            weights[node.output[0]] = weights[node.input[0]]
    macs = {}
    for node in model.graph.node:
        if node.op_type not in CONVOLUTIONS and node.op_type not in PRODUCTS:
            continue
        first, result = shapes[node.name]
        if node.op_type == "ConvTranspose":
            macs[node.name] = prod(first) * prod(weights[node.input[1]][1:])
        elif node.op_type in CONVOLUTIONS:
            macs[node.name] = prod(result) * prod(weights[node.input[CONVOLUTIONS[node.op_type]]][1:])
        else:
            macs[node.name] = prod(result) * first[-2 if attribute(node, "transA", 0) else -1]
    return macs


def _run_shapes(model: onnx.ModelProto) -> dict[str, tuple[list[int], list[int]]]:
    """Shapes of the first input and of the first output of every node that a run executes, by the node's name."""
    with tempfile.TemporaryDirectory() as folder:
        options = quiet()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, {value.name: np.zeros(value.shape, np.float32) for value in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            first, result = (event["args"][key][:1] for key in ("input_type_shape", "output_type_shape"))
            if first and result:
                found[event["name"].removesuffix("_kernel_time")] = (_shape(first[0]), _shape(result[0]))
    return found


def _shape(value: Mapping[str, Any]) -> list[int]:
    [shape] = value.values()
    return list(shape)


def quiet() -> ort.SessionOptions:
    """Options of a session on one thread that prints errors alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_quietly(path: Path, threads: int = 1) -> ort.InferenceSession:
    """A session on a file; ``ValueError`` when ONNX Runtime refuses it."""
    options = quiet()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its message is in the error
    take_as_written(options, path)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no other common class
        raise ValueError(f"{path}: ONNX Runtime refuses it ({str(error).strip().splitlines()[0]})") from None


def outputs(path: Path, images: Iterable[Image]) -> NDArray[np.float32]:
    """What a file of one input and one output makes of images: (N, ...) float32; ``ValueError`` when it is refused."""
    session = open_quietly(path)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image})[0] for image in images])


def sqnr_db(exact: NDArray[np.float32], rounded: NDArray[np.float32]) -> float:
    """Signal (variance over all values) to quantization noise in dB; infinite when both are equal."""
    noise = float(np.square(exact - rounded, dtype=np.float64).sum())
    signal = float(np.square(exact - exact.mean(dtype=np.float64)).sum())
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf


def delivered(source: Path, out: Path, images: Sequence[Image]) -> dict[str, Any]:
    """The report on an INT8 file: what ONNX Runtime executes of it in INT8, and its noise against the float32 file.

    ``int8_convolutions`` of ``convolutions``, ``int8_macs_share`` (0 to 1, of convolutions and matrix products) and
    ``sqnr_db`` (:func:`noise_db`).
    """
    found = executed(out)
    return {
        "int8_convolutions": found.int8_convolutions,
        "convolutions": found.convolutions,
        "int8_macs_share": round(found.int8_share, 4),
        "sqnr_db": noise_db(source, out, images),
    }


def noise_db(source: Path, out: Path, images: Sequence[Image]) -> float | None:
    """:func:`sqnr_db` of a file against the one it was made from, rounded to 0.01 dB; None when the outputs are equal.

    Of ``images`` at most :data:`NOISE_IMAGES` are shown to both files, spread evenly.
    """
    shown = images[:: math.ceil(len(images) / NOISE_IMAGES)]
    ratio = sqnr_db(outputs(source, shown), outputs(out, shown))
    return round(ratio, 2) if math.isfinite(ratio) else None
