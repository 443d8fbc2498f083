"""Layers that the baselines share: tracing-safe shapes, convolution with batch norm, the depth head."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def static_shape(x: Tensor) -> tuple[int, ...]:
    """The shape of ``x`` as Python integers, also under ``torch.jit.trace``, where ``x.shape`` holds tensors.

    A traced network therefore has its sizes fixed, which is what an export with fixed shapes wants; the tracer's
    warning about just that is silenced here and nowhere else.
    """
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch leaves it untyped
        return tuple(x.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return tuple(int(size) for size in x.shape)


def resize_bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """``x`` (B, C, h, w) to (B, C, ``height``, ``width``), as ``F.interpolate(..., align_corners=False)`` does.

    Written as products with constant matrices: an exported ``Resize`` to a size that is no power of two times the input
    would compute its size in the graph, which TensorRT 8.2 does not take.
    """
    _, _, rows, columns = static_shape(x)
    if rows != height:
        x = torch.matmul(_bilinear_matrix(rows, height, x), x)  # (B, C, height, w)
    if columns != width:
        x = torch.matmul(x, _bilinear_matrix(columns, width, x).T)  # (B, C, height, width)
    return x


def _bilinear_matrix(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old): bilinear interpolation of an axis with half-pixel centres; a constant when traced."""
    centres = [min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0) for i in range(new)]
    weights = [[max(0.0, 1.0 - abs(centre - j)) for j in range(old)] for centre in centres]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return torch.tensor(weights, dtype=like.dtype, device=like.device)


def check_size(rgb: Tensor) -> None:
    """``ValueError`` unless height and width of ``rgb`` (B, 3, H, W) are multiples of 32."""
    _, _, height, width = static_shape(rgb)
    if height % 32 or width % 32 or not height or not width:
        raise ValueError(f"input is {height}x{width}: height and width must be multiples of 32")


def check_name(name: str, choices: Iterable[str]) -> None:
    """``ValueError`` unless ``name`` is one of ``choices``; it lists them and names the nearest, if one is near."""
    known = sorted(choices)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown model '{name}'{hint} (choices: {', '.join(known)})")


class ConvNorm(nn.Sequential):
    """Convolution without bias ("same" padding), batch norm, and an activation unless ``act`` is None."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: type[nn.Module] | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        if act is not None:
            self.act = act()


class DepthHead(nn.Module):
    """1×1 convolution to one logit per pixel; :meth:`depth` turns logits into metres, ``max_depth · sigmoid(logit)``.

    The bias starts at the logit of 1/4, so an untrained network says ``max_depth / 4`` or so everywhere (2.5 m of 10).
    ``ValueError`` unless ``max_depth`` is above 0.
    """

    def __init__(self, channels: int, max_depth: float) -> None:
        super().__init__()
        if not max_depth > 0:
            raise ValueError(f"max_depth is {max_depth}: must be above 0 m")
        self.max_depth = max_depth
        self.conv = nn.Conv2d(channels, 1, 1)

    def reset(self) -> None:
        """Small weights around the starting depth."""
        assert self.conv.bias is not None
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.constant_(self.conv.bias, math.log(0.25 / 0.75))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, H, W) to logits (B, 1, H, W)."""
        logits: Tensor = self.conv(x)
        return logits

    def depth(self, logits: Tensor) -> Tensor:
        """Logits to metres in (0, ``max_depth``), any shape."""
        return self.max_depth * torch.sigmoid(logits)


def init_weights(network: nn.Module) -> None:
    """He normal (fan in) for convolutions, truncated normal 0.02 for linear layers, :class:`DepthHead` by its own."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, DepthHead):
            module.reset()
