"""Few channels kept in tiles, and edges of the luminance: rewritten graphs compute what they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.compression.executed import outputs
from depthbench.compression.graph import initial_values, node_histogram, static_shapes
from depthbench.compression.prepared import prepared
from depthbench.compression.tiles import keep_in_tiles, weigh_colours_first
from depthbench.suites.export import export_onnx

Images = list[NDArray[np.float32]]


class Refined(nn.Module):
    """Edges of the luminance and upsampled features, at half of the input's size, make one channel."""

    def __init__(self) -> None:
        super().__init__()
        filters = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        edges = torch.stack([filters, filters.T])[:, None] * torch.tensor([0.3, 0.6, 0.1]).view(1, 3, 1, 1)
        self.register_buffer("filters", edges)
        self.features = nn.Conv2d(3, 24, 3, stride=4, padding=1)
        self.reduce = nn.Conv2d(24, 8, 1)
        self.edges = nn.Conv2d(2, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        filters = self.get_buffer("filters")
        edges = self.edges(F.conv2d(rgb, filters, stride=2, padding=1).abs())
        x = F.interpolate(self.reduce(self.features(rgb).relu()), scale_factor=2.0, mode="nearest")
        return F.interpolate(self.last((x + edges).relu()), scale_factor=2.0, mode="nearest")


@pytest.fixture
def refined(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return export_onnx(Refined().eval(), tmp_path / "refined.onnx", (64, 64))


def test_what_is_kept_in_tiles_stays_the_same(refined: Path, unseen: Images, tmp_path: Path) -> None:
    model = prepared(refined)
    keep_in_tiles(model)
    onnx.save(model, tmp_path / "tiled.onnx")
    assert node_histogram(tmp_path / "tiled.onnx") == {
        "Conv": 5,
        "Relu": 2,
        "Abs": 1,
        "Add": 1,
        "DepthToSpace": 1,
        "Resize": 1,
    }
    shapes = static_shapes(onnx.shape_inference.infer_shapes(model))
    [joined] = [node for node in model.graph.node if node.op_type == "DepthToSpace"]
    [absolute] = [node for node in model.graph.node if node.op_type == "Abs"]
    assert (shapes[absolute.output[0]], shapes[joined.input[0]]) == ([1, 8, 16, 16], [1, 16, 8, 8])
    np.testing.assert_allclose(outputs(tmp_path / "tiled.onnx", unseen), outputs(refined, unseen), atol=1e-5)


def test_what_is_read_elsewhere_is_not_kept_in_tiles(unseen: Images, tmp_path: Path) -> None:
    class Seen(Refined):
        def forward(self, rgb: Tensor) -> Tensor:
            """(B, 3, H, W) to (B, 1, H, W)."""
            edges = self.edges(F.conv2d(rgb, self.get_buffer("filters"), stride=2, padding=1).abs())
            pooled = F.max_pool2d(edges, 2).mean(1, keepdim=True)  # (B, 1, H/4, W/4)
            last = self.last((F.interpolate(self.reduce(self.features(rgb).relu()), scale_factor=2.0) + edges).relu())
            return F.interpolate(last, scale_factor=2.0) + F.interpolate(pooled, scale_factor=4.0)

    torch.manual_seed(0)
    source = export_onnx(Seen().eval(), tmp_path / "seen.onnx", (64, 64))
    model = prepared(source)
    keep_in_tiles(model)
    onnx.save(model, tmp_path / "tiled.onnx")
    assert "DepthToSpace" not in node_histogram(tmp_path / "tiled.onnx")
    np.testing.assert_allclose(outputs(tmp_path / "tiled.onnx", unseen), outputs(source, unseen), atol=1e-5)


def test_edges_of_the_luminance_read_one_channel(refined: Path, unseen: Images, tmp_path: Path) -> None:
    model = prepared(refined)
    weigh_colours_first(model)
    onnx.save(model, tmp_path / "weighed.onnx")
    weights = initial_values(model.graph)
    read = sorted(weights[node.input[1]].shape[1] for node in model.graph.node if node.op_type == "Conv")
    assert read == [1, 2, 3, 8, 24]
    np.testing.assert_allclose(outputs(tmp_path / "weighed.onnx", unseen), outputs(refined, unseen), atol=1e-5)
