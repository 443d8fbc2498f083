from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depthbench.baselines import FASTDEPTH, FastDepth, build_fastdepth


@pytest.mark.parametrize(("name", "params_m", "gmacs"), [("fastdepth", 3.96, 0.737), ("fastdepth-pruned", 1.36, 0.366)])
def test_costs_are_the_published_ones(count_gmacs, name, params_m, gmacs):
    network = build_fastdepth(name).eval()
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == params_m
    assert round(count_gmacs(network), 3) == gmacs


def test_convolutions_of_the_pruned_network_are_those_of_the_published_file():
    """Shapes in the order of a third party's ONNX file of the pruned network (out, in per group, kernel)."""
    shapes = [tuple(m.weight.shape) for m in build_fastdepth("fastdepth-pruned").modules() if isinstance(m, nn.Conv2d)]
    widths = [16, 56, 88, 120, 144, 256, 408, 376, 272, 288, 296, 328, 480, 512, 200, 256, 120, 56, 16]
    expected = [(16, 3, 3, 3)]
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        kernel = 3 if i < 13 else 5
        expected += [(inputs, 1, kernel, kernel), (outputs, inputs, 1, 1)]
    assert shapes == [*expected, (1, 16, 1, 1)]


@pytest.mark.parametrize("name", FASTDEPTH)
@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 32), (224, 224)])
def test_depth_has_the_input_size_and_range(name, height, width, picture):
    torch.manual_seed(0)
    network = build_fastdepth(name, max_depth=8.0).eval()
    depth = network(picture(height, width).repeat(2, 1, 1, 1))
    assert depth.shape == (2, 1, height, width)
    assert depth.dtype == torch.float32
    assert 0 < depth.min() < depth.max() < 8
    assert depth.mean().item() == pytest.approx(2.0, abs=0.3)  # a quarter of max_depth


def test_decoder_adds_skips_after_nearest_upsampling(randomized, picture):
    """The published forward pass, written out a second time from the layers."""
    network = randomized(build_fastdepth("fastdepth-pruned"))
    rgb = picture(64, 96)

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="nearest")

    with torch.no_grad():
        x, maps = rgb, {}
        for i, layer in enumerate(network.encoder):
            x = maps[i] = layer(x)
        assert [maps[i].shape[-1] for i in (0, 1, 3, 5, 11, 13)] == [48, 48, 24, 12, 6, 3]
        x = up(network.decoder[0](x))
        x = up(network.decoder[1](x)) + maps[5]
        x = up(network.decoder[2](x)) + maps[3]
        x = up(network.decoder[3](x)) + maps[1]
        x = up(network.decoder[4](x))
        expected = 10 * torch.sigmoid(network.head.conv(x))
        torch.testing.assert_close(network(rgb), expected)
    assert expected.std() > 0.1


GOLDEN = {
    "fastdepth": [2.46868, 2.48989, 2.45723, 2.56858, 2.53178, 2.6147, 2.57789, 2.56456],
    "fastdepth-pruned": [2.48061, 2.45464, 2.4761, 2.4062, 2.40078, 2.41421, 2.41233, 2.41866],
}


@pytest.mark.parametrize("name", FASTDEPTH)
def test_golden_output(name, picture):
    torch.manual_seed(0)
    network = build_fastdepth(name).eval()
    with torch.no_grad():
        depth = network(picture(64, 96))
    values = [*depth[0, 0, ::21, ::32].flatten()[:7].tolist(), depth.mean().item()]
    assert values == pytest.approx(GOLDEN[name], abs=2e-5)


@pytest.mark.parametrize("name", FASTDEPTH)
def test_every_parameter_is_trained(name, picture):
    torch.manual_seed(0)
    network = build_fastdepth(name).train()
    rgb = torch.cat([picture(64, 96), picture(64, 96).flip(3)])
    (network(rgb) * torch.linspace(0, 1, 96)).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


@pytest.mark.parametrize("name", FASTDEPTH)
@pytest.mark.parametrize(("size", "opset"), [((224, 224), 17), ((256, 320), 17), ((224, 224), 13), ((256, 320), 13)])
def test_export_equals_eager(name, size, opset, randomized, exported_difference):
    difference, operators = exported_difference(randomized(build_fastdepth(name)), size, opset)
    assert difference < 1e-4
    assert set(operators) <= {"Conv", "Clip", "Relu", "Resize", "Add", "Sigmoid", "Mul", "Constant"}  # nothing dynamic
    assert operators.count("Resize") == 5


@pytest.mark.parametrize(("height", "width"), [(225, 224), (224, 100), (0, 32)])
def test_size_error(height, width):
    message = f"input is {height}x{width}: height and width must be multiples of 32"
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_fastdepth("fastdepth-pruned")(torch.zeros(1, 3, height, width))


def test_name_error():
    message = "unknown model 'fastdepht'; did you mean fastdepth? (choices: fastdepth, fastdepth-pruned)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_fastdepth("fastdepht")
    with pytest.raises(ValueError, match=re.escape("unknown model 'zzz' (choices: fastdepth, fastdepth-pruned)")):
        build_fastdepth("zzz")


def test_width_errors():
    widths = FASTDEPTH["fastdepth"]
    with pytest.raises(ValueError, match=r"^13 encoder and 5 decoder widths: must be 14 and 5$"):
        FastDepth(encoder=widths.encoder[1:], decoder=widths.decoder)
    message = "decoder[2] is 96 and encoder[3] is 128: they are added, so they must be equal"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FastDepth(encoder=widths.encoder, decoder=(512, 256, 96, 64, 32))


def test_max_depth_error():
    with pytest.raises(ValueError, match=r"^max_depth is 0: must be above 0 m$"):
        build_fastdepth("fastdepth-pruned", max_depth=0)
