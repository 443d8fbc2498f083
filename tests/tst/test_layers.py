"""The fixed matrix products equal torch's pooling and interpolation; attention equals its textbook form."""

import math

import pytest
import torch
from torch.nn import functional as F

from depthbench.tst.layers import (
    Attention,
    InvertedResidual,
    Refinement,
    TokenInjection,
    TransformerBlock,
    grid_to_size,
    pool_to_grid,
    pooling_matrix,
)


@pytest.mark.parametrize(("height", "width"), [(56, 56), (7, 7), (14, 20), (2, 3), (1, 4), (5, 40)])
@pytest.mark.parametrize("grid", [1, 3, 4])
def test_pool_to_grid_equals_adaptive_average_pooling(height, width, grid):
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool_to_grid(x, grid), F.adaptive_avg_pool2d(x, grid))


@pytest.mark.parametrize(("height", "width"), [(56, 56), (7, 7), (14, 20), (2, 3), (1, 4)])
@pytest.mark.parametrize("grid", [1, 4, 5])
def test_grid_to_size_equals_bilinear_interpolation(height, width, grid):
    x = torch.rand(2, 3, grid, grid, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(grid_to_size(x, height, width), expected)


def test_pooling_matrix_of_seven_to_four_by_hand():
    half = pooling_matrix(7, 4) * 2  # the windows are 0-1, 1-3, 3-5, 5-6
    expected = [[1, 0, 0, 0], [1, 2 / 3, 0, 0], [0, 2 / 3, 0, 0], [0, 2 / 3, 2 / 3, 0]]
    expected += [[0, 0, 2 / 3, 0], [0, 0, 2 / 3, 1], [0, 0, 0, 1]]
    torch.testing.assert_close(torch.from_numpy(half), torch.tensor(expected))


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_equals_torch_multihead_attention(heads):
    torch.manual_seed(0)
    ours, theirs = Attention(16, heads=heads), torch.nn.MultiheadAttention(16, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x = torch.randn(2, 5, 16)
        torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_attention_derives_the_head_width_from_its_weights():
    """After pruning, query, key and value have another width: 8 of 16 features in 2 heads of 4."""
    torch.manual_seed(0)
    whole, pruned = Attention(16, heads=2), Attention(16, heads=2)
    keep = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11])  # the first half of each head
    for name in ("query", "key", "value"):
        layer = torch.nn.Linear(16, 8)
        source = getattr(whole, name)
        layer.weight.data, layer.bias.data = source.weight.data[keep], source.bias.data[keep]
        setattr(pruned, name, layer)
    pruned.out = torch.nn.Linear(8, 16)
    x = torch.randn(1, 3, 16)
    query, key, value = (getattr(pruned, name)(x) for name in ("query", "key", "value"))
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)).softmax(-1)
        heads.append(weights @ value[..., part])
    torch.testing.assert_close(pruned(x), pruned.out(torch.cat(heads, -1)))


def test_transformer_block_returns_normalised_tokens_however_often_it_is_applied():
    torch.manual_seed(0)
    block = TransformerBlock(32, heads=4, ffn_ratio=2)
    tokens = 50 * torch.randn(2, 16, 32)
    with torch.no_grad():
        for _ in range(12):
            tokens = block(tokens)
            torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
            torch.testing.assert_close(tokens.var(-1, correction=0), torch.ones(2, 16), atol=1e-3, rtol=0)


def test_inverted_residual_adds_its_input_only_where_shapes_agree():
    x = torch.rand(2, 8, 6, 6)
    same = InvertedResidual(8, 8, kernel=3, stride=1, expansion=2).eval()
    torch.nn.init.zeros_(same.project[1].weight)
    torch.testing.assert_close(same(x), x)
    for other in (
        InvertedResidual(8, 8, kernel=5, stride=2, expansion=2),
        InvertedResidual(8, 12, kernel=3, stride=1, expansion=2),
    ):
        torch.nn.init.zeros_(other.eval().project[1].weight)
        assert not other(x).any()


def test_injection_is_local_times_gate_plus_value():
    torch.manual_seed(0)
    injection = TokenInjection(6, 5, 4).eval()
    x, tokens = torch.rand(2, 6, 8, 8), torch.randn(2, 5, 4, 4)
    gate = F.interpolate(injection.gate(tokens).sigmoid(), size=(8, 8), mode="bilinear")
    value = F.interpolate(injection.value(tokens), size=(8, 8), mode="bilinear")
    torch.testing.assert_close(injection(x, tokens), injection.local(x) * gate + value)


def test_edge_map_by_hand():
    """A vertical step of 1 in all channels: |Sobel| / 4 is 1 beside the step, 0 elsewhere and downwards."""
    rgb = torch.zeros(1, 3, 8, 8)
    rgb[..., 4:] = 1
    edges = Refinement(4, 2).edge_map(rgb)
    assert edges.shape == (1, 2, 4, 4)
    torch.testing.assert_close(edges[0, 0, 1:], torch.tensor([0.0, 0.0, 1.0, 0.0]).expand(3, 4))
    torch.testing.assert_close(edges[0, 1, 1:], torch.zeros(3, 4))


def test_sobel_filter_is_neither_trained_nor_stored():
    refinement = Refinement(4, 2)
    assert not any("sobel" in name for name, _ in refinement.named_parameters())
    assert "sobel" not in refinement.state_dict()
    torch.testing.assert_close(refinement.sobel.sum((-1, -2)), torch.zeros(2, 3))
