"""Depthwise convolutions in bfloat16: the same results and gradients as in float32, to its rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from depthbench.suites.graphs.depthwise import fast_in_bfloat16


def gradients(net: nn.Module, x: Tensor, aim: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = net(x)
    (y.float() * aim).sum().backward()
    assert x.grad is not None
    found = [y.detach().float(), x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
    assert len(found) == 2 + len(list(net.parameters()))
    return found


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (3, 2, 1), (3, 1, 0)], ids=["3", "5", "stride", "valid"]
)
def test_the_same_gradients(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, kernel, stride, padding, groups=16, bias=False)
    x = torch.randn(2, 16, 12, 20).contiguous(memory_format=torch.channels_last)
    aim = torch.randn_like(conv(x).detach())
    exact = gradients(copy.deepcopy(conv), x, aim)
    with fast_in_bfloat16(conv), torch.autocast("cpu", torch.bfloat16):
        fast = gradients(conv, x, aim)
        assert conv(x).dtype == torch.bfloat16
    for ours, reference in zip(fast, exact, strict=True):
        assert (ours - reference).norm() < 0.005 * reference.norm()


def test_only_while_it_lasts_and_only_depthwise() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    with fast_in_bfloat16(net):
        assert ["forward" in vars(part) for part in net] == [True, False, False]
        assert net(torch.ones(1, 8, 5, 5)).dtype == torch.float32  # without autocast all is as ever
        with torch.autocast("cpu", torch.bfloat16):
            half: Tensor = net[0](torch.ones(1, 8, 5, 5))
            assert half.dtype == torch.bfloat16
    assert not any("forward" in vars(part) for part in net)
    assert net[0](torch.ones(1, 8, 5, 5)).dtype == torch.float32
