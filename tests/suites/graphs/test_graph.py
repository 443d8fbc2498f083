"""Costs of ONNX graphs, against numbers worked out by hand, on graphs whose weights have no values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from depthbench.suites.graphs.graph import build_graph, load_graph


def bare(name: str, *dims: int, kind: int = TensorProto.FLOAT) -> TensorProto:
    """A stored tensor of which the file has the shape but not the values."""
    tensor = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights-not-included")
    return tensor


def model(
    nodes: Sequence[NodeProto], weights: Sequence[TensorProto], shape: Sequence[int], output: str = "y", opset: int = 17
) -> onnx.ModelProto:
    """A network from input ``x`` to ``output``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=f"{op}:{output}", **attributes)


@pytest.mark.parametrize(
    ("op", "weight", "attributes", "kind", "macs"),
    [
        ("Conv", (8, 6, 3, 3), {"pads": [1, 1, 1, 1]}, "dense", 8 * 6 * 9 * 10 * 12),
        ("Conv", (8, 6, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, "dense", 8 * 6 * 9 * 5 * 6),
        ("Conv", (8, 6, 3, 3), {"dilations": [2, 2]}, "dense", 8 * 6 * 9 * 6 * 8),
        ("Conv", (8, 6, 1, 1), {}, "pointwise", 8 * 6 * 10 * 12),
        ("Conv", (6, 1, 5, 5), {"group": 6, "pads": [2, 2, 2, 2]}, "depthwise", 6 * 25 * 10 * 12),
        ("Conv", (12, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}, "depthwise", 12 * 9 * 10 * 12),
        ("Conv", (8, 3, 1, 1), {"group": 2}, "grouped", 8 * 3 * 10 * 12),
        ("ConvTranspose", (6, 4, 2, 2), {"strides": [2, 2]}, "dense", 6 * 4 * 4 * 10 * 12),
        ("ConvTranspose", (6, 1, 2, 2), {"strides": [2, 2], "group": 6}, "depthwise", 6 * 4 * 10 * 12),
    ],
)
def test_convolutions(op: str, weight: tuple[int, ...], attributes: dict[str, Any], kind: str, macs: int) -> None:
    graph = build_graph(model([node(op, "x w", "y", **attributes)], [bare("w", *weight)], (1, 6, 10, 12)))
    assert (graph.nodes[0].kind, graph.nodes[0].macs, graph.macs) == (kind, macs, macs)
    assert graph.parameters() == np.prod(weight)


@pytest.mark.parametrize(
    ("nodes", "weights", "shape", "macs"),
    [
        ([node("Gemm", "x w b", "y", transB=1)], [bare("w", 7, 20), bare("b", 7)], (3, 20), 3 * 20 * 7),
        ([node("Gemm", "x w", "y", transA=1)], [bare("w", 3, 7)], (3, 20), 20 * 3 * 7),
        ([node("MatMul", "x w", "y")], [bare("w", 32, 48)], (1, 49, 32), 49 * 32 * 48),
        ([node("MatMul", "w x", "y")], [bare("w", 5, 49)], (2, 4, 49, 8), 2 * 4 * 5 * 49 * 8),
        (  # attention of 4 heads over 16 tokens: scores and their product with the values
            [
                node("Transpose", "x", "k", perm=[0, 1, 3, 2]),
                node("MatMul", "x k", "scores"),
                node("Softmax", "scores", "p", axis=-1),
                node("MatMul", "p x", "y"),
            ],
            [],
            (1, 4, 16, 8),
            2 * 4 * 16 * 16 * 8,
        ),
    ],
)
def test_matrix_products(nodes: list[NodeProto], weights: list[TensorProto], shape: tuple[int, ...], macs: int) -> None:
    graph = build_graph(model(nodes, weights, shape))
    assert graph.macs == macs
    assert {entry.kind for entry in graph.nodes if entry.macs} == {"matmul"}


def quantized_model() -> onnx.ModelProto:
    """Conv 3→8 in INT8 between quantize/dequantize pairs, stored INT8 weight, then ReLU and a float 1×1 convolution."""
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.int8(0), "z")
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w s z", "wd"),
        node("Conv", "xd wd b", "c", pads=[1, 1, 1, 1]),
        node("QuantizeLinear", "c s z", "cq"),
        node("DequantizeLinear", "cq s z", "cd"),
        node("Relu", "cd", "r"),
        node("Conv", "r v", "y"),
    ]
    weights = [scale, zero, bare("w", 8, 3, 3, 3, kind=TensorProto.INT8), bare("b", 8), bare("v", 1, 8, 1, 1)]
    return model(nodes, weights, (1, 3, 16, 16))


def test_quantized_nodes_parameters_and_memory() -> None:
    graph = build_graph(quantized_model())
    assert graph.macs == 8 * 27 * 256 + 8 * 256
    assert graph.quantized_nodes == 1
    assert graph.parameters() == 8 * 27 + 8 + 8, "scales and zero points are no parameters"
    assert graph.storage["cd"] == "c"
    assert graph.int8 == {"c"}, "x is the network's own input, r is read in float"
    # x 3·256·4 bytes with c 8·256; c with r 8·256·4; r with y 256·4
    assert graph.peak_activation_bytes() == 8 * 256 * 4 + 8 * 256
    assert graph.histogram() == {"Conv": 2, "DequantizeLinear": 3, "QuantizeLinear": 2, "Relu": 1}


def test_integer_operators() -> None:
    one = numpy_helper.from_array(np.float32(1), "s")
    zero = numpy_helper.from_array(np.uint8(0), "z")
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w s z s z", "c"),
        node("DequantizeLinear", "c s z", "y"),
    ]
    graph = build_graph(model(nodes, [one, zero, bare("w", 4, 3, 1, 1, kind=TensorProto.UINT8)], (1, 3, 8, 8)))
    assert (graph.macs, graph.quantized_nodes, graph.parameters()) == (4 * 3 * 64, 1, 12)

    nodes = [node("QuantizeLinear", "x s z", "q"), node("MatMulInteger", "q w", "m"), node("Cast", "m", "y", to=1)]
    graph = build_graph(model(nodes, [one, zero, bare("w", 6, 5, kind=TensorProto.UINT8)], (1, 4, 6)))
    assert (graph.macs, graph.quantized_nodes, graph.parameters()) == (4 * 6 * 5, 1, 30)


def test_operator_classes() -> None:
    half = numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float32), "half")
    nodes = [
        node("BatchNormalization", "x g b m v", "bn"),
        node("Relu", "bn", "relu"),
        node("MaxPool", "relu", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", "pool", "mean", axes=[2, 3]),
        helper.make_node("Resize", ["relu", "", "half"], ["small"], name="Resize:small"),
        node("Concat", "small pool", "both", axis=1),
        node("Reshape", "both shape", "tokens"),
        node("ReduceMean", "tokens", "center", axes=[-1]),
        node("Transpose", "tokens", "swapped", perm=[0, 2, 1]),
        node("Unsqueeze", "mean axis", "five"),
        node("Transpose", "mean", "same", perm=[0, 3, 1, 2]),
        node("Softmax", "swapped", "soft"),
        node("Mystery", "soft", "y"),
    ]
    weights = [
        half,
        *(bare(name, 4) for name in "gbmv"),
        numpy_helper.from_array(np.array([1, 8, 16]), "shape"),
        numpy_helper.from_array(np.array([0]), "axis"),
    ]
    made = model(nodes, weights, (1, 4, 8, 8))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 16, 8)))
    graph = build_graph(made)
    assert {entry.outputs[0]: entry.kind for entry in graph.nodes} == {
        "bn": "normalization",
        "relu": "elementwise",
        "pool": "pooling",
        "mean": "pooling",
        "small": "resize",
        "both": "layout",
        "tokens": "view",
        "center": "normalization",
        "swapped": "layout",
        "five": "view",
        "same": "view",
        "soft": "softmax",
        "y": "other",
    }
    assert graph.macs == 0


def test_shapes_that_the_file_computes() -> None:
    """What torch writes for ``token.expand(x.shape[0], -1, -1)``: inference alone stops at Where."""
    constants = {"three": [3], "minus": [-1], "want": [2, -1, -1], "one": 1}
    nodes = [
        *(node("Constant", "", name, value=numpy_helper.from_array(np.array(v))) for name, v in constants.items()),
        node("ConstantOfShape", "three", "ones", value=numpy_helper.from_array(np.array([1]))),
        node("Mul", "ones minus", "negative"),
        node("Equal", "want negative", "keep"),
        node("Where", "keep ones want", "sizes"),
        node("Expand", "token sizes", "tokens"),
        node("Shape", "x", "shape"),
        node("Gather", "shape one", "count", axis=0),
        node("Concat", "tokens x", "both", axis=1),
        node("MatMul", "both w", "y"),
    ]
    graph = build_graph(model(nodes, [bare("token", 1, 1, 8), bare("w", 8, 2)], (2, 4, 8)))
    assert graph.tensors["both"].shape == (2, 5, 8)
    assert graph.macs == 2 * 5 * 8 * 2
    assert [entry.kind for entry in graph.nodes[-2:]] == ["layout", "matmul"]
    assert {entry.kind for entry in graph.nodes[:-2]} == {"constant"}


def test_peak_follows_the_schedule() -> None:
    """A residual: x (4 KiB) stays alive over c1 (8 KiB); the ReLU works in place; the sum overwrites c2."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("Add", "c2 x", "sum"),
        node("Flatten", "sum", "y"),
    ]
    weights = [bare("w1", 8, 4, 3, 3), bare("w2", 4, 8, 3, 3)]
    graph = build_graph(model(nodes, weights, (1, 4, 16, 16)))
    assert graph.peak_activation_bytes() == (4 + 8 + 4) * 256 * 4


def test_an_unknown_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model([node("Mystery", "x", "m"), node("Relu", "m", "y")], [], (1, 4)), path)
    with pytest.raises(ValueError, match="has no fixed shape") as error:
        load_graph(path)
    assert str(error.value) == f"{path}: tensor m (of Mystery Mystery:m) has no fixed shape"


def test_uncounted_operators_are_named() -> None:
    made = model([node("Einsum", "x x", "y", equation="bij,bjk->bik")], [], (1, 4, 4))
    assert build_graph(made).uncounted() == {"Einsum": 1}
