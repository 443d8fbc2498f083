"""What each group of channels is worth: accuracy against the share removed of one group, all others left whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from depthbench.compression.prune_costs import count_macs, count_params
from depthbench.compression.prune_groups import Group, find_groups, remove
from depthbench.compression.shapes import state_digest

if TYPE_CHECKING:
    from depthbench.compression.options import PruneOptions
    from depthbench.compression.steps import Context

RATIOS = (0.25, 0.5, 0.75)
"""Shares of a group's channels at which its harm is measured, as near as its chunks allow."""
ERROR = "rmse_m"

Progress = Callable[[int, int], None]
"""Called with (points done, points in all)."""


@dataclass(frozen=True)
class Point:
    """The network with the share ``ratio`` of one group's channels removed: what it still costs, and its accuracy."""

    ratio: float
    channels: int
    macs: float
    params: float
    score: dict[str, float]


@dataclass(frozen=True)
class Sensitivity:
    """The scan of a network: its own costs and accuracy, and a curve for each group, by the name of the group's root."""

    whole: Point
    groups: dict[str, list[Point]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def harm(self, group: Group, cost: str) -> list[float]:
        """For every chunk of ``group``: the error that it and those before it add, per share of ``cost`` that they save.

        ``cost``: ``macs`` or ``params``. Between measured points both run straight; never falling, as chunks go in order.
        """
        points = self.groups[group.root]
        ratios = [0.0, *(point.ratio for point in points)]
        errors = [0.0, *(point.score[ERROR] - self.whole.score[ERROR] for point in points)]
        before: float = getattr(self.whole, cost)
        saved = [0.0, *(1 - getattr(point, cost) / before for point in points)]
        if len(ratios) == 1:
            return [float("inf")] * len(group.chunks)
        error, save = (_straight(group.shares, ratios, values) for values in (errors, saved))
        harm = error / np.maximum(save, 1e-9)
        return [float(value) for value in np.maximum.accumulate(harm)]


def _straight(at: Sequence[float], x: Sequence[float], y: Sequence[float]) -> Any:
    """Values between and beyond the points (x, y) on straight lines."""
    values = np.interp(at, x, y)
    beyond = np.asarray(at) > x[-1]
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.where(beyond, y[-1] + slope * (np.asarray(at) - x[-1]), values)


def scan(
    module: nn.Module,
    groups: Sequence[Group],
    options: PruneOptions,
    context: Context,
    *,
    ratios: Sequence[float] = RATIOS,
    progress: Progress | None = None,
) -> Sensitivity:
    """Prune each of ``groups`` alone to each of ``ratios`` and score the network; every point is kept by ``context``.

    A scan that was stopped takes what it has measured from there. Batch norms are measured anew for every point, the whole
    network's too, so that a point differs from it by what was removed alone.
    """
    example = torch.zeros(1, 3, *options.size, device=next(module.parameters()).device)
    identity = state_digest(module)
    asked = [(g, count) for g, group in enumerate(groups) for count in nearest_cuts(group, ratios)]

    def measure(pruned: nn.Module, ratio: float, channels: int) -> dict[str, Any]:
        macs, params = count_macs(pruned, example), count_params(pruned)
        if options.renew_norms:
            context.renew_norms(pruned, options.size)
        return asdict(Point(ratio, channels, macs, params, dict(context.score(pruned, options.size))))

    whole = context.cached(
        ["whole", identity, options.size, options.renew_norms], lambda: measure(copy.deepcopy(module), 0.0, 0)
    )
    curves: dict[str, list[Point]] = {group.root: [] for group in groups}
    for done, (g, count) in enumerate(asked, 1):
        group = groups[g]
        gone = group.gone(count)

        def point(g: int = g, count: int = count, gone: list[int] = gone, group: Group = group) -> dict[str, Any]:
            return measure(remove(module, groups, {g: count}), group.shares[count - 1], len(gone))

        key = ["without", identity, options.size, options.renew_norms, group.root, gone]
        curves[group.root].append(Point(**context.cached(key, point)))
        if progress is not None:
            progress(done, len(asked))
    return Sensitivity(Point(**whole), curves)


def nearest_cuts(group: Group, ratios: Sequence[float]) -> list[int]:
    """The numbers of chunks whose shares are nearest to ``ratios``, each once."""
    shares = np.asarray(group.shares)
    return sorted({int(np.abs(shares - ratio).argmin()) + 1 for ratio in ratios}) if len(shares) else []


def scan_network(
    module: nn.Module,
    options: PruneOptions,
    context: Context,
    *,
    ratios: Sequence[float] = RATIOS,
    progress: Progress | None = None,
) -> Sensitivity:
    """:func:`scan` of every group of ``module`` that pruning with ``options`` may touch."""
    example = torch.zeros(1, 3, *options.size, device=next(module.parameters()).device)
    groups, _ = find_groups(module, example, options, options.round_to, context)
    return scan(module, groups, options, context, ratios=ratios, progress=progress)
