"""The kernels that an inference engine runs for an ONNX graph, by the fusions TensorRT documents.

A convolution or matrix product takes up the bias, normalization, activation and residual addition that follow it;
chains of elementwise operators become one kernel; quantize/dequantize pairs, casts and reshapes vanish; tensors
concatenated along the outermost axis are written into place by their producers.
(TensorRT Developer Guide, "Types of Fusions"; its layer names show the same groups.)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod

from depthbench.suites.graphs.graph import Graph, Node

CONVOLUTIONS = ("dense", "pointwise", "depthwise", "grouped")
_ANCHORS = (*CONVOLUTIONS, "matmul")
_PARTIAL_READS = ("Gather", "GatherElements", "GatherND", "Slice", "Split")


@dataclass(frozen=True)
class Kernel:
    """One launch: its operators, class (that of its first operator), MACs and traffic.

    A product of two activations is of class ``attention``, one with weights of class ``matmul``.

    ``elements`` counts the numbers read and written in floating point, weights included, ``int8_elements`` those in
    INT8. A convolution or matrix product has ``channels`` outputs at each of ``positions``, each a sum of ``terms`` products
    (0 for others); ``quantized`` says that they are multiplied in INT8.
    """

    name: str
    kind: str
    ops: tuple[str, ...]
    macs: int
    elements: int
    int8_elements: int
    channels: int
    terms: int
    positions: int
    quantized: bool


@dataclass
class _Group:
    nodes: list[Node]
    added: bool = field(default=False)

    @property
    def kind(self) -> str:
        return self.nodes[0].kind


def fuse(graph: Graph) -> list[Kernel]:
    """The kernels of a graph, in the order in which they finish."""
    work = [node for node in graph.nodes if node.kind not in ("constant", "view")]
    readers = Counter(name for node in work for name in graph.reads(node))
    readers.update(graph.storage[name] for name in graph.outputs if name in graph.storage)
    in_place = _in_place(graph, work)
    group_of: dict[str, _Group] = {}
    groups: list[_Group] = []
    for node in work:
        if node.outputs[0] in in_place:
            continue
        makers = [group_of[name] for name in graph.reads(node) if name in group_of and readers[name] == 1]
        group = next(
            (maker for maker in sorted(makers, key=groups.index, reverse=True) if _takes(maker, node, graph)), None
        )
        if group is None:
            group = _Group([])
        else:
            groups.remove(group)
            group.added |= len(graph.reads(node)) > 1
        group.nodes.append(node)
        groups.append(group)
        group_of.update(dict.fromkeys(node.outputs, group))
    return [_kernel(group, graph, readers) for group in groups]


def _takes(group: _Group, node: Node, graph: Graph) -> bool:
    """Whether ``node``, the only reader of the group's result, becomes part of its kernel."""
    if node.kind != "elementwise" and node.op != "BatchNormalization":
        return False
    result = graph.tensors[node.outputs[0]].shape
    if graph.tensors[group.nodes[-1].outputs[0]].shape != result:
        return False
    if group.kind == "elementwise" or group.nodes[0].op == "BatchNormalization":
        return True
    same_size = all(graph.tensors[name].shape == result for name in node.inputs if name in graph.storage)
    residual = node.op in ("Add", "Sum") and len(graph.reads(node)) == 2 and not group.added
    return group.kind in _ANCHORS and same_size and (len(graph.reads(node)) == 1 or residual)


def _in_place(graph: Graph, work: list[Node]) -> set[str]:
    """Results of concatenations along the outermost axis whose every part is computed, and read by no other one."""
    made = {name for node in work for name in node.outputs}
    concatenations = [node for node in work if node.op == "Concat"]
    parts = Counter(name for node in concatenations for name in graph.reads(node))
    found = set()
    for node in concatenations:
        shape, first = graph.tensors[node.outputs[0]].shape, graph.tensors[node.inputs[0]].shape
        axis = next((i for i, (whole, part) in enumerate(zip(shape, first, strict=True)) if whole != part), 0)
        if prod(shape[:axis]) == 1 and all(name in made and parts[name] == 1 for name in graph.reads(node)):
            found.add(node.outputs[0])
    return found


def _kernel(group: _Group, graph: Graph, readers: Counter[str]) -> Kernel:
    inside = {name for node in group.nodes for name in graph.writes(node)}
    read_inside = Counter(name for node in group.nodes for name in graph.reads(node))
    written = [name for name in inside if readers[name] > read_inside[name] or name not in readers]
    moved = list(written)
    partial = group.nodes[0].op in _PARTIAL_READS  # reads only what it writes
    moved += written if partial else [name for name in read_inside if name not in inside]
    int8 = sum(graph.tensors[name].elements for name in moved if name in graph.int8)
    total = sum(graph.tensors[name].elements for name in moved)
    quantized = any(node.quantized for node in group.nodes)
    names = {name for node in group.nodes for name in node.inputs if name and name not in graph.storage}
    weights = sum(graph.tensors[name].elements for name in names if name in graph.tensors)
    anchor = group.nodes[0]
    result = graph.tensors[anchor.outputs[0]]
    width = result.shape[1] if group.kind in CONVOLUTIONS else result.shape[-1] if group.kind == "matmul" else 0
    attention = group.kind == "matmul" and sum(name in graph.storage for name in anchor.inputs[:2]) == 2
    return Kernel(
        name=anchor.name,
        kind="attention" if attention else group.kind,
        ops=tuple(node.op for node in group.nodes),
        macs=anchor.macs,
        elements=total - int8 + (0 if quantized else weights),
        int8_elements=int8 + (weights if quantized else 0),
        channels=width,
        terms=anchor.macs // result.elements,
        positions=result.elements // width if width else 0,
        quantized=quantized,
    )
