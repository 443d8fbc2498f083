"""1×1 convolutions of small batches in training, at the speed that torch has for larger ones.

On one CPU thread torch runs a 1×1 convolution of fewer than 16 images by a general path that is much slower than the one
for 16 and more. Of channels-last images, rows can be counted as images without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

_FAST_FROM = 16


@contextmanager
def rows_as_images(module: nn.Module) -> Iterator[None]:
    """While it lasts, the plain 1×1 convolutions of ``module`` take the rows of a small batch as images of their own."""
    parts = [
        part
        for part in module.modules()
        if type(part) is nn.Conv2d
        and part.kernel_size == part.stride == (1, 1)
        and part.padding == (0, 0)
        and part.groups == 1
    ]
    with forward_by(parts, _convolve):
        yield


@contextmanager
def forward_by(parts: Iterable[nn.Conv2d], function: Callable[[nn.Conv2d, Tensor], Tensor]) -> Iterator[None]:
    """While it lasts, ``function(part, x)`` is the forward of each of ``parts``."""
    patched = list(parts)
    for part in patched:
        part.forward = partial(function, part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in patched:
            del part.forward


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    if batch >= _FAST_FROM or batch * height < _FAST_FROM:
        return F.conv2d(x, conv.weight, conv.bias)
    parts = 2 if height % 2 == 0 and 2 * batch >= _FAST_FROM else height
    rows = x.permute(0, 2, 3, 1).reshape(batch * parts, height // parts, width, channels)  # (B·parts, H/parts, W, C)
    out = F.conv2d(rows.permute(0, 3, 1, 2), conv.weight, conv.bias)  # (B·parts, C', H/parts, W)
    return out.permute(0, 2, 3, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)  # (B, C', H, W)
