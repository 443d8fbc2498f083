from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from depthbench.baselines.layers import resize_bilinear, static_shape


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (15, 20), (5, 9), (1, 1), (2, 3)])
@pytest.mark.parametrize("target", [(8, 8), (7, 7), (16, 20), (2, 2), (15, 9)])
def test_resize_equals_torch(size, target):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    expected = F.interpolate(x, size=target, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize_bilinear(x, *target), expected, atol=1e-5, rtol=0)


# The exporter that honours an opset traces; tracing by itself is announced as deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is:DeprecationWarning")
def test_static_shape_is_python_integers_while_tracing():
    seen = []

    def shape_of(x):
        seen.append(static_shape(x))
        return x + 1

    torch.jit.trace(shape_of, (torch.zeros(2, 3, 4),), check_trace=False)
    assert seen == [(2, 3, 4)]
    assert all(type(size) is int for size in seen[0])
