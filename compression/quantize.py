"""INT8 and FP16 files from a float32 ONNX file, calibrated on images: one INT8 form for CPUs, another for TensorRT.

A quantized file is only as fast as the graph that the runtime makes of it. What ``quantize_int8`` decides, and why, was
measured with ONNX Runtime 1.31 on one thread of a CPU with AVX512-VNNI; each decision stands beside its code. Needs numpy,
onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from depthbench.compression.graph import int8_convolutions, optimized

Image = NDArray[np.float32]

ELEMENTWISE = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"}
)
"""Operators that ONNX Runtime runs on uint8 tensors between convolutions, so that no tensor goes back to float."""

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

FEW_CHANNELS = 4
"""Convolutions that read fewer channels than this stay in float (a stem, an edge filter): the INT8 kernel unfolds their
input into rows of a few bytes and is slower than the float one."""

RANGES: Mapping[str, tuple[CalibrationMethod, Mapping[str, Any]]] = MappingProxyType(
    {
        "mean": (CalibrationMethod.MinMax, {"CalibMovingAverage": True}),
        "minmax": (CalibrationMethod.MinMax, {}),
        "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
        "entropy": (CalibrationMethod.Entropy, {}),
    }
)
"""How a tensor's range follows from the calibration images: the mean over images of each image's extremes; the extremes
of all images; their 99.99th percentile; least Kullback-Leibler divergence. The last two hold every activation of every image
in memory and take minutes where the first two take seconds. One odd image stretches "minmax"; "mean" forgives it."""

DEFAULT_RANGES = "mean"


def quantize_int8(
    source: Path, out: Path, calibration: Iterable[Image], *, ranges: str = DEFAULT_RANGES
) -> dict[str, Any]:
    """Static INT8 (QDQ) for ONNX Runtime on a CPU: uint8 activations, int8 weights per channel; returns a report.

    ``calibration``: (1, 3, H, W) float32 network inputs, H and W those of ``source``. ``ranges``: a key of ``RANGES``.
    Quantized are the convolutions and the elementwise operators that hang together with them. In float stay:
    convolutions that read few channels, everything behind the last convolutions (the sigmoid's 256 steps would be 4 cm of
    10 m), and whatever works on tokens (at K = 16 tokens the conversions cost more than the products save).
    ``ValueError`` when the source is no whole ONNX model, or the calibration is empty, constant or of another shape.
    """
    model = _prepared(source)
    images = _checked(calibration, model)
    _shield_upsampling(model)
    quantized = _quantizable(model)
    _quantize(model, out, images, ranges, {}, quantized, QuantType.QUInt8)
    int8, convolutions = int8_convolutions(out)
    return {
        "calibration_images": len(images),
        "ranges": ranges,
        "int8_convolutions": int8,
        "convolutions": convolutions,
        "quantized_nodes": len(quantized),
    }


def quantize_int8_trt(
    source: Path, out: Path, calibration: Iterable[Image], *, ranges: str = DEFAULT_RANGES
) -> dict[str, Any]:
    """Static symmetric INT8 (QDQ) for TensorRT 8.0 and newer; returns a report. Arguments and errors as ``quantize_int8``.

    All zero points are 0. Convolutions and products with weights get Q/DQ pairs on their inputs alone: an activation or
    a sum that follows is fused into them by TensorRT, before any rounding. Softmax and products of two activations stay in
    float, as do biases. Weights are stored in float with a Q/DQ pair, per output channel: every TensorRT
    with explicit quantization takes that form, while int8 initializers with a lone DequantizeLinear are refused by 8.x
    ("only activation types allowed as input to this layer", onnxruntime issue 14229). So this file is as large as the
    float one; the engine built from it is not.
    """
    model = _prepared(source)
    images = _checked(calibration, model)
    constants = {tensor.name for tensor in model.graph.initializer}
    quantized = [node.name for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in constants]
    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
    }
    _quantize(model, out, images, ranges, options, quantized, QuantType.QInt8)
    return {"calibration_images": len(images), "ranges": ranges, "quantized_nodes": len(quantized)}


def to_fp16(source: Path, out: Path) -> dict[str, Any]:
    """Float16 weights and activations, float32 input and output; returns a report.

    The statistics of a layer normalisation that is written out (opset below 17) stay in float32, and so does what they hand
    to each other: a square overflows float16 from 256 on. ``ValueError`` when the source is no whole ONNX model.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = _prepared(source)
    kept = ["Pow", "ReduceMean", "Sqrt"]
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *kept])
    _join_float32(model.graph)
    ONNXModel(model).topological_sort()
    _save(model, out)
    return {"float32_nodes": sum(node.op_type in kept for node in model.graph.node)}


def _join_float32(graph: onnx.GraphProto) -> None:
    """Take out the casts to float16 and back between two nodes that are both in float32."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    kind = {name: onnx.helper.get_node_attr_value(node, "to") for name, node in casts.items()}
    for node in graph.node:
        for i, name in enumerate(node.input):
            if kind.get(name) != onnx.TensorProto.FLOAT or kind.get(casts[name].input[0]) != onnx.TensorProto.FLOAT16:
                continue
            if casts[name].input[0] != graph.input[0].name:
                node.input[i] = casts[casts[name].input[0]].input[0]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in casts.values() if node.output[0] not in used]:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in used]:
        graph.node.remove(node)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: list[Image]) -> None:
        self.feeds: Iterator[dict[str, Image]] = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, Image] | None:
        return next(self.feeds, None)


def _checked(calibration: Iterable[Image], model: onnx.ModelProto) -> list[Image]:
    images = list(calibration)
    if not images:
        raise ValueError("calibration: no images, at least one is needed")
    shape = tuple(axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim)
    for i, image in enumerate(images):
        if image.shape != shape or image.dtype != np.float32:
            raise ValueError(
                f"calibration: image {i} is {image.dtype} {image.shape}, the network takes float32 {shape}"
            )
        if not np.isfinite(image).all():
            raise ValueError(f"calibration: image {i} holds values that are not finite")
    if all(image.min() == image.max() for image in images):
        raise ValueError(
            f"calibration: every image is constant ({len(images)} in all), ranges cannot be told from them"
        )
    return images


def _prepared(source: Path) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimizations (constants folded, batch norm in the convolutions), with shapes."""
    model = optimized(source, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    used = {node.domain for node in model.graph.node}
    for opset in [o for o in model.opset_import if o.domain not in used]:
        model.opset_import.remove(opset)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    model = onnx.shape_inference.infer_shapes(model)
    add_pre_process_metadata(model)
    return model


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _shield_upsampling(model: onnx.ModelProto) -> None:
    """Put every nearest-neighbour Resize between two reshapes, (1, C, H, W) to (C, 1, H, W) and back: nothing changes.

    ONNX Runtime moves the convolutions to channels-last order and would carry a Resize along, where its uint8 kernel is
    far slower. Its optimizer does not move a layout through a reshape.
    """
    shapes = _shapes(model)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "Resize" or _attribute(node, "mode", b"nearest") != b"nearest":
            continue
        _, channels, *small = shapes[node.input[0]]
        if channels == 1:  # already the fast case
            continue
        inner, outer = f"{node.name}_in", f"{node.name}_out"
        for name, shape in ((f"{inner}_shape", [channels, 1, *small]), (f"{outer}_shape", shapes[node.output[0]])):
            model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
        before = helper.make_node("Reshape", [node.input[0], f"{inner}_shape"], [inner], f"{node.name}_before")
        after = helper.make_node("Reshape", [outer, f"{outer}_shape"], [node.output[0]], f"{node.name}_after")
        node.input[0], node.output[0] = inner, outer
        nodes[-1:] = [before, node, after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


def _quantizable(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes to quantize: convolutions, and the elementwise nodes that hang together with them."""
    nodes = list(model.graph.node)
    producer = {name: node for node in nodes for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}

    behind: set[str] = set()  # nodes between the last convolutions and the output
    pending = [producer[value.name] for value in model.graph.output]
    while pending:
        node = pending.pop()
        if node.op_type not in WEIGHTED and node.name not in behind:
            behind.add(node.name)
            pending += [producer[name] for name in node.input if name in producer]

    chosen = [
        node
        for node in nodes
        if node.op_type == "Conv"
        and node.input[1] in weights
        and (_attribute(node, "group", 1) > 1 or weights[node.input[1]][1] >= FEW_CHANNELS)
    ]
    names = {node.name for node in chosen}
    for node in chosen:  # grows while it is walked through
        around = [producer[name] for name in node.input if name in producer]
        around += [other for name in node.output for other in consumers.get(name, [])]
        for other in around:
            shield = other.op_type == "Reshape" and any(
                n.op_type == "Resize"
                for n in [*consumers.get(other.output[0], []), producer.get(other.input[0], other)]
            )
            if (other.op_type in ELEMENTWISE or shield) and other.name not in behind | names:
                names.add(other.name)
                chosen.append(other)
    return [node.name for node in nodes if node.name in names]


def _quantize(
    model: onnx.ModelProto,
    out: Path,
    images: list[Image],
    ranges: str,
    options: Mapping[str, Any],
    nodes: list[str],
    activations: QuantType,
) -> None:
    if ranges not in RANGES:
        raise ValueError(f"ranges: {ranges!r} is none of {', '.join(RANGES)}")
    if not nodes:
        raise ValueError("nothing to quantize: no convolution and no product with weights in the graph")
    method, extra = RANGES[ranges]
    kinds = {node.op_type for node in model.graph.node if node.name in set(nodes)}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # its calibrators print
        target = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            target,
            _Reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(kinds),
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options={**extra, **options},
        )
        _save(onnx.load(target), out)


def _save(model: onnx.ModelProto, out: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, out)
