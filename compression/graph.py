"""What stands in an ONNX file: its digest, its nodes, what ONNX Runtime makes of it, whether TensorRT can take it.

Needs onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file; ``ValueError`` when there is no file, or no whole ONNX model in it."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path}: not a whole ONNX model ({str(error).strip().splitlines()[0]})") from None
    return model


def node_histogram(path: Path) -> dict[str, int]:
    """How many nodes of each operator the file holds, most frequent first."""
    return dict(Counter(node.op_type for node in read_model(path).graph.node).most_common())


def optimized(path: Path, level: ort.GraphOptimizationLevel) -> onnx.ModelProto:
    """The graph that ONNX Runtime's CPU provider makes of a file; ``ValueError`` when it refuses the file."""
    read_model(path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(target)
        options.intra_op_num_threads = 1
        options.graph_optimization_level = level
        options.log_severity_level = (
            3  # a warning says that such a file fits this machine only: it is read and thrown away
        )
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no other common class
            raise ValueError(f"{path}: ONNX Runtime refuses it ({str(error).strip().splitlines()[0]})") from None
        return onnx.load(target)


def check_trt_form(path: Path) -> None:
    """``ValueError`` that names the nodes, unless TensorRT's ONNX parser can take the quantization in the file.

    TensorRT quantizes symmetrically: every zero point must be 0 and of type int8, and no bias may come from an int32
    DequantizeLinear (NVIDIA, "Working with Quantized Types", TensorRT documentation).
    """
    if fault := _trt_fault(read_model(path)):
        raise ValueError(f"{path}: not for TensorRT: {fault}")


def take_as_written(options: ort.SessionOptions, path: Path) -> None:
    """Let ONNX Runtime's CPU carry out a file in INT8 for TensorRT node by node, rounding where the file rounds.

    It would otherwise move Q/DQ pairs and join some products with its own INT8 kernels, as no board does, and take 1.3 to 2
    times as long. Any other file is left to it, one that is no whole ONNX model included: the runtime says what is wrong with
    that.
    """
    try:
        model = read_model(path)
        written = any(node.op_type == QUANTIZE for node in model.graph.node) and not _trt_fault(model)
    except (ValueError, OSError):
        return
    if written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")


def _trt_fault(model: onnx.ModelProto) -> str | None:
    graph = model.graph
    constants = initial_values(graph)
    shifted, biases, unsigned = [], [], []
    for node in graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        typed = zero if zero is not None else constants.get(node.input[0]) if node.op_type == DEQUANTIZE else None
        kind = typed.dtype if typed is not None else np.dtype(np.uint8)  # what ONNX says of a zero point left out
        if kind == np.int32:
            biases.append(node.name)
        elif kind != np.int8:
            unsigned.append(node.name)
        elif zero is not None and zero.any():
            shifted.append(node.name)
    for nodes, fault in (
        (shifted, "zero point is not 0"),
        (biases, "bias is dequantized from int32"),
        (unsigned, "quantized type is not int8"),
    ):
        if nodes:
            more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
            return f"{fault} in {', '.join(nodes[:3])}{more}"
    return None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or ``default`` when it is left out."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def initial_values(graph: onnx.GraphProto) -> Mapping[str, NDArray[np.generic]]:
    """The values of a graph's initializers and Constant nodes, by name."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return values


def static_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes that a model tells of its tensors, by name; 0 for a side that it leaves open."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
