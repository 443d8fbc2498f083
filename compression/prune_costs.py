"""What a network costs: multiply-accumulates and parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Macs(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """Adds up the multiply-accumulates of what runs inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out) // 2  # 1 MAC = 2 FLOPs
        return out


def count_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass: convolution, linear and matrix product.

    A layer that is applied several times counts each time. The module's mode is afterwards what it was.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad(), _Macs() as macs:
            module.eval()(example)
    finally:
        for part, training in modes:
            part.training = training
    total: int = macs.total
    return total


def count_params(module: nn.Module) -> int:
    """Stored parameters; one that is shared counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def widths(module: nn.Module) -> dict[str, int]:
    """Output channels (of a transposed convolution: input channels) of every convolution and linear layer, by name."""
    return {
        name: layer.weight.shape[0]
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear))
    }
