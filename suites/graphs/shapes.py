"""Shapes of all tensors of an ONNX graph, also where the file computes them with operators.

ONNX's own inference stops at shapes that the file computes, as ``expand`` does when torch exports it; here whatever
follows from fixed shapes alone is computed and put in as a constant first. Weights need no values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

_LARGEST = 1024
"""Elements of the largest stored tensor whose values matter here; shapes and pad widths are far smaller."""


def infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and ONNX element type of every tensor whose shape follows from fixed input shapes."""
    model = _without_weights(model)
    while True:
        shapes = _inferred(model)
        folded = _fold(model, shapes)
        if not folded:
            return shapes
        kept = [node for node in model.graph.node if node.output[0] not in folded]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in folded.items())


def _inferred(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], int]]:
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {entry.name: (tuple(entry.dims), entry.data_type) for entry in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes.setdefault(value.name, (tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type))
    return shapes


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large stored tensors are external, which inference accepts, so that it is quick."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for entry in light.graph.initializer:
        if np.prod(entry.dims) > _LARGEST:
            bare = onnx.TensorProto(
                name=entry.name, dims=entry.dims, data_type=entry.data_type, data_location=onnx.TensorProto.EXTERNAL
            )
            bare.external_data.add(key="location", value="none")
            entry.CopyFrom(bare)
    return light


def _fold(model: onnx.ModelProto, shapes: dict[str, tuple[tuple[int, ...], int]]) -> dict[str, NDArray[Any]]:
    """Results of the nodes that compute small integer tensors from fixed shapes and stored integers."""
    values = {
        entry.name: numpy_helper.to_array(entry)
        for entry in model.graph.initializer
        if entry.data_location != onnx.TensorProto.EXTERNAL
    }
    folded: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        inputs = {name: values[name] for name in node.input if name in values and values[name].dtype.kind in "iub"}
        if node.op_type == "Constant":
            values[node.output[0]] = _run(model, node, {})
        elif node.op_type == "Shape" and node.input[0] in shapes:
            shape = shapes[node.input[0]][0]
            bounds = {entry.name: entry.i for entry in node.attribute}
            folded[node.output[0]] = np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)
        elif inputs and len(node.output) == 1 and all(name in inputs for name in node.input if name):
            result = _run(model, node, inputs)
            if result.dtype.kind in "iub" and result.size <= _LARGEST:
                folded[node.output[0]] = result
        values |= folded
    return folded


def _run(model: onnx.ModelProto, node: onnx.NodeProto, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The result of one node."""
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    result = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.UNDEFINED, None)
    single = helper.make_model(
        helper.make_graph([node], "one", declared, [result]),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    (value,) = ReferenceEvaluator(single).run(None, inputs)
    return np.asarray(value)
