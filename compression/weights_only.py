"""INT8 without calibration: int8 weights that are computed in float (a control), and activations quantized on the way.

Needs numpy, onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from depthbench.compression.calibration import Image, checked
from depthbench.compression.executed import delivered
from depthbench.compression.graph import attribute
from depthbench.compression.prepared import prepared, save

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize_weights(
    source: Path, out: Path, calibration: Iterable[Image], *, per_channel: bool = True
) -> dict[str, Any]:
    """Weights of convolutions and products in int8, dequantized while the network runs; returns a report.

    The file shrinks to about a quarter and gets no faster: a control that tells the noise of the weights from that of the
    activations. Symmetric, a scale per output channel or (``per_channel=False``) per weight. ``calibration`` is only for
    the report. ``ValueError`` when the source is no whole ONNX model or has no such weight.
    """
    model = prepared(source)
    images = checked(calibration, model)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in values:
            continue
        name = node.input[1]
        if name not in pairs:
            pairs[name] = _dequantizer(model.graph, values[name], _output_axis(node) if per_channel else None)
        node.input[1] = pairs[name].output[0]
    if not pairs:
        raise ValueError(f"{source}: nothing to quantize: no convolution and no product with weights in the graph")
    nodes = [*pairs.values(), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    save(model, out)
    return {"quantized_weights": len(pairs), **delivered(source, out, images)}


def _output_axis(node: onnx.NodeProto) -> int:
    """The axis of a node's weight along which its output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return -1 if node.op_type == "MatMul" else 1


def _dequantizer(graph: onnx.GraphProto, tensor: onnx.TensorProto, axis: int | None) -> onnx.NodeProto:
    """A DequantizeLinear of a weight; its int8 values and scales are added to the graph."""
    weight: NDArray[np.float32] = numpy_helper.to_array(tensor)
    if axis is not None:
        axis %= weight.ndim
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    rounded = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
    names = [f"{tensor.name}_int8", f"{tensor.name}_scale", f"{tensor.name}_zero"]
    zero = np.zeros(scale.size, np.int8)
    flat = (scale.ravel(), zero) if axis is not None else (scale.reshape(()), zero.reshape(()))
    for name, value in zip(names, (rounded, *flat), strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node(
        "DequantizeLinear", names, [f"{tensor.name}_float"], f"{tensor.name}_dequantize", **attributes
    )


def quantize_dynamically(
    source: Path, out: Path, calibration: Iterable[Image], *, per_channel: bool = True
) -> dict[str, Any]:
    """int8 weights, and activations whose range is taken anew for every image; returns a report.

    Convolutions become ConvInteger, products MatMulInteger, each behind a pass over its input that finds the range.
    ``calibration`` is only for the report. ``ValueError`` as :func:`quantize_weights`.
    """
    model = prepared(source)
    images = checked(calibration, model)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            per_channel=per_channel,
            weight_type=QuantType.QUInt8,  # ONNX Runtime's ConvInteger takes no int8 weights
        )
        written = onnx.load(target)
    if not any(node.op_type in ("ConvInteger", "MatMulInteger") for node in written.graph.node):
        raise ValueError(f"{source}: nothing to quantize: no convolution and no product with weights in the graph")
    save(written, out)
    return delivered(source, out, images)
