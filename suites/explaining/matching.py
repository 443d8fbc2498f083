"""Which kernels of two forms of one network are the same layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from depthbench.suites.explaining.kernels import Kernel


def matched(parent: Sequence[Kernel], child: Sequence[Kernel]) -> list[tuple[Kernel, Kernel]]:
    """Products of two forms of one network that are the same layer: alike in class, window and positions, in their order.

    Layers with the same channels find each other first.
    """
    pairs: list[tuple[Kernel, Kernel]] = []
    for key in (_layer_exact, _layer):
        done = [{id(pair[k]) for pair in pairs} for k in (0, 1)]
        groups: defaultdict[tuple[Any, ...], tuple[list[Kernel], list[Kernel]]] = defaultdict(lambda: ([], []))
        for place, side in enumerate((parent, child)):
            for kernel in side:
                if kernel.is_product and id(kernel) not in done[place]:
                    groups[key(kernel)][place].append(kernel)
        pairs += [pair for left, right in groups.values() for pair in zip(left, right, strict=False)]
    return pairs


def _layer_exact(kernel: Kernel) -> tuple[Any, ...]:
    return (*_layer(kernel), kernel.channels, kernel.useful_macs)


def _layer(kernel: Kernel) -> tuple[Any, ...]:
    kind = "matmul" if kernel.kind in ("matmul", "attention") else kernel.kind
    return kind, kernel.window, kernel.positions
