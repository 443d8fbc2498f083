"""Kernels of small graphs: what joins, what vanishes, and what a kernel moves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from depthbench.suites.graphs.fusion import Kernel, fuse
from depthbench.suites.graphs.graph import build_graph


def bare(name: str, *dims: int, kind: int = TensorProto.FLOAT) -> TensorProto:
    """A stored tensor of which the file has the shape but not the values."""
    tensor = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights-not-included")
    return tensor


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


def kernels(nodes: Sequence[NodeProto], weights: Sequence[TensorProto], shape: Sequence[int]) -> list[Kernel]:
    """The kernels of a network from ``x`` to ``y``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(weights))
    return fuse(build_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])))


def operators(found: list[Kernel]) -> list[str]:
    return ["+".join(kernel.ops) for kernel in found]


def test_convolution_takes_normalization_residual_and_activation() -> None:
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c1 g b m v", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("Add", "c2 x", "sum"),
        node("Relu", "sum", "y"),
    ]
    weights = [bare("w1", 8, 8, 3, 3), bare("w2", 8, 8, 3, 3), bare("b1", 8), *(bare(name, 8) for name in "gbmv")]
    found = kernels(nodes, weights, (1, 8, 10, 10))
    assert operators(found) == ["Conv+BatchNormalization+Relu", "Conv+Add+Relu"]
    first, second = found
    assert (first.macs, first.channels, first.terms) == (8 * 8 * 9 * 100, 8, 72)
    assert first.elements == 800 + 800 + 576 + 8 + 4 * 8
    assert second.elements == 800 + 800 + 800 + 576, "reads r1 and x, writes y, reads its weight"


def test_an_activation_that_needs_its_input_twice_is_a_kernel_of_its_own() -> None:
    nodes = [node("Conv", "x w", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]
    found = kernels(nodes, [bare("w", 4, 4, 1, 1)], (1, 4, 8, 8))
    assert operators(found) == ["Conv", "Sigmoid+Mul"]
    assert found[1].elements == 2 * 4 * 64, "the sigmoid never reaches memory"


def test_a_second_residual_does_not_join() -> None:
    nodes = [node("Conv", "x w", "c"), node("Add", "c x", "a"), node("Add", "a x", "y")]
    assert operators(kernels(nodes, [bare("w", 4, 4, 1, 1)], (1, 4, 8, 8))) == ["Conv+Add", "Add"]


def test_a_result_that_others_read_is_not_swallowed() -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("MaxPool", "c", "p", kernel_shape=[1, 1])]
    nodes.append(node("Add", "r p", "y"))
    assert operators(kernels(nodes, [bare("w", 4, 4, 1, 1)], (1, 4, 8, 8))) == ["Conv", "MaxPool", "Relu+Add"]


def test_views_vanish_and_partial_reads_are_partial() -> None:
    bounds = {
        name: numpy_helper.from_array(np.array([value]), name) for name, value in {"a": 0, "b": 2, "axis": 1}.items()
    }
    shape = numpy_helper.from_array(np.array([1, 4, 64]), "shape")
    nodes = [node("Reshape", "x shape", "t"), node("Slice", "t a b axis", "half"), node("Relu", "half", "y")]
    found = kernels(nodes, [*bounds.values(), shape], (1, 4, 8, 8))
    assert operators(found) == ["Slice", "Relu"]
    assert found[0].elements == 128 + 128 + 3


def test_concatenated_channels_are_written_in_place() -> None:
    nodes = [
        node("Conv", "x w1", "c1"),
        node("Conv", "x w2", "c2"),
        node("Concat", "c1 c2", "both", axis=1),
        node("Conv", "both w3", "y"),
    ]
    weights = [bare("w1", 2, 4, 1, 1), bare("w2", 6, 4, 1, 1), bare("w3", 4, 8, 1, 1)]
    found = kernels(nodes, weights, (1, 4, 8, 8))
    assert operators(found) == ["Conv", "Conv", "Conv"]
    assert found[2].elements == 8 * 64 + 4 * 64 + 32
    nodes[2] = node("Concat", "c1 x", "both", axis=1)  # x is not computed here: it has to be copied
    nodes[1] = node("Relu", "x", "unused")
    weights[2] = bare("w3", 4, 6, 1, 1)
    assert "Concat" in operators(kernels(nodes, weights, (1, 4, 8, 8)))


def test_quantize_dequantize_pairs_vanish() -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.int8(0), "z")
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w1 s z", "wd1"),
        node("Conv", "xd wd1", "c1"),
        node("Relu", "c1", "r1"),
        node("QuantizeLinear", "r1 s z", "rq"),
        node("DequantizeLinear", "rq s z", "rd"),
        node("DequantizeLinear", "w2 s z", "wd2"),
        node("Conv", "rd wd2", "c2"),
        node("QuantizeLinear", "c2 s z", "cq"),
        node("DequantizeLinear", "cq s z", "cd"),
        node("Add", "cd rd", "y"),
    ]
    weights = [scale, zero, *(bare(name, 4, 4, 1, 1, kind=TensorProto.INT8) for name in ("w1", "w2"))]
    found = kernels(nodes, weights, (1, 4, 8, 8))
    assert operators(found) == ["Conv+Relu", "Conv+Add"]
    assert all(kernel.quantized for kernel in found)
    assert (found[0].elements, found[0].int8_elements) == (256, 256 + 16), "reads float x, writes INT8"
    assert (found[1].elements, found[1].int8_elements) == (256, 256 + 16), "reads INT8, writes float y"
