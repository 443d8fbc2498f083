"""Facts read from ONNX files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from depthbench.compression.executed import executed
from depthbench.compression.graph import check_trt_form, file_digest, node_histogram, read_model, take_as_written
from depthbench.suites.graphs.graph import load_graph

Exported = Callable[[str, int], Path]


def write(path: Path, nodes: list[onnx.NodeProto], **initializers: object) -> Path:
    """A small graph x → y with the given nodes and initializers."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def pair(zero: str | None) -> list[onnx.NodeProto]:
    inputs = ["s"] if zero is None else ["s", zero]
    return [
        helper.make_node("QuantizeLinear", ["x", *inputs], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", *inputs], ["y"], "dequantize"),
    ]


def test_digest_and_histogram(exported: Exported) -> None:
    path = exported("dense", 17)
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    histogram = node_histogram(path)
    assert histogram["Conv"] == 15
    assert list(histogram.values()) == sorted(histogram.values(), reverse=True)


def test_a_float_file_has_no_int8_convolution(exported: Exported) -> None:
    found = executed(exported("dense", 17))
    assert (found.int8_convolutions, found.convolutions, found.int8_share) == (0, 15, 0)
    assert sum(found.macs.values()) == load_graph(exported("dense", 17)).macs


def test_trt_form_accepts_symmetric_int8(tmp_path: Path) -> None:
    check_trt_form(write(tmp_path / "a.onnx", pair("z"), s=np.float32(0.1), z=np.int8(0)))


@pytest.mark.parametrize(
    ("nodes", "initializers", "fault"),
    [
        (pair("z"), {"z": np.int8(3)}, "zero point is not 0 in quantize, dequantize"),
        (pair("z"), {"z": np.uint8(0)}, "quantized type is not int8 in quantize, dequantize"),
        (pair(None), {}, "quantized type is not int8 in quantize, dequantize"),
        (
            [
                helper.make_node("DequantizeLinear", ["b", "s"], ["bias"], "dequantize_bias"),
                helper.make_node("Add", ["x", "bias"], ["y"], "add"),
            ],
            {"b": np.array([1, 2, 3, 4], np.int32)},
            "bias is dequantized from int32 in dequantize_bias",
        ),
    ],
)
def test_trt_form_names_the_fault(
    nodes: list[onnx.NodeProto], initializers: dict[str, object], fault: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.onnx", nodes, s=np.float32(0.1), **initializers)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        check_trt_form(path)
    assert str(error.value) == f"{path}: not for TensorRT: {fault}"


def test_trt_form_counts_what_it_does_not_name(tmp_path: Path) -> None:
    nodes = []
    for i in range(3):
        source, target = "x" if i == 0 else f"d{i}", "y" if i == 2 else f"d{i + 1}"
        nodes.append(helper.make_node("QuantizeLinear", [source, "s", "z"], [f"q{i}"], f"quantize{i}"))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", "s", "z"], [target], f"dequantize{i}"))
    path = write(tmp_path / "a.onnx", nodes, s=np.float32(0.1), z=np.int8(1))
    with pytest.raises(ValueError, match=r"zero point is not 0 in quantize0, dequantize0, quantize1 and 3 more$"):
        check_trt_form(path)


@pytest.mark.parametrize("fault", ["a zero point", "no pair", "not an ONNX file", "no file"])
def test_any_other_file_is_left_to_the_runtime(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    if fault == "a zero point":
        write(path, pair("z"), s=np.float32(0.1), z=np.int8(3))
    elif fault == "no pair":
        write(path, [helper.make_node("Relu", ["x"], ["y"])])
    elif fault == "not an ONNX file":
        path.write_bytes(b"onnx")
    options = ort.SessionOptions()
    take_as_written(options, path)
    with pytest.raises(RuntimeError, match=r"session\.disable_quant_qdq"):
        options.get_session_config_entry("session.disable_quant_qdq")


def test_files_that_cannot_be_read_are_named(tmp_path: Path, exported: Exported) -> None:
    missing = tmp_path / "missing.onnx"
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        read_model(missing)
    assert str(error.value) == f"{missing}: no such file"
    whole = exported("dense", 17).read_bytes()
    for name, data in (("truncated", whole[: len(whole) // 2]), ("text", b"not a model at all"), ("empty", b"")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the start of the text is compared below)
            read_model(path)
        assert str(error.value).startswith(f"{path}: not a whole ONNX model (")
        assert "\n" not in str(error.value)


def test_a_file_that_onnxruntime_refuses_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [helper.make_node("Celu", ["x"], ["y"], "celu", domain="nowhere")])
    with pytest.raises(ValueError, match=r"a\.onnx: ONNX Runtime refuses it \(.*nowhere.*\)$"):
        executed(path)
