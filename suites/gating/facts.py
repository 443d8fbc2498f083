"""The facts of a deployed ONNX file that a gate compares exactly, as JSON-ready values.

Keys: ``sha256``, ``size_bytes``, ``weight_bytes``, ``opset``, ``inputs`` and ``outputs`` (name, type, shape of each),
``params`` (stored weights, each once), ``macs``, ``peak_activation_bytes``, ``nodes`` (operator: count),
``quantized_nodes``, ``operators`` (sorted, with their domain unless it is the standard one), ``structure`` (a digest of
everything but the weights' values) and ``layers``: one entry per node in execution order, see :func:`_layer`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from depthbench.suites.export import read_onnx
from depthbench.suites.graphs.graph import Graph, Node, build_graph
from depthbench.suites.models import file_sha256

STANDARD_DOMAINS = ("", "ai.onnx")


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of one ONNX file; ``ValueError`` when it is not one or a shape in it is not fixed."""
    model = read_onnx(path)
    try:
        graph = build_graph(model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    operators = {
        node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"
        for node in model.graph.node
    }
    layers = _layers(graph, model)
    constants = {entry.name for entry in model.graph.initializer}
    facts: dict[str, Any] = {
        "sha256": file_sha256(path),
        "size_bytes": path.stat().st_size,
        "weight_bytes": sum(_bytes(entry) for entry in model.graph.initializer),
        "opset": graph.opset,
        "inputs": [_port(value) for value in model.graph.input if value.name not in constants],
        "outputs": [_port(value) for value in model.graph.output],
        "params": graph.parameters(),
        "macs": graph.macs,
        "peak_activation_bytes": graph.peak_activation_bytes(),
        "nodes": graph.histogram(),
        "quantized_nodes": graph.quantized_nodes,
        "operators": sorted(operators),
        "layers": layers,
    }
    shown = {key: facts[key] for key in ("opset", "inputs", "outputs", "params", "layers")}
    facts["structure"] = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:20]
    return facts


def _bytes(entry: onnx.TensorProto) -> int:
    count = 1
    for side in entry.dims:
        count *= side
    return int(count * helper.tensor_dtype_to_np_dtype(entry.data_type).itemsize)


def _port(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "type": helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        "shape": [dim.dim_value for dim in kind.shape.dim],
    }


def _layers(graph: Graph, model: onnx.ModelProto) -> list[dict[str, Any]]:
    """The nodes that run, in order; a weight that several nodes read belongs to the first of them."""
    source: dict[str, set[str]] = {name: {name} for name in graph.weights}
    maker = dict.fromkeys(graph.inputs, "input")
    domains = [node.domain for node in model.graph.node]
    owned: set[str] = set()
    layers = []
    for i, (node, domain) in enumerate(zip(graph.nodes, domains, strict=True)):
        weights = {weight for name in node.inputs for weight in source.get(name, ())}
        if node.kind == "constant":  # dequantized or reshaped weights: their reader owns them
            source.update(dict.fromkeys(node.outputs, weights))
            continue
        name = layer_name(node, i)
        fresh = weights - owned
        owned |= fresh
        layers.append(_layer(graph, node, name, domain, fresh, weights, maker))
        maker.update(dict.fromkeys(node.outputs, name))
    return layers


def _layer(
    graph: Graph, node: Node, name: str, domain: str, fresh: set[str], weights: set[str], maker: dict[str, str]
) -> dict[str, Any]:
    """``params`` are those stored here, ``shared`` those that an earlier layer stores; ``reads`` names the layers read."""
    result = graph.tensors.get(node.outputs[0]) if node.outputs else None
    return {
        "name": name,
        "op": node.op if domain in STANDARD_DOMAINS else f"{domain}::{node.op}",
        "kind": node.kind,
        "macs": node.macs,
        "params": sum(graph.tensors[weight].elements for weight in fresh),
        "shared": sum(graph.tensors[weight].elements for weight in weights - fresh),
        "quantized": node.quantized,
        "shape": list(result.shape) if result else [],
        "dtype": result.dtype.name if result else "",
        "reads": sorted({maker[read] for read in node.inputs if read in maker}),
    }


def layer_name(node: Node, index: int) -> str:
    """The node's name as a path of modules: ``/decoder/head/Conv`` is ``decoder.head.Conv``."""
    return node.name.strip("/").replace("/", ".") or f"{node.op}_{index}"
