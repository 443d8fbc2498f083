"""Few channels at a high resolution, kept as four times the channels at a quarter of the positions: the same sums, faster.

Kernels for AVX512 work on 16 channels at a time and pay for every position, so a refinement of two to eight channels at half of
the input's resolution leaves most of them idle, and a quantized depth-to-space costs more than the convolution before it.
``keep_in_tiles`` holds such tensors in tiles of 2×2 pixels, channels in the order (row, column, channel), from the convolution
that makes them up to the one that makes a single channel of them. Needs numpy and onnx.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from depthbench.compression.graph import attribute, initial_values, static_shapes

Array = NDArray[Any]

TILE = 2
MOST_CHANNELS = 8
"""Of a tensor that is kept in tiles; there it has four times as many."""

UNARY = ("Abs", "Clip", "Relu")


def keep_in_tiles(model: onnx.ModelProto) -> None:
    """Rewrite what lies between convolutions that make few channels and the ones that make one of them, in place."""
    graph, shapes, values = model.graph, static_shapes(model), initial_values(model.graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producer = {name: node for node in graph.node for name in node.output}
    ends = {value.name for value in graph.output}
    region: set[str] = set()
    for node in graph.node:
        if _can_be_made(node, region, shapes, values, producer, readers):
            region.add(node.output[0])
    while wrong := [
        name
        for name in region
        if name in ends
        or not all(node.output[0] in region or _is_reader(node, shapes, values) for node in readers.get(name, []))
        or not _can_be_made(producer[name], region, shapes, values, producer, readers)
    ]:
        region -= set(wrong)
    if not region:
        return
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        made = _in_tiles(node, region, values, producer)
        if made is None:
            nodes.append(node)
        else:
            nodes += made[0]
            graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in made[1].items())
    replace_nodes(model, nodes)


def weigh_colours_first(model: onnx.ModelProto) -> None:
    """Let a convolution whose kernels are one for all channels but for a factor (an edge filter of the luminance) read one
    channel, the weighted sum of its channels, in place: the same up to rounding.
    """
    graph, shapes, values = model.graph, static_shapes(model), initial_values(model.graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = values.get(node.input[1]) if node.op_type == "Conv" else None
        shape = shapes.get(node.input[0], [])
        found = (
            None
            if weight is None or min(shape, default=0) < 1 or attribute(node, "group", 1) != 1
            else _factors(weight)
        )
        if found is not None:
            name, pixels = f"{node.name}_weighed", int(np.prod(shape[2:]))
            constants = {
                f"{name}_flat": np.array([shape[0], shape[1], pixels], np.int64),
                f"{name}_factors": found[0][None],  # (1, C)
                f"{name}_shape": np.array([shape[0], 1, *shape[2:]], np.int64),
                f"{name}_weight": found[1],
            }
            graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
            nodes += [
                helper.make_node("Reshape", [node.input[0], f"{name}_flat"], [f"{name}_rows"], f"{name}_flatten"),
                helper.make_node("MatMul", [f"{name}_factors", f"{name}_rows"], [f"{name}_sum"], name),
                helper.make_node("Reshape", [f"{name}_sum", f"{name}_shape"], [f"{name}_map"], f"{name}_unflatten"),
            ]
            node.input[0], node.input[1] = f"{name}_map", f"{name}_weight"
        nodes.append(node)
    replace_nodes(model, nodes)


def _factors(weight: Array) -> tuple[Array, Array] | None:
    """A factor a channel (C,) and the kernels (O, 1, h, w) whose products are ``weight`` (O, C, h, w), if there are such."""
    outputs, channels, *window = weight.shape
    if channels == 1 or min(window) == 1:
        return None
    flat = weight.transpose(1, 0, 2, 3).reshape(channels, -1)  # (C, O·h·w)
    left, sizes, right = np.linalg.svd(flat.astype(np.float64), full_matrices=False)
    if sizes[1] > 1e-6 * sizes[0]:
        return None
    kernels = (sizes[0] * right[0]).reshape(outputs, 1, *window)
    return left[:, 0].astype(weight.dtype), kernels.astype(weight.dtype)


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a model other nodes; what nobody reads of them and of the constants goes, and shapes are inferred anew."""
    kept = list(nodes)
    read = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    kept = [node for node in kept if any(name in read for name in node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    made = {name for node in kept for name in node.output}
    for value in [value for value in model.graph.value_info if value.name not in made]:
        model.graph.value_info.remove(value)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


def _can_be_made(
    node: onnx.NodeProto,
    region: set[str],
    shapes: Mapping[str, list[int]],
    values: Mapping[str, Array],
    producer: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, list[onnx.NodeProto]],
) -> bool:
    """Whether the output of a node can be made in tiles, out of inputs in tiles where they are in ``region``."""
    shape = shapes.get(node.output[0], [])
    if len(shape) != 4 or shape[0] != 1 or not 2 <= shape[1] <= MOST_CHANNELS or shape[2] % TILE or shape[3] % TILE:
        return False
    if node.op_type in UNARY:
        return node.input[0] in region
    if node.op_type == "Add":
        return all(name in region and shapes[name] == shape for name in node.input)
    if node.op_type == "Conv":
        return _plain_3x3(node, shapes, values) and (node.input[0] not in region or _stride(node) == 1)
    return _doubles(node, shapes) and _can_repeat(producer.get(node.input[0]), values, readers)


def _is_reader(node: onnx.NodeProto, shapes: Mapping[str, list[int]], values: Mapping[str, Array]) -> bool:
    """Whether a node is a convolution that makes a single channel."""
    if node.op_type != "Conv" or not _plain_3x3(node, shapes, values) or _stride(node) != 1:
        return False
    shape = shapes[node.output[0]]
    return shape[1] == 1 and not any(side % (2 * TILE) for side in shape[2:])


def _stride(node: onnx.NodeProto) -> int:
    return int(attribute(node, "strides", [1, 1])[0])


def _plain_3x3(node: onnx.NodeProto, shapes: Mapping[str, list[int]], values: Mapping[str, Array]) -> bool:
    """Whether a convolution is 3×3 of one group at stride 1 or 2 and makes an exact part of its input's size."""
    weight, stride = values.get(node.input[1]), attribute(node, "strides", [1, 1])
    if (
        weight is None
        or weight.shape[2:] != (3, 3)
        or attribute(node, "group", 1) != 1
        or stride not in ([1, 1], [2, 2])
    ):
        return False
    if attribute(node, "pads", [0] * 4) != [1] * 4 or attribute(node, "dilations", [1, 1]) != [1, 1]:
        return False
    return shapes.get(node.input[0], [])[2:] == [stride[0] * side for side in shapes[node.output[0]][2:]]


def _doubles(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> bool:
    """Whether a node repeats every pixel twice along both sides."""
    if node.op_type != "Resize" or attribute(node, "mode", b"nearest") != b"nearest" or len(node.input) != 3:
        return False
    how = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    rounding = attribute(node, "nearest_mode", b"round_prefer_floor")
    small, large = shapes.get(node.input[0], []), shapes[node.output[0]]
    exact = (how, rounding) in (
        (b"asymmetric", b"floor"),
        (b"asymmetric", b"round_prefer_floor"),
        (b"half_pixel", b"round_prefer_floor"),
        (b"half_pixel", b"round_prefer_ceil"),
    )
    return exact and large == [*small[:2], *(TILE * side for side in small[2:])]


def _can_repeat(
    node: onnx.NodeProto | None, values: Mapping[str, Array], readers: Mapping[str, list[onnx.NodeProto]]
) -> bool:
    """Whether a node is a convolution of one group that is read by one node alone, so that its channels can be repeated."""
    return (
        node is not None
        and node.op_type == "Conv"
        and node.input[1] in values
        and attribute(node, "group", 1) == 1
        and len(readers[node.output[0]]) == 1
    )


def _in_tiles(
    node: onnx.NodeProto,
    region: set[str],
    values: Mapping[str, Array],
    producer: Mapping[str, onnx.NodeProto],
) -> tuple[list[onnx.NodeProto], dict[str, Array]] | None:
    """What stands for a node, and its constants; None for a node that stays."""
    inside, outside = node.output[0] in region, node.input[0] not in region if node.input else True
    if not inside and outside:
        return None
    read, made = [_name(name) if name in region else name for name in node.input], _name(node.output[0])
    if node.op_type in (*UNARY, "Add"):
        again = helper.make_node(node.op_type, read, [made], node.name)
        again.attribute.extend(node.attribute)
        return [again], {}
    if node.op_type == "Resize":
        before = producer[node.input[0]]
        weight = np.tile(values[before.input[1]], (TILE**2, 1, 1, 1))
        kept = {a.name: helper.get_attribute_value(a) for a in before.attribute}
        return _conv(node.name, before, before.input[0], made, weight, values, TILE**2, kept)
    weight, step = values[node.input[1]], _stride(node)
    if outside:
        side = 3 + step * (TILE - 1)
        large = np.zeros((TILE, TILE, *weight.shape[:2], side, side), weight.dtype)
        for y in range(TILE):
            for x in range(TILE):
                large[y, x, :, :, y * step : y * step + 3, x * step : x * step + 3] = weight
        # at stride 2 the windows of an even number of rows end before the last padding
        kept = {"kernel_shape": [side] * 2, "strides": [step * TILE] * 2, "pads": [1, 1, *[1 if step == 1 else 0] * 2]}
        large = large.reshape(-1, *large.shape[3:])  # (4·O, C, side, side)
        return _conv(node.name, node, node.input[0], made, large, values, TILE**2, kept)
    tiles = TILE if inside else 2 * TILE
    large = _between_tiles(weight, tiles)
    kept = {"kernel_shape": list(large.shape[2:]), "strides": [tiles // TILE] * 2, "pads": [1] * 4}
    if inside:
        return _conv(node.name, node, read[0], made, large, values, tiles**2, kept)
    nodes, constants = _conv(node.name, node, read[0], made, large, values, tiles**2, kept)
    nodes.append(helper.make_node("DepthToSpace", [made], [node.output[0]], f"{node.name}_join", blocksize=tiles))
    return nodes, constants


def _name(tensor: str) -> str:
    return f"{tensor}_in_tiles"


def _conv(
    name: str,
    original: onnx.NodeProto,
    read: str,
    made: str,
    weight: Array,
    values: Mapping[str, Array],
    times: int,
    attributes: Mapping[str, Any],
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """A convolution with other weights and the bias of the original, repeated so many times."""
    constants = {f"{made}_weight": weight}
    if len(original.input) == 3:
        constants[f"{made}_bias"] = np.tile(values[original.input[2]], times)
    return [helper.make_node("Conv", [read, *constants], [made], name, **attributes)], constants


def _between_tiles(weight: Array, tiles: int) -> Array:
    """The weight (O, C, 3, 3) of a convolution at stride 1 as (tiles²·O, 4·C, k, k) from 2×2 tiles to ``tiles``² ones.

    k: 3 for tiles of 2, at stride 1; 4 for tiles of 4, at stride 2.
    """
    outputs, inputs = weight.shape[:2]
    side = 2 + tiles // TILE
    large = np.zeros((tiles, tiles, outputs, TILE, TILE, inputs, side, side), weight.dtype)
    for y in range(tiles):
        for x in range(tiles):
            for i in range(3):
                for j in range(3):
                    (row, down), (column, right) = divmod(y + i - 1, TILE), divmod(x + j - 1, TILE)
                    large[y, x, :, down, right, :, row + 1, column + 1] = weight[:, :, i, j]
    return large.reshape(tiles**2 * outputs, TILE**2 * inputs, side, side)
