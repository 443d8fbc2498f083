"""The fused kernels of every catalogue model against the graph that ONNX Runtime itself optimizes to."""

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from depthbench.suites.export import export_onnx
from depthbench.suites.graphs.fusion import CONVOLUTIONS, fuse
from depthbench.suites.graphs.graph import load_graph
from depthbench.suites.models import MODELS

CONVOLVES = {"Conv", "FusedConv"}
MULTIPLIES = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"}


def optimized(path: Path, folder: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime executes, before layouts of one processor."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def macs(model: onnx.ModelProto) -> int:
    """MACs of an optimized graph, from the shapes that its products have when ONNX Runtime runs it."""
    products = [node for node in model.graph.node if node.op_type in CONVOLVES | MULTIPLIES]
    stored = {entry.name: tuple(entry.dims) for entry in model.graph.initializer}
    x = model.graph.input[0]
    known = {*stored, x.name, *(value.name for value in model.graph.output)}
    for name in dict.fromkeys(name for node in products for name in (node.input[0], node.output[0])):
        if name not in known:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    size = tuple(dim.dim_value for dim in x.type.tensor_type.shape.dim)
    values = session.run(names, {x.name: np.zeros(size, np.float32)})
    shapes = {**stored, x.name: size, **{name: value.shape for name, value in zip(names, values, strict=True)}}
    total = 0
    for node in products:
        flags = {entry.name: entry.i for entry in node.attribute}
        if node.op_type in CONVOLVES:
            terms = prod(stored[node.input[1]][1:])
        else:
            terms = shapes[node.input[0]][-2 if flags.get("transA") else -1]
        total += prod(shapes[node.output[0]]) * terms
    return total


@pytest.mark.parametrize("name", sorted(MODELS))
def test_products_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    module = MODELS[name].build()
    path = export_onnx(module, tmp_path / "m.onnx", (96, 128))
    kernels = fuse(load_graph(path))
    model = optimized(path, tmp_path)
    nodes = Counter(node.op_type for node in model.graph.node)
    assert sum(k.kind in CONVOLUTIONS for k in kernels) == sum(nodes[op] for op in CONVOLVES)
    assert sum(k.kind in ("matmul", "attention") for k in kernels) == sum(nodes[op] for op in MULTIPLIES)
    assert sum(k.macs for k in kernels) == pytest.approx(macs(model), rel=0.01)
