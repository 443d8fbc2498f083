"""How much each channel of a group matters, by the measures of Torch-Pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from depthbench.compression.options import PruneOptions
    from depthbench.compression.steps import Context

Scores = list[Tensor | None]
"""By group: a score per channel of its root, (channels,); None for a group without weights."""


def channel_scores(
    model: nn.Module, groups: Sequence[Any], options: PruneOptions, context: Context | None
) -> tuple[Scores, dict[str, Any]]:
    """The scores of ``groups`` (of Torch-Pruning) in ``model``, and what a report must say about them.

    Each group's scores are divided by their mean, those of ``lamp`` by the sum of the ones that are not smaller (Lee et al.
    2021, "Layer-adaptive sparsity for the magnitude-based pruning"). ``l1``, ``l2``: Fang et al. 2023, section 3.3; ``bn``:
    Liu et al. 2017, "Learning efficient convolutional networks through network slimming", with ``l2`` for groups without a
    batch norm; ``taylor``: :func:`taylor_scores`. ``ValueError`` for ``taylor`` without a ``context``, and for ``bn`` in a
    network without batch norms.
    """
    import torch_pruning as tp

    if options.importance == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return [tp.importance.RandomImportance()(group) for group in groups], {}
    if options.importance == "taylor":
        if context is None:
            raise ValueError("importance: taylor needs a training loss, which only a recipe's context has")
        return taylor_scores(model, groups, options, context), {}
    by_l2 = tp.importance.GroupMagnitudeImportance(p=2)
    if options.importance == "bn":
        scale = tp.importance.BNScaleImportance()
        found = [scale(group) for group in groups]
        if all(score is None for score in found):
            raise ValueError(
                f"importance: bn needs batch norms, and {type(model).__name__} has none that can be pruned"
            )
        scores = [by_l2(group) if score is None else score for group, score in zip(groups, found, strict=True)]
        names = {module: name for name, module in model.named_modules()}
        without = [
            names[group[0].dep.target.module]
            for group, bn, l2 in zip(groups, found, scores, strict=True)
            if bn is None and l2 is not None
        ]
        return scores, {"without_batch_norm": without} if without else {}
    measures: Mapping[str, Any] = {
        "l1": tp.importance.GroupMagnitudeImportance(p=1),
        "l2": by_l2,
        "lamp": tp.importance.LAMPImportance(),
    }
    return [measures[options.importance](group) for group in groups], {}


def taylor_scores(model: nn.Module, groups: Sequence[Any], options: PruneOptions, context: Context) -> Scores:
    """The expected change of the training loss when a channel goes, to first order (Molchanov et al. 2019, equation 8).

    |Σ w·∂L/∂w| over the weights of a channel in each layer of its group, averaged over batches: the gradients of single
    batches count, not those of the mean loss, which vanish where a training has ended.
    """
    import torch_pruning as tp

    measure = tp.importance.GroupTaylorImportance(normalizer=None, multivariable=True)
    totals: Scores = [None for _ in groups]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # Torch-Pruning reads the gradients of weights without a part too
    for _ in context.gradients(model, options.size):
        for i, group in enumerate(groups):
            score = measure(group)
            if score is not None:
                before = totals[i]
                totals[i] = score if before is None else before + score
    model.zero_grad(set_to_none=True)
    return [None if total is None else total / total.mean().clamp_min(1e-30) for total in totals]
