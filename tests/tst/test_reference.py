"""The fast form computes what the literal pseudo code computes."""

import pytest
import torch

from depthbench.tst import build_tst
from depthbench.tst.reference import TSTSource, TSTSourceFast


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
@torch.no_grad()
def test_fast_form_agrees_with_the_literal_one(height, width):
    torch.manual_seed(0)
    source = TSTSource().eval()
    for parameter in source.predictors.parameters():
        parameter.mul_(20)  # tokens and scales then move the depth by metres, not by centimetres
    rgb = torch.rand(2, 3, height, width)
    literal, fast = source(rgb), TSTSourceFast(source)(rgb)
    assert literal.shape == (2, 1, height, width)
    assert literal.std() > 0.5
    torch.testing.assert_close(fast, literal, rtol=0, atol=1e-5)


def test_numbers_are_those_of_the_pseudo_code():
    source = build_tst("tst-source").source
    assert (source.grid**2, source.layers, source.block.attention.heads) == (16, 12, 4)
    assert [f.out_channels for f in source.features] == [256, 128, 64, 32, 16, 8, 4, 2]
    assert [f.stride for f in source.features] == [(2**n, 2**n) for n in range(8)]
    assert [p.in_channels for p in source.predictors] == [256 + f.out_channels for f in source.features]
    linears = [m for m in source.block.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(256, 256)] * 6


@torch.no_grad()
def test_depth_is_bounded_by_max_depth_and_starts_at_a_quarter():
    torch.manual_seed(0)
    depth = build_tst("tst-source", layers=1, hidden=128, max_depth=80.0)(torch.rand(1, 3, 64, 64))
    assert depth.min() > 0
    assert depth.max() < 80
    assert depth.mean().item() == pytest.approx(20, rel=0.2)


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    model = build_tst("tst-source", layers=2, hidden=128)
    model(torch.rand(1, 3, 64, 64)).square().mean().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert [name for name in still if not name.endswith("attention.key.bias")] == []  # softmax takes a key bias away


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 15}, "tokens is 15: it must be a square number"),
        ({"heads": 3}, "hidden is 256: it must be a multiple of heads, which is 3"),
        ({"scales": 10}, "scales is 10: hidden, which is 256, must be a multiple of 2 ** (scales - 1)"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        build_tst("tst-source", **options)
    assert str(error.value) == message


def test_other_sizes_are_refused_by_both_forms():
    source = TSTSource(layers=1, hidden=128)
    for model in (source, TSTSourceFast(source)):
        with pytest.raises(ValueError, match=r"^input is 60x64: height and width must be multiples of 32$"):
            model(torch.zeros(1, 3, 60, 64))
