"""FP16 files from a float32 ONNX file. Needs onnx and onnxruntime, never torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from depthbench.compression.prepared import prepared, save


def to_fp16(source: Path, out: Path) -> dict[str, Any]:
    """Float16 weights and activations, float32 input and output; returns a report.

    The statistics of a layer normalisation that is written out (opset below 17) stay in float32, and so does what they hand
    to each other: a square overflows float16 from 256 on. ``ValueError`` when the source is no whole ONNX model.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = prepared(source)
    kept = ["Pow", "ReduceMean", "Sqrt"]
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *kept])
    _join_float32(model.graph)
    ONNXModel(model).topological_sort()
    save(model, out)
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
