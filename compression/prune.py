"""Structured pruning to a target cost.

Every group of channels that belong together (:mod:`depthbench.compression.prune_groups`) is cut into chunks of ``round_to``
channels, the chunks of all groups are put in one order (least important first), and bisection finds how many of them have
to go so that the network costs what was asked. Nothing here knows a model by name.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthbench.compression.options import PruneOptions
from depthbench.compression.prune_costs import count_macs, count_params, widths
from depthbench.compression.prune_groups import find_groups
from depthbench.compression.prune_search import Cost, Cut, bisect, cost_of, ordered_chunks
from depthbench.compression.sensitivity import scan
from depthbench.compression.shapes import head_count

if TYPE_CHECKING:
    from depthbench.compression.steps import Context

ROUNDINGS = (16, 8, 4, 2, 1)
GRID = 8
"""Channels that are no multiple of it are named in the report: they are what kernels pad up to."""
TOLERANCE = 0.02
LIMIT = 0.05


def prune(module: nn.Module, options: PruneOptions, context: Context | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A copy of ``module`` with the share of its cost that ``options`` ask for pruned away, and a report.

    ``module``: (B, 3, H, W) to whatever it gives; costs are counted for one image of ``options.size``. The target is met
    within 2 points where chunks of ``options.round_to`` channels allow it. Where they do not, ``round_to`` is halved until
    they do, and the report names it (``round_to_asked``), as it names layers whose channels are no multiple of 8
    (``off_grid``) and attention modules that have lost heads (``heads``: [before, after]).
    ``context``: needed for ``taylor``, ``sensitivity``, ``latency_ratio`` and training between passes.

    The output, layers with fixed weights (an edge filter) and the layers that feed them keep their channels. In attention
    (a module with ``num_heads`` or ``heads`` that owns separate linear layers for queries, keys and values) every head loses
    the same dimensions; whole heads go only with ``options.heads``. A block that is applied several times is pruned once.
    ``ValueError`` for a target that cannot be met within 5 points, for what needs a context without one, and for a network
    that concatenates channels no weight has made (an edge map) anywhere but behind one tensor of features.
    """
    module = copy.deepcopy(module)  # costs are counted by running it, which must leave nothing in the caller's
    name, kind, ratio = options.target
    example = torch.zeros(1, 3, *options.size, device=next(module.parameters()).device)
    cost = cost_of(options, example, context)
    before = cost(module)
    original = widths(module)
    pruned, trainings = module, []
    for i in range(1, options.iterations):
        share = 1 - (1 - ratio) ** (i / options.iterations)
        cut, _ = _cut(pruned, example, options, options.round_to, cost, before, share, context, original)
        pruned = cut.module
        _renew_norms(pruned, options, context)
        if options.finetune is not None:
            if context is None:
                raise ValueError("finetune: needs a training loop, which only a recipe's context has")
            pruned, training = context.finetune(pruned, options.finetune.training)
            trainings.append({name: round(cut.achieved, 5), **training})
    best, round_to = None, options.round_to
    for rounding in [options.round_to] + [r for r in ROUNDINGS if r < options.round_to]:
        cut, remarks = _cut(pruned, example, options, rounding, cost, before, ratio, context, original)
        if best is None or abs(cut.achieved - ratio) < abs(best.achieved - ratio):
            best, round_to = cut, rounding
        if abs(best.achieved - ratio) <= TOLERANCE:
            break
    assert best is not None
    if abs(best.achieved - ratio) > LIMIT:
        raise ValueError(
            f"{name}: {ratio} cannot be met; the nearest is {best.achieved:.3f} "
            f"with at most {options.max_channel_ratio:.0%} of the channels of a layer removed"
        )
    renewed = _renew_norms(best.module, options, context)
    best.module.train(module.training)
    report = {
        name: ratio,
        f"{name}_achieved": round(best.achieved, 5),
        **_costs(module, best.module, example),
        "importance": options.importance,
        "scope": options.scope,
        "round_to": round_to,
        "size": list(options.size),
        "norms_renewed": renewed,
        **_changes(module, best.module),
        **remarks,
    }
    if kind == "latency":
        report |= {"board": options.board, "precision": options.precision}
        report |= {"latency_ms_before": before, "latency_ms_after": before * (1 - best.achieved)}
    if round_to != options.round_to:
        report["round_to_asked"] = options.round_to
    if options.iterations > 1:
        report["iterations"] = options.iterations
    if trainings:
        report["finetuned"] = trainings
    return best.module, report


def _cut(
    module: nn.Module,
    example: Tensor,
    options: PruneOptions,
    round_to: int,
    cost: Cost,
    before: float,
    ratio: float,
    context: Context | None,
    original: dict[str, int],
) -> tuple[Cut, dict[str, Any]]:
    """One pass: ``module`` without the share ``ratio`` of the cost ``before``, as near as chunks of ``round_to`` allow."""
    groups, remarks = find_groups(module, example, options, round_to, context, original)
    sensitivity = None
    if options.scope == "sensitivity":
        if context is None:
            raise ValueError("scope: sensitivity needs images to score on, which only a recipe's context has")
        sensitivity = scan(module, groups, options, context, progress=context.progress)
    order = ordered_chunks(groups, options.scope, sensitivity, "params" if options.params_ratio else "macs")
    return bisect(module, groups, order, cost, before, ratio), remarks


def _renew_norms(module: nn.Module, options: PruneOptions, context: Context | None) -> bool:
    """Measure the batch norms of a pruned network anew, where asked for and possible; whether it was done."""
    if context is None or not options.renew_norms:
        return False
    context.renew_norms(module, options.size)
    return True


def _costs(parent: nn.Module, child: nn.Module, example: Tensor) -> dict[str, float]:
    macs = [count_macs(module, example) for module in (parent, child)]
    return {
        "macs_ratio_achieved": round(1 - macs[1] / macs[0], 5),
        "gmacs_before": macs[0] / 1e9,
        "gmacs_after": macs[1] / 1e9,
        "params_m_before": count_params(parent) / 1e6,
        "params_m_after": count_params(child) / 1e6,
    }


def _changes(parent: nn.Module, child: nn.Module) -> dict[str, Any]:
    """Layers with fewer output channels, attention modules with fewer heads, and channels that are off the grid."""
    old, new = widths(parent), widths(child)
    changed = {name: [old[name], new[name]] for name in old if old[name] != new[name]}
    changes: dict[str, Any] = {"channels": changed}
    if off_grid := {name: count for name, (_, count) in changed.items() if count % GRID}:
        changes["off_grid"] = off_grid
    before = {name: head_count(owner) for name, owner in parent.named_modules()}
    after = {name: head_count(owner) for name, owner in child.named_modules()}
    if heads := {name: [before[name], after[name]] for name in before if before[name] != after[name]}:
        changes["heads"] = heads
    return changes
