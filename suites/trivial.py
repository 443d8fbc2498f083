"""The trivial predictor ``mean-depth``: whatever the image, the mean depth per pixel of a data set's training split.

A network that does not beat it by far has learned where floors and ceilings are, not what it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from depthbench.suites.data import DepthDataset

NAME = "mean-depth"


def mean_depth(
    dataset: DepthDataset, size: tuple[int, int], progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """Mean depth per pixel in metres over the pixels with ground truth, (H, W), resized bilinearly to ``size``.

    ``ValueError`` when the images differ in size or a pixel has no ground truth in any of them.
    """
    total = np.zeros(dataset[0].depth.shape[1:])
    count = np.zeros_like(total)
    for i in range(len(dataset)):
        depth = dataset[i].depth[0]
        if depth.shape != total.shape:
            raise ValueError(f"{dataset.name}: image {i} is {depth.shape}, others are {total.shape}: no mean per pixel")
        total += depth
        count += depth > 0
        if progress is not None:
            progress(i + 1, len(dataset))
    if not count.all():
        raise ValueError(f"{dataset.name}: {int((count == 0).sum())} pixels have no ground truth in any training image")
    mean = Image.fromarray((total / count).astype(np.float32))
    return np.asarray(mean.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def write_constant(depth: NDArray[np.float32], path: Path) -> Path:
    """An ONNX file that gives ``depth`` (H, W) for any image ``rgb`` (1, 3, H, W), so that it is evaluated like a network."""
    height, width = depth.shape
    constants = [
        helper.make_tensor("mean", TensorProto.FLOAT, (1, 1, height, width), depth.ravel()),
        helper.make_tensor("zero", TensorProto.FLOAT, (1,), [0.0]),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["rgb"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "mean"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, (1, 3, height, width))],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, (1, 1, height, width))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
