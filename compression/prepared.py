"""A float32 ONNX file made ready for quantization: folded, fused, with shapes, and as its kernels like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, version_converter
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from depthbench.compression.graph import attribute, optimized, static_shapes
from depthbench.compression.tiles import keep_in_tiles, replace_nodes, weigh_colours_first

OPSET = 13
"""The first that quantizes a weight per channel, and the last that the oldest boards read."""


def prepared(source: Path) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimizations (constants folded, batch norm in the convolutions), with shapes.

    An open batch axis becomes 1, and an opset below 13, which has no scale per channel, 13. ``ValueError`` for a file that
    is no whole ONNX model or that ONNX Runtime refuses, for one with more than one input, and for one that is quantized
    already.
    """
    model = optimized(source, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    used = {node.domain for node in model.graph.node}
    for opset in [o for o in model.opset_import if o.domain not in used]:
        model.opset_import.remove(opset)
    version = next(opset.version for opset in model.opset_import if opset.domain == "")
    if version < OPSET:
        model = version_converter.convert_version(model, OPSET)
    if len(model.graph.input) != 1:
        raise ValueError(f"{source}: it has {len(model.graph.input)} inputs, a network of one image has one")
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ValueError(f"{source}: it is quantized already, a float32 file is needed")
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_value = 1
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    model = onnx.shape_inference.infer_shapes(model)
    add_pre_process_metadata(model)
    return model


def save(model: onnx.ModelProto, out: Path) -> None:
    """Check a model and write it."""
    onnx.checker.check_model(model, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, out)


def fit_kernels(model: onnx.ModelProto) -> None:
    """Rewrite what ONNX Runtime's INT8 kernels are slow at; the network computes what it did."""
    weigh_colours_first(model)
    keep_in_tiles(model)
    tile_few_outputs(model)
    shield_upsampling(model)


def shield_upsampling(model: onnx.ModelProto) -> None:
    """Put every nearest-neighbour Resize between two reshapes, (1, C, H, W) to (C, 1, H, W) and back: nothing changes.

    ONNX Runtime moves the convolutions to channels-last order and would carry a Resize along, where its uint8 kernel is
    far slower. Its optimizer does not move a layout through a reshape.
    """
    shapes = static_shapes(model)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "Resize" or attribute(node, "mode", b"nearest") != b"nearest" or len(node.input) != 3:
            continue  # a fourth input is a size of all axes, which names the channels
        shape = shapes.get(node.input[0], [])
        if len(shape) != 4 or min(shape) < 1 or shape[1] == 1:  # one channel: already the fast case
            continue
        _, channels, *small = shape
        inner, outer = f"{node.name}_in", f"{node.name}_out"
        for name, shape in ((f"{inner}_shape", [channels, 1, *small]), (f"{outer}_shape", shapes[node.output[0]])):
            model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
        before = helper.make_node("Reshape", [node.input[0], f"{inner}_shape"], [inner], f"{node.name}_before")
        after = helper.make_node("Reshape", [outer, f"{outer}_shape"], [node.output[0]], f"{node.name}_after")
        node.input[0], node.output[0] = inner, outer
        nodes[-1:] = [before, node, after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


LANES = 16
"""Output channels that the kernels for AVX512 work on at a time."""


def tile_few_outputs(model: onnx.ModelProto) -> None:
    """Let every 3×3 convolution with one to four output channels make a tile of pixels at once: nothing changes.

    The kernels work on 16 output channels at a time, so one channel costs what 16 do. The same sums are one convolution with a
    larger kernel and stride and an output channel for every pixel of the tile, and a DepthToSpace. A single channel at
    stride 1 (6×6 with stride 4) takes a quarter of the time.
    """
    shapes, values = static_shapes(model), {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "Conv" or node.input[1] not in values or attribute(node, "group", 1) != 1:
            continue
        weight = numpy_helper.to_array(values[node.input[1]])  # (O, C, 3, 3)
        shape, stride = shapes.get(node.output[0], []), attribute(node, "strides", [1, 1])
        tile = 4 if len(weight) == 1 else 2
        if weight.shape[2:] != (3, 3) or len(weight) * tile**2 > LANES or stride not in ([1, 1], [2, 2]):
            continue
        if attribute(node, "pads", [0] * 4) != [1] * 4 or attribute(node, "dilations", [1, 1]) != [1, 1]:
            continue
        step = stride[0]
        whole = [1, weight.shape[1], *(step * length for length in shape[2:])] == shapes.get(node.input[0])
        if not whole or any(length < 1 or length % tile for length in shape[2:]):
            continue
        side = 3 + step * (tile - 1)
        large = np.zeros((tile, tile, *weight.shape[:2], side, side), weight.dtype)
        for y in range(tile):
            for x in range(tile):
                large[y, x, :, :, y * step : y * step + 3, x * step : x * step + 3] = weight
        name = f"{node.name}_tiles"
        added = {f"{name}_weight": large.reshape(-1, *large.shape[3:])}  # (tile²·O, C, side, side)
        if len(node.input) == 3:
            added[f"{name}_bias"] = np.tile(numpy_helper.to_array(values[node.input[2]]), tile**2)
        for key, value in added.items():
            model.graph.initializer.append(numpy_helper.from_array(value, key))
        # at stride 2 the windows of an even number of rows end before the last padding
        pads = [1, 1, *(1 if step == 1 else 0 for _ in range(2))]
        sizes: dict[str, Any] = {"kernel_shape": [side] * 2, "strides": [step * tile] * 2, "pads": pads}
        conv = helper.make_node("Conv", [node.input[0], *added], [name], node.name, **sizes)
        nodes[-1:] = [conv, helper.make_node("DepthToSpace", [name], [node.output[0]], f"{name}_join", blocksize=tile)]
    replace_nodes(model, nodes)
