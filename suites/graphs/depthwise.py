"""Depthwise convolutions in bfloat16 training on a CPU.

torch runs them forwards faster in bfloat16 than in float32, but their gradients several times more slowly: so the
gradient of the weights is taken in float32, and that of the input, at stride 1, as a convolution with the mirrored kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.suites.graphs.pointwise import forward_by


@contextmanager
def fast_in_bfloat16(module: nn.Module) -> Iterator[None]:
    """While it lasts, the depthwise convolutions of ``module`` without bias have faster gradients under autocast."""
    parts = [
        part
        for part in module.modules()
        if type(part) is nn.Conv2d
        and part.groups == part.in_channels == part.out_channels > 1
        and part.dilation == (1, 1)
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
        and part.bias is None
    ]
    with forward_by(parts, _convolve):
        yield


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return F.conv2d(x, conv.weight, None, conv.stride, conv.padding, 1, conv.groups)
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = _Depthwise.apply(x, conv.weight, conv.stride, conv.padding)  # type: ignore[no-untyped-call]
    return out


class _Depthwise(torch.autograd.Function):
    """``x`` (B, C, H, W) of any float type and ``weight`` (C, 1, k, k) float32 to (B, C, H', W') bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        half = x.to(torch.bfloat16)
        ctx.save_for_backward(half, weight)
        ctx.stride, ctx.padding, ctx.dtype = stride, padding, x.dtype
        return F.conv2d(half, weight.to(torch.bfloat16), None, stride, padding, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        [grad], (half, weight) = grads, ctx.saved_tensors
        same = ctx.stride == (1, 1) and tuple(2 * p + 1 for p in ctx.padding) == tuple(weight.shape[2:])
        wanted = (not same and ctx.needs_input_grad[0], ctx.needs_input_grad[1], False)
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(
            grad.float(),
            half.float(),
            weight,
            None,
            ctx.stride,
            ctx.padding,
            (1, 1),
            False,
            (0, 0),
            weight.shape[0],
            wanted,
        )
        if same and ctx.needs_input_grad[0]:
            mirrored = weight.flip(2, 3).to(torch.bfloat16)
            of_input = F.conv2d(grad.to(torch.bfloat16), mirrored, None, 1, ctx.padding, 1, weight.shape[0])
        return (None if of_input is None else of_input.to(ctx.dtype)), of_weight, None, None
