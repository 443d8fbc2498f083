"""Static INT8 files from a float32 ONNX file, calibrated on images: one form for CPUs, another for TensorRT.

A quantized file is only as fast as the graph that the runtime makes of it. What ``quantize_int8`` decides, and why, was
measured with ONNX Runtime 1.31 on one thread of a CPU with AVX512-VNNI; each decision stands beside its code. Needs numpy,
onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibraterBase

from depthbench.compression.calibration import DEFAULT_RANGES, Image, Reader, checked, method
from depthbench.compression.executed import delivered, node_macs, noise_db, quiet
from depthbench.compression.graph import attribute
from depthbench.compression.prepared import fit_kernels, prepared, save

ELEMENTWISE = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"}
)
"""Operators that ONNX Runtime runs on uint8 tensors between convolutions, so that no tensor goes back to float."""

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

FEW_CHANNELS = 4
"""Convolutions that read fewer channels than this stay in float (a stem, an edge filter): the INT8 kernel unfolds their
input into rows of a few bytes and is slower than the float one."""


def quantize_int8(
    source: Path,
    out: Path,
    calibration: Iterable[Image],
    *,
    ranges: str = DEFAULT_RANGES,
    per_channel: bool = True,
    symmetric: bool = False,
    everything: bool = False,
) -> dict[str, Any]:
    """Static INT8 (QDQ) for ONNX Runtime on a CPU: uint8 activations, int8 weights; returns a report.

    ``calibration``: (1, 3, H, W) float32 network inputs, H and W those of ``source``. ``ranges``: a key of
    :data:`depthbench.compression.calibration.RANGES`. ``per_channel``: a scale per output channel of a weight. ``symmetric``:
    activations in int8 with zero point 0.
    Quantized are the convolutions and the elementwise operators that hang together with them. In float stay:
    convolutions that read few channels, everything behind the last convolutions (the sigmoid's 256 steps would be 4 cm of
    10 m), and whatever works on tokens (at K = 16 tokens the conversions cost more than the products save).
    ``everything``: quantize these few channels and matrix products too, for a runtime or an accelerator without float.
    ``ValueError`` when the source is no whole ONNX model, or the calibration is empty, constant or of another shape.
    """
    model = prepared(source)
    images = checked(calibration, model)
    fit_kernels(model)
    quantized = quantizable(model, everything=everything)
    write_qdq(model, out, images, quantized, ranges=ranges, per_channel=per_channel, symmetric=symmetric)
    return {
        "calibration_images": len(images),
        "ranges": ranges,
        "quantized_nodes": len(quantized),
        **delivered(source, out, images),
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
    model = prepared(source)
    images = checked(calibration, model)
    constants = {tensor.name for tensor in model.graph.initializer}
    quantized = [node.name for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in constants]
    options = {
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
    }
    write_qdq(model, out, images, quantized, ranges=ranges, symmetric=True, options=options)
    macs = node_macs(model)
    return {
        "calibration_images": len(images),
        "ranges": ranges,
        "quantized_nodes": len(quantized),
        "int8_macs_share": round(sum(macs[name] for name in quantized) / sum(macs.values()), 4),
        "sqnr_db": noise_db(source, out, images),
    }


def quantizable(model: onnx.ModelProto, *, everything: bool = False, floats: Container[str] = ()) -> list[str]:
    """Names of the nodes to quantize: convolutions, and the elementwise nodes that hang together with them.

    ``everything``: matrix products and convolutions of few channels too. ``floats``: names of nodes that stay in float.
    """
    nodes = list(model.graph.node)
    producer = {name: node for node in nodes for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    behind = behind_products(model)
    chosen = [node for node in multiplying(model, everything=everything) if node.name not in floats]
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


def multiplying(model: onnx.ModelProto, *, everything: bool = False) -> list[onnx.NodeProto]:
    """The convolutions that :func:`quantizable` takes; with ``everything`` all convolutions and matrix products."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    if everything:
        return [node for node in model.graph.node if node.op_type in WEIGHTED]
    return [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.input[1] in weights
        and (attribute(node, "group", 1) > 1 or weights[node.input[1]][1] >= FEW_CHANNELS)
    ]


def behind_products(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes between the last products with weights and the output."""
    producer = {name: node for node in model.graph.node for name in node.output}
    behind: set[str] = set()
    pending = [producer[value.name] for value in model.graph.output if value.name in producer]
    while pending:
        node = pending.pop()
        if node.op_type not in WEIGHTED and node.name not in behind:
            behind.add(node.name)
            pending += [producer[name] for name in node.input if name in producer]
    return behind


def write_qdq(
    model: onnx.ModelProto,
    out: Path,
    images: list[Image],
    nodes: list[str],
    *,
    ranges: str = DEFAULT_RANGES,
    per_channel: bool = True,
    symmetric: bool = False,
    options: Mapping[str, Any] | None = None,
    known_ranges: Path | None = None,
) -> None:
    """Write a model with Q/DQ pairs around ``nodes``.

    ``options``: more of ONNX Runtime's. ``known_ranges``: a file that keeps the tensors' ranges, so that the next call with
    the same model need not calibrate again; ranges of all operators are then taken.
    """
    calibrate, extra = method(ranges)
    if not nodes:
        raise ValueError("nothing to quantize: no convolution and no product with weights in the graph")
    kinds = {node.op_type for node in model.graph.node if node.name in set(nodes)}
    if known_ranges is not None:
        kinds = {*ELEMENTWISE, *WEIGHTED, "Reshape"}
    printed = contextlib.redirect_stdout(io.StringIO())  # its calibrators print
    with tempfile.TemporaryDirectory() as folder, printed, _one_thread():
        target = Path(folder) / "quantized.onnx"
        quantize_static(
            copy.deepcopy(model),  # it moves the weights of what it is given to a file
            target,
            Reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(kinds),
            nodes_to_quantize=nodes,
            per_channel=per_channel,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=calibrate,
            calibration_cache_path=known_ranges,
            extra_options={"ActivationSymmetric": symmetric, **extra, **(options or {})},
        )
        save(onnx.load(target), out)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """ONNX Runtime's calibrators on one thread: they take every core, spin while they wait, and have no option for it.

    The ranges are the same, for a third less processor time, and workers of one machine do not get in each other's way.
    """
    theirs = CalibraterBase.create_inference_session
    CalibraterBase.create_inference_session = _open_calibrator
    try:
        yield
    finally:
        CalibraterBase.create_inference_session = theirs


def _open_calibrator(calibrator: Any) -> None:
    options = quiet()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # the levels above change ranges
    calibrator.infer_session = ort.InferenceSession(
        calibrator.augmented_model_path, options, providers=calibrator.execution_providers
    )
