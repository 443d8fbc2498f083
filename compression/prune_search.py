"""How many chunks have to go so that the network costs what was asked, and in which order they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from depthbench.compression.prune_costs import count_macs, count_params
from depthbench.compression.prune_groups import Group, remove

if TYPE_CHECKING:
    from depthbench.compression.options import PruneOptions
    from depthbench.compression.sensitivity import Sensitivity
    from depthbench.compression.steps import Context

CLOSE = 0.003
"""A share removed that is so near to the one asked ends the search."""

Cost = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Cut:
    """A pruned network and the share of its cost that is gone."""

    module: nn.Module
    achieved: float


def cost_of(options: PruneOptions, example: Tensor, context: Context | None) -> Cost:
    """What the target of ``options`` counts; ``ValueError`` for a latency without a context that predicts one."""
    _, cost, _ = options.target
    if cost == "latency":
        if context is None:
            raise ValueError("latency_ratio: needs a prediction for the board, which only a recipe's context has")
        assert options.board is not None  # the options' own check
        return partial(_latency, context, options.size, options.board, options.precision)
    return count_params if cost == "params" else partial(_macs, example)


def _latency(context: Context, size: tuple[int, int], board: str, precision: str, module: nn.Module) -> float:
    return context.latency(module, size, board, precision)


def _macs(example: Tensor, module: nn.Module) -> float:
    return count_macs(module, example)


def ordered_chunks(
    groups: Sequence[Group], scope: str, sensitivity: Sensitivity | None = None, cost: str = "macs"
) -> list[int]:
    """The group of each chunk in the order in which the chunks go; those of one group always go in their own order."""
    harms = [sensitivity.harm(group, cost) for group in groups] if sensitivity else []

    def key(item: tuple[int, int]) -> tuple[float, float]:
        g, c = item
        score, share = groups[g].scores[c], groups[g].shares[c]
        if scope == "sensitivity":
            return harms[g][c], share
        return (share, score) if scope == "uniform" else (score, share)

    return [g for g, _ in sorted(((g, c) for g, group in enumerate(groups) for c in range(len(group.chunks))), key=key)]


def bisect(
    module: nn.Module,
    groups: Sequence[Group],
    order: Sequence[int],
    cost: Cost,
    before: float,
    ratio: float,
) -> Cut:
    """The cut, of all prefixes of ``order``, whose removed share of the cost ``before`` is nearest to ``ratio``."""
    tried = {0: Cut(module, 1 - cost(module) / before)}  # by number of chunks

    def achieved(count: int) -> float:
        if count not in tried:
            counts: Mapping[int, int] = Counter(order[:count])
            pruned = remove(module, groups, counts)
            tried[count] = Cut(pruned, 1 - cost(pruned) / before)
        return tried[count].achieved

    low, high = 0, len(order)
    achieved(high)
    while high - low > 1 and min(abs(cut.achieved - ratio) for cut in tried.values()) > CLOSE:
        # where a straight line between both ends says, but never so near to one end that the other hardly moves
        share = (ratio - achieved(low)) / max(achieved(high) - achieved(low), 1e-9)
        middle = low + min(max(round((high - low) * min(max(share, 0.1), 0.9)), 1), high - low - 1)
        if achieved(middle) < ratio:
            low = middle
        else:
            high = middle
    return min(tried.values(), key=lambda cut: abs(cut.achieved - ratio))
