"""INT8 by NNCF's post-training quantization, with its Q/DQ pairs completed so that ONNX Runtime executes them.

NNCF's own file of a depth network runs 40 to 60 % of its multiply-accumulates in INT8: it leaves the output of a
convolution in float before an activation it does not know, mixes int8 and uint8 around one operator, and gives depthwise
convolutions activation zero points per channel, which ONNX Runtime's INT8 kernels refuse. ``_complete`` mends the first two
without a change of NNCF's own ranges, ``_settings`` avoids the third. Needs nncf, numpy, onnx and onnxruntime, never torch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from depthbench.compression.calibration import Image, checked
from depthbench.compression.executed import delivered, quiet
from depthbench.compression.graph import DEQUANTIZE, QUANTIZE, initial_values
from depthbench.compression.prepared import fit_kernels, prepared, save
from depthbench.compression.quantize import behind_products

Score = Callable[[Path | ort.InferenceSession, Sequence[int] | None], Mapping[str, float]]
"""Mean metrics of a file or a session on calibration images, of all or of those with these places."""

PRODUCTS = ("Conv", "Gemm", "MatMul")
RANKING_IMAGES = 8
MAX_RESTORED = 40


def quantize_nncf(
    source: Path,
    out: Path,
    calibration: Iterable[Image],
    *,
    symmetric: bool = False,
    transformer: bool = False,
    bias_correction: str = "fast",
    tolerance: float | None = None,
    score: Score | None = None,
) -> dict[str, Any]:
    """Static INT8 (QDQ) by NNCF; returns a report.

    ``symmetric``: activations too (NNCF's preset "performance"). ``transformer``: NNCF's model type, with SmoothQuant.
    ``bias_correction``: "none", "fast" or "accurate". ``tolerance``: NNCF's accuracy-aware mode, which takes operators back to
    float until ``score``'s delta1 falls by no more than this; without it ``score`` is not asked. ``ValueError`` when that
    cannot be reached, and as :func:`depthbench.compression.quantize.quantize_int8`.
    """
    model = prepared(source)
    images = checked(calibration, model)
    fit_kernels(model)
    quantized = _quantized(model, images, _settings(symmetric, transformer, bias_correction), tolerance, score)
    _complete(quantized, images)
    with tempfile.TemporaryDirectory() as folder:  # nothing is left behind when the tolerance is missed
        written = Path(folder) / "quantized.onnx"
        save(quantized, written)
        report = {"calibration_images": len(images), **delivered(source, written, images)}
        if tolerance is not None:
            assert score is not None
            loss = score(source, None)["delta1"] - score(written, None)["delta1"]
            if loss > tolerance or not report["int8_macs_share"]:
                raise ValueError(
                    f"tolerance: {tolerance} cannot be reached: with {MAX_RESTORED} operators at most taken back to float "
                    f"delta1 falls by {loss:.2g} at {report['int8_macs_share']:.0%} of the work in INT8"
                )
            report |= {"tolerance": tolerance, "delta1_loss": round(loss, 5)}
        save(onnx.load(written), out)
    return report


def _settings(symmetric: bool, transformer: bool, bias_correction: str) -> dict[str, Any]:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    presets = nncf.QuantizationPreset
    return {
        "preset": presets.PERFORMANCE if symmetric else presets.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "fast_bias_correction": bias_correction != "accurate",
        "advanced": AdvancedQuantizationParameters(
            disable_bias_correction=bias_correction == "none",
            activations_quantization_params=QuantizationParameters(per_channel=False),
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        ),
    }


def _quantized(
    model: onnx.ModelProto,
    images: list[Image],
    settings: dict[str, Any],
    tolerance: float | None,
    score: Score | None,
) -> onnx.ModelProto:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters

    logging.getLogger("nncf").setLevel(logging.ERROR)
    name = model.graph.input[0].name
    data = nncf.Dataset(images, lambda image: {name: image})
    advanced = settings.pop("advanced")
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        try:
            if tolerance is None:
                quantized = nncf.quantize(
                    model, data, subset_size=len(images), advanced_parameters=advanced, **settings
                )
            elif score is None:
                raise ValueError("tolerance: needs images with ground truth to score on")
            else:
                quantized = nncf.quantize_with_accuracy_control(
                    model,
                    data,
                    nncf.Dataset(list(range(len(images)))),
                    _validation(score),
                    max_drop=tolerance,
                    subset_size=len(images),
                    advanced_quantization_parameters=advanced,
                    advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
                        max_num_iterations=MAX_RESTORED, ranking_subset_size=min(RANKING_IMAGES, len(images))
                    ),
                    **settings,
                )
        except (nncf.InternalError, nncf.ValidationError, nncf.UnsupportedModelError) as error:
            raise ValueError(f"NNCF cannot quantize this network ({str(error).strip().splitlines()[0]})") from None
    result: onnx.ModelProto = quantized
    return result


def _validation(score: Score) -> Callable[[onnx.ModelProto, Iterable[int]], tuple[float, list[float]]]:
    def validate(model: onnx.ModelProto, places: Iterable[int]) -> tuple[float, list[float]]:
        """Mean delta1 and that of every image, which NNCF ranks its operators by."""
        session = ort.InferenceSession(model.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
        values = [score(session, [place])["delta1"] for place in places]
        return float(np.nanmean(values)), [0.0 if math.isnan(value) else value for value in values]

    return validate


def _complete(model: onnx.ModelProto, images: list[Image]) -> None:
    """Give every product that NNCF quantized uint8 pairs on its activations and one on its output.

    The last products keep a float output: behind them is the network's own.
    """
    _unsigned(model.graph)
    del model.graph.value_info[:]  # types that are no longer true
    graph = model.graph
    behind = behind_products(model)
    last = {name for node in graph.node if node.name in behind for name in node.input}
    last |= {value.name for value in graph.output}
    weights = initial_values(graph)
    producer = {name: node for node in graph.node for name in node.output}
    products = [
        node
        for node in graph.node
        if node.op_type in PRODUCTS
        and node.output[0] not in last
        and any(producer[name].op_type == DEQUANTIZE for name in node.input[:2] if name in producer)
    ]
    open_inputs = [
        name
        for node in products
        for name in node.input[:2]
        if name not in weights and (name not in producer or producer[name].op_type != DEQUANTIZE)
    ]
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    results = [_result(node, consumers) for node in products]
    open_outputs = [name for name in results if all(other.op_type != QUANTIZE for other in consumers[name])]
    extremes = _extremes(model, images, {*open_inputs, *open_outputs})
    pairs = {name: _pair(graph, name, *extremes[name]) for name in extremes}
    for node in products:
        for i in (0, 1):
            if node.input[i] in pairs:
                node.input[i] = pairs[node.input[i]][1].output[0]
    for name in results:  # everyone but the one quantizer reads what comes out of its pair
        readers = consumers[name]
        kept = pairs[name][0] if name in pairs else next(other for other in readers if other.op_type == QUANTIZE)
        rounded = pairs[name][1] if name in pairs else consumers[kept.output[0]][0]
        for other in readers:
            if other is not kept:
                other.input[:] = [rounded.output[0] if read == name else read for read in other.input]
    graph.node.extend(node for pair in pairs.values() for node in pair)
    _sort(graph)


def _result(node: onnx.NodeProto, consumers: Mapping[str, list[onnx.NodeProto]]) -> str:
    """The tensor to quantize behind a product: that of the Relu or Clip, if any, which ONNX Runtime takes into it."""
    name: str = node.output[0]
    while len(consumers[name]) == 1 and consumers[name][0].op_type in ("Relu", "Clip"):
        name = consumers[name][0].output[0]
    return name


def _unsigned(graph: onnx.GraphProto) -> None:
    """Activations in int8 become uint8: the same values with a zero point 128 higher."""
    values = initial_values(graph)
    activations = {
        name
        for node in graph.node
        if node.op_type in (QUANTIZE, DEQUANTIZE) and node.input[0] not in values
        for name in node.input[2:3]
    }
    renamed = {}
    for name in sorted(activations):
        if values[name].dtype == np.int8:
            renamed[name] = f"{name}_unsigned"
            shifted = (values[name].astype(np.int16) + 128).astype(np.uint8)
            graph.initializer.append(numpy_helper.from_array(shifted, renamed[name]))
    for node in graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE) and node.input[0] not in values and node.input[2] in renamed:
            node.input[2] = renamed[node.input[2]]


def _extremes(model: onnx.ModelProto, images: list[Image], names: set[str]) -> dict[str, tuple[float, float]]:
    """Least and greatest value of tensors over all images, sorted by name."""
    if not names:
        return {}
    ordered = sorted(names)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ordered if name not in known
    )
    session = ort.InferenceSession(shown.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
    low, high = dict.fromkeys(ordered, 0.0), dict.fromkeys(ordered, 0.0)  # 0 stays exact
    for image in images:
        values: list[NDArray[np.float32]] = session.run(ordered, {model.graph.input[0].name: image})
        for name, value in zip(ordered, values, strict=True):
            low[name], high[name] = min(low[name], float(value.min())), max(high[name], float(value.max()))
    return {name: (low[name], high[name]) for name in ordered}


def _pair(graph: onnx.GraphProto, name: str, low: float, high: float) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """A QuantizeLinear of a tensor and the DequantizeLinear behind it, in uint8 over a range."""
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    parameters = [f"{name}_pair_scale", f"{name}_pair_zero"]
    for parameter, value in zip(parameters, (np.float32(scale), np.uint8(zero)), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(value), parameter))
    quantized, dequantized = f"{name}_quantized", f"{name}_dequantized"
    return (
        helper.make_node(QUANTIZE, [name, *parameters], [quantized], f"{name}_pair_quantize"),
        helper.make_node(DEQUANTIZE, [quantized, *parameters], [dequantized], f"{name}_pair_dequantize"),
    )


def _sort(graph: onnx.GraphProto) -> None:
    """Bring the nodes into an order in which every input is made before it is read."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    holder = helper.make_model(graph)
    ONNXModel(holder).topological_sort()
    graph.CopyFrom(holder.graph)
