"""INT8 for CPUs, INT8 for TensorRT and FP16, on small networks and on the catalogue's models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from depthbench.compression.calibration import RANGES
from depthbench.compression.executed import executed, noise_db, open_quietly
from depthbench.compression.graph import (
    check_trt_form,
    initial_values,
    node_histogram,
    optimized,
    read_model,
)
from depthbench.compression.half import to_fp16
from depthbench.compression.prepared import prepared, shield_upsampling, tile_few_outputs
from depthbench.compression.quantize import quantize_int8, quantize_int8_trt
from depthbench.suites.evaluate import open_session
from depthbench.suites.export import export_onnx
from depthbench.suites.models import MODELS

Exported = Callable[[str, int], Path]
Images = list[NDArray[np.float32]]
Quantize = Callable[..., dict[str, object]]

ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def run(path: Path, images: Images) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"rgb": image})[0] for image in images])


def sqnr_db(exact: NDArray[np.float32], rounded: NDArray[np.float32]) -> float:
    """Signal (variance over pixels and images) to quantization noise."""
    return float(10 * math.log10(np.sum((exact - exact.mean()) ** 2) / np.sum((exact - rounded) ** 2)))


def few_channels(path: Path) -> int:
    """Convolutions over fewer than four channels, depthwise ones apart."""
    graph = read_model(path).graph
    weights = initial_values(graph)
    groups = {n.name: next((a.i for a in n.attribute if a.name == "group"), 1) for n in graph.node}
    return sum(n.op_type == "Conv" and groups[n.name] == 1 and weights[n.input[1]].shape[1] < 4 for n in graph.node)


@pytest.mark.parametrize("name", list(MODELS))
def test_int8_of_the_catalogue_runs_its_convolutions_in_int8(
    name: str, exported: Exported, calibration: Images, unseen: Images, tmp_path: Path
) -> None:
    source, out = exported(name, 17), tmp_path / "int8.onnx"
    report = quantize_int8(source, out, calibration)
    found = executed(out)
    int8, total = found.int8_convolutions, found.convolutions
    assert total == node_histogram(source)["Conv"]
    few = few_channels(source)
    assert (
        total - 3 <= total - few <= int8 <= total - min(few, 1)
    )  # all but those, and some of those in tiles; never a stem
    assert (report["int8_convolutions"], report["convolutions"]) == (int8, total)
    assert (report["calibration_images"], report["ranges"]) == (4, "minmax")
    assert out.stat().st_size < 0.75 * source.stat().st_size
    exact, rounded = (run(path, unseen + calibration) for path in (source, out))
    assert sqnr_db(exact[:4], rounded[:4]) > 8
    assert report["sqnr_db"] == pytest.approx(sqnr_db(exact[4:], rounded[4:]), abs=0.01)
    assert report["int8_macs_share"] == round(found.int8_share, 4)


@pytest.mark.parametrize("name", ["tst-s", "fastdepth", "mobilevit-xxs"])
def test_everything_in_int8_is_nine_tenths_of_what_is_multiplied(
    name: str, exported: Exported, calibration: Images, unseen: Images, tmp_path: Path
) -> None:
    source, out = exported(name, 17), tmp_path / "int8.onnx"
    report = quantize_int8(source, out, calibration, everything=True)
    assert report["int8_macs_share"] == round(executed(out).int8_share, 4) >= 0.9
    assert report["int8_convolutions"] == report["convolutions"]
    assert sqnr_db(run(source, unseen), run(out, unseen)) > 8


@pytest.mark.parametrize(("given", "every"), [(16, 1), (17, 2), (40, 3)])
def test_noise_is_told_on_a_few_images_of_all(
    given: int, every: int, exported: Exported, calibration: Images, tmp_path: Path
) -> None:
    source, out = exported("dense", 17), tmp_path / "int8.onnx"
    quantize_int8(source, out, calibration)
    images = [calibration[i % 4] * np.float32(1 - i / 80) for i in range(given)]
    told = round(sqnr_db(run(source, images[::every]), run(out, images[::every])), 2)
    assert noise_db(source, out, images) == pytest.approx(told, abs=0.011)
    assert sqnr_db(run(source, images[1:]), run(out, images[1:])) != pytest.approx(told, abs=0.011)


@pytest.mark.parametrize("name", ["dense", "tokens"])
def test_forms_of_scales(name: str, exported: Exported, calibration: Images, unseen: Images, tmp_path: Path) -> None:
    source = exported(name, 17)
    for per_channel, symmetric in ((False, False), (True, True)):
        quantize_int8(source, tmp_path / "a.onnx", calibration, per_channel=per_channel, symmetric=symmetric)
        graph = read_model(tmp_path / "a.onnx").graph
        values = initial_values(graph)
        quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        assert {values[node.input[2]].dtype.name for node in quantizers} == {"int8" if symmetric else "uint8"}
        assert any(values[node.input[2]].any() for node in quantizers) == (not symmetric)
        weights = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in values]
        assert (max(values[node.input[1]].size for node in weights) > 1) == per_channel
        assert sqnr_db(run(source, unseen), run(tmp_path / "a.onnx", unseen)) > 8


def test_int8_trt_is_carried_out_as_written(
    exported: Exported, calibration: Images, unseen: Images, tmp_path: Path
) -> None:
    out = tmp_path / "trt.onnx"
    quantize_int8_trt(exported("tst-t", 13), out, calibration)
    assert executed(out).int8_share > 0, "left alone, the runtime takes kernels that no board has"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    exact, *written = (
        np.concatenate([session.run(None, {"rgb": image})[0] for image in unseen])
        for session in (plain, open_session(out), open_quietly(out))
    )
    for depth in written:
        # a value between two steps may fall to either side; the runtime's own kernels differ by far more
        assert np.array_equal(exact, depth) or sqnr_db(exact, depth) > sqnr_db(exact, run(out, unseen)) + 6


@pytest.mark.parametrize("name", list(MODELS))
def test_int8_trt_of_the_catalogue_is_symmetric_and_leaves_bias_and_softmax(
    name: str, exported: Exported, calibration: Images, unseen: Images, tmp_path: Path
) -> None:
    source, out = exported(name, 13), tmp_path / "trt.onnx"
    quantize_int8_trt(source, out, calibration)
    check_trt_form(out)
    model = read_model(out)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]
    assert "LayerNormalization" not in {node.op_type for node in model.graph.node}
    producer = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        sources = [producer.get(tensor) for tensor in node.input]
        if node.op_type == "Conv":
            assert sources[:2] == ["DequantizeLinear", "DequantizeLinear"]
            assert set(sources[2:]) <= {None}  # a bias in float
        elif node.op_type in ("Softmax", "Relu", "Clip"):  # TensorRT fuses an activation into the convolution before
            assert "DequantizeLinear" not in sources
        elif node.op_type == "MatMul":
            assert sources.count("DequantizeLinear") in (0, 2)
    assert sqnr_db(run(source, unseen), run(out, unseen)) > 8


@pytest.mark.parametrize("name", ["tokens", "tst-t", "mobilevit-xxs"])
@pytest.mark.parametrize("opset", [13, 17])
def test_fp16_is_close_with_float32_ends(
    name: str, opset: int, exported: Exported, unseen: Images, tmp_path: Path
) -> None:
    source, out = exported(name, opset), tmp_path / "fp16.onnx"
    to_fp16(source, out)
    graph = read_model(out).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    big = {tensor.data_type for tensor in graph.initializer if math.prod(tensor.dims) > 16}
    assert big == {TensorProto.FLOAT16}
    assert out.stat().st_size < 0.65 * source.stat().st_size
    np.testing.assert_allclose(run(out, unseen), run(source, unseen), atol=0.05)


@pytest.mark.parametrize("opset", [13, 17])
def test_fp16_survives_tokens_whose_squares_overflow(
    opset: int, build: Callable[[str], nn.Module], unseen: Images, tmp_path: Path
) -> None:
    network = build("tokens")
    with torch.no_grad():
        network.position.copy_(torch.linspace(-900, 900, 64).expand(1, 16, 64))  # type: ignore[union-attr,operator]
    source, out = export_onnx(network, tmp_path / "fp32.onnx", (64, 64), opset=opset), tmp_path / "fp16.onnx"
    to_fp16(source, out)
    np.testing.assert_allclose(run(out, unseen), run(source, unseen), atol=0.1)


def test_int8_keeps_the_output_and_the_tokens_in_float(exported: Exported, calibration: Images, tmp_path: Path) -> None:
    quantize_int8(exported("tokens", 17), tmp_path / "int8.onnx", calibration)
    graph = optimized(tmp_path / "int8.onnx", ALL).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["Softmax"] == 3
    assert not kinds["QLinearMatMul"] + kinds["QGemm"] + kinds["QLinearSoftmax"]
    producer = {output: node for node in graph.node for output in node.output}
    node, behind = producer[graph.output[0].name], []
    while node.op_type != "DequantizeLinear":
        behind.append(node.op_type)
        node = producer[node.input[0]]
    assert sorted(behind) == ["DepthToSpace", "Mul", "Resize", "Sigmoid", "Sub"]
    assert producer[node.input[0]].op_type in ("QLinearConv", "Transpose", "Reshape")


def test_upsampling_keeps_channels_before_pixels(exported: Exported, calibration: Images, tmp_path: Path) -> None:
    quantize_int8(exported("dense", 17), tmp_path / "int8.onnx", calibration)
    graph = optimized(tmp_path / "int8.onnx", ALL).graph
    values = initial_values(graph)
    scales = [values[node.input[2]].tolist() for node in graph.node if node.op_type == "Resize"]
    assert scales == [[1, 1, 2, 2]] * 4  # height and width last


def test_the_shield_changes_nothing(exported: Exported, unseen: Images, tmp_path: Path) -> None:
    model = prepared(exported("dense", 17))
    onnx.save(model, tmp_path / "bare.onnx")
    shield_upsampling(model)
    onnx.save(model, tmp_path / "shielded.onnx")
    assert node_histogram(tmp_path / "shielded.onnx")["Reshape"] == 6
    np.testing.assert_array_equal(run(tmp_path / "shielded.onnx", unseen), run(tmp_path / "bare.onnx", unseen))


@pytest.mark.parametrize(
    ("outputs", "stride", "size", "tiled"), [(1, 1, 64, 1), (2, 2, 64, 1), (4, 1, 64, 1), (5, 1, 64, 0), (2, 2, 63, 0)]
)
def test_tiles_of_few_outputs(outputs: int, stride: int, size: int, tiled: int, unseen: Images, tmp_path: Path) -> None:
    rng, source = np.random.default_rng(0), tmp_path / "plain.onnx"
    shapes = {"w": (outputs, 3, 3, 3), "b": (outputs,)}
    values = [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    conv = onnx.helper.make_node("Conv", ["rgb", "w", "b"], ["y"], strides=[stride] * 2, pads=[1] * 4)
    ends = [
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (
            ("rgb", [1, 3, size, size]),
            ("y", [1, outputs, *[(size + 1) // stride if stride > 1 else size] * 2]),
        )
    ]
    graph = onnx.helper.make_graph([conv], "one", ends[:1], ends[1:], values)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), source)
    model = prepared(source)
    tile_few_outputs(model)
    onnx.save(model, tmp_path / "tiled.onnx")
    assert node_histogram(tmp_path / "tiled.onnx").get("DepthToSpace", 0) == tiled
    images = [image[:, :, :size, :size] for image in unseen]
    np.testing.assert_allclose(run(tmp_path / "tiled.onnx", images), run(source, images), atol=1e-5)


@pytest.mark.parametrize(("name", "tiles"), [("tokens", 2), ("unfold", 1)])
def test_tiles_change_nothing(name: str, tiles: int, exported: Exported, unseen: Images, tmp_path: Path) -> None:
    model = prepared(exported(name, 17))
    onnx.save(model, tmp_path / "plain.onnx")
    tile_few_outputs(model)
    onnx.save(model, tmp_path / "tiled.onnx")
    assert node_histogram(tmp_path / "tiled.onnx")["DepthToSpace"] == tiles
    np.testing.assert_allclose(run(tmp_path / "tiled.onnx", unseen), run(tmp_path / "plain.onnx", unseen), atol=1e-4)


@pytest.mark.parametrize("ranges", list(RANGES))
def test_every_kind_of_range(
    ranges: str,
    exported: Exported,
    calibration: Images,
    unseen: Images,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = exported("dense", 17)
    report = quantize_int8(source, tmp_path / "a.onnx", calibration, ranges=ranges)
    assert report["ranges"] == ranges
    assert sqnr_db(run(source, unseen), run(tmp_path / "a.onnx", unseen)) > 8
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_int8_trt])
def test_quantization_is_reproducible(
    quantize: Quantize, exported: Exported, calibration: Images, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        quantize(exported("dense", 13), tmp_path / f"{name}.onnx", iter(calibration))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_int8_trt])
def test_calibration_that_cannot_be_used(quantize: Quantize, exported: Exported, tmp_path: Path) -> None:
    good, grey = np.zeros((1, 3, 64, 64), np.float32), np.full((1, 3, 64, 64), 0.5, np.float32)
    good[0, 0, 0, 0] = 1
    broken = good.copy()
    broken[0, 0, 0, 0] = np.nan
    for images, message in (
        ([], "calibration: no images, at least one is needed"),
        ([grey, grey * 0], "calibration: every image is constant (2 in all), ranges cannot be told from them"),
        (
            [good, good[:, :, :32]],
            "calibration: image 1 is float32 (1, 3, 32, 64), the network takes float32 (1, 3, 64, 64)",
        ),
        (
            [good.astype(np.float64)],
            "calibration: image 0 is float64 (1, 3, 64, 64), the network takes float32 (1, 3, 64, 64)",
        ),
        ([good, broken], "calibration: image 1 holds values that are not finite"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
            quantize(exported("dense", 17), tmp_path / "out.onnx", images)
        assert str(error.value) == message
    assert not (tmp_path / "out.onnx").exists()


def test_unknown_ranges_and_files(exported: Exported, calibration: Images, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"^ranges: unknown value 'mode'; did you mean mean\? \(choices: entropy, mean, minmax, percentile\)$",
    ):
        quantize_int8(exported("dense", 17), tmp_path / "out.onnx", calibration, ranges="mode")
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(exported("dense", 17).read_bytes()[:1000])
    for convert in (quantize_int8, quantize_int8_trt):
        with pytest.raises(ValueError, match=r"truncated\.onnx: not a whole ONNX model \("):
            convert(truncated, tmp_path / "out.onnx", calibration)
    with pytest.raises(ValueError, match=r"truncated\.onnx: not a whole ONNX model \("):
        to_fp16(truncated, tmp_path / "out.onnx")


def test_a_graph_without_anything_to_quantize(calibration: Images, tmp_path: Path) -> None:
    class Plain(nn.Module):
        def forward(self, rgb: Tensor) -> Tensor:
            return rgb.mean(1, keepdim=True).sigmoid()

    source = export_onnx(Plain(), tmp_path / "plain.onnx", (64, 64))
    with pytest.raises(
        ValueError, match=r"^nothing to quantize: no convolution and no product with weights in the graph$"
    ):
        quantize_int8(source, tmp_path / "out.onnx", calibration)
