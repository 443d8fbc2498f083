"""Structured pruning to a target cost.

Torch-Pruning's dependency graph (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) finds which channels
of which layers belong together; a *group* is one such set, pruned as one. Every group is cut into chunks of ``round_to``
channels, the chunks of all groups are put in one order (least important first), and bisection finds how many of them have
to go so that the network costs what was asked. Nothing here knows a model by name.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from depthbench.compression.shapes import shape_like

__all__ = ["count_macs", "count_params", "prune", "shape_like"]

IMPORTANCES: Mapping[str, int] = {"l1": 1, "l2": 2}
SCOPES = ("uniform", "global")
ROUNDINGS = (16, 8, 4, 2, 1)
HEADS = ("num_heads", "heads", "num_attention_heads")
CLOSE = 0.003
TOLERANCE = 0.02
LIMIT = 0.05
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def prune(
    module: nn.Module,
    example: Tensor,
    *,
    macs_ratio: float,
    round_to: int = 16,
    importance: str = "l2",
    scope: str = "uniform",
    max_channel_ratio: float = 0.75,
) -> tuple[nn.Module, dict[str, Any]]:
    """A copy of ``module`` with the share ``macs_ratio`` of its multiply-accumulates pruned away, and a report.

    ``example``: (1, 3, H, W), the size at which MACs are counted (convolution, linear and matrix product).
    ``macs_ratio``: share of MACs to remove, in (0, 1); met within 2 points where chunks of ``round_to`` channels allow
    it. Where they do not, ``round_to`` is halved until they do, and the report names it.
    Sixteen channels are what ONNX Runtime's kernels for AVX512 work in: at multiples of 8 the same MACs saved give less
    speed, in INT8 hardly any.
    ``importance``: "l1" or "l2", the group-wise norm of a channel's weights. ``scope``: "uniform" removes the same share
    of every group's channels, "global" ranks the chunks of all groups together, each group's scores divided by their mean.
    ``max_channel_ratio``: no group loses more than this share of its channels.

    The output, layers with fixed weights (an edge filter) and the layers that feed them keep their channels. Attention
    (a module with ``num_heads`` or ``heads`` that owns separate linear layers for queries, keys and values) keeps its
    heads, and every head loses the same dimensions. Importance of a group: Fang et al. 2023, section 3.3.
    ``ValueError`` for a ratio outside (0, 1) or one that cannot be met within 5 points, and for a network that concatenates
    channels no weight has made (an edge map) anywhere but behind one tensor of features.
    """
    if not 0.0 < macs_ratio < 1.0:
        raise ValueError(f"macs_ratio: {macs_ratio} is not in (0, 1)")
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to: {round_to} is not a positive whole number")
    if importance not in IMPORTANCES:
        raise ValueError(f"importance: {importance!r} is none of {', '.join(IMPORTANCES)}")
    if scope not in SCOPES:
        raise ValueError(f"scope: {scope!r} is none of {', '.join(SCOPES)}")
    if not 0.0 < max_channel_ratio < 1.0:
        raise ValueError(f"max_channel_ratio: {max_channel_ratio} is not in (0, 1)")

    before = count_macs(module, example)
    best: _Cut | None = None
    for rounding in [round_to] + [r for r in ROUNDINGS if r < round_to]:
        groups = _groups(module, example, rounding, IMPORTANCES[importance], max_channel_ratio)
        cut = _bisect(module, example, groups, before, macs_ratio, rounding, scope)
        if best is None or abs(cut.achieved - macs_ratio) < abs(best.achieved - macs_ratio):
            best = cut
        if abs(best.achieved - macs_ratio) <= TOLERANCE:
            break
    assert best is not None
    if abs(best.achieved - macs_ratio) > LIMIT:
        raise ValueError(
            f"macs_ratio: {macs_ratio} cannot be met; the nearest is {best.achieved:.3f} "
            f"with at most {max_channel_ratio:.0%} of the channels of a layer removed"
        )
    best.module.train(module.training)
    old, new = _channels(module), _channels(best.module)
    report: dict[str, Any] = {
        "macs_ratio": macs_ratio,
        "macs_ratio_achieved": round(best.achieved, 5),
        "gmacs_before": before / 1e9,
        "gmacs_after": best.macs / 1e9,
        "params_m_before": count_params(module) / 1e6,
        "params_m_after": count_params(best.module) / 1e6,
        "importance": importance,
        "scope": scope,
        "round_to": best.round_to,
        "size": list(example.shape[-2:]),
        "channels": {name: [old[name], new[name]] for name in old if old[name] != new[name]},
    }
    if best.round_to != round_to:
        report["round_to_asked"] = round_to
    return best.module, report


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

    A layer that is applied several times counts each time.
    """
    with torch.no_grad(), _Macs() as macs:
        copy.deepcopy(module).eval()(example)
    total: int = macs.total
    return total


def count_params(module: nn.Module) -> int:
    """Stored parameters; one that is shared counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


# --- groups of channels that are pruned together -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Channels that go together: ``root`` names the layer, ``chunks[i]`` the channels of the i-th chunk to remove.

    ``scores[i]``: importance of chunk i over the group's mean; chunks come least important first. ``shares[i]``: the share
    of the group's channels that is gone with chunks 0 to i.
    """

    root: str
    chunks: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    shares: tuple[float, ...]


def _groups(module: nn.Module, example: Tensor, round_to: int, p: int, max_channel_ratio: float) -> list[_Group]:
    import torch_pruning as tp

    copied = copy.deepcopy(module)
    graph = _dependency_graph(copied, example)
    importance = tp.importance.GroupMagnitudeImportance(p=p, normalizer="mean")
    fixed = {m for m in copied.modules() if any(not p.requires_grad for p in m.parameters(recurse=False))}
    names = {m: name for name, m in copied.named_modules()}
    groups = []
    for group in graph.get_all_groups():
        members = [(dep.target, graph.is_out_channel_pruning_fn(dep.handler)) for dep, _ in group]
        if any(node.type == tp.ops.OPTYPE.OUTPUT or node.module in fixed for node, _ in members):
            continue
        score = importance(group)
        if score is None:
            continue
        repeats = _repeats(copied, {node.module for node, out in members if out})
        root = group[0].dep.target.module
        groups.append(_chunked(names[root], score, repeats, round_to, max_channel_ratio))
    return groups


def _repeats(model: nn.Module, outputs: set[Any]) -> int:
    """Into how many equal parts (heads, convolution groups) the channels of a group fall that must stay equal in size.

    ``outputs``: the modules whose output channels the group holds. The channels are those of attention when two or more
    linear layers of one module with a number of heads are among them: queries, keys and values.
    """
    repeats = 1
    for owner in model.modules():
        heads = next((n for n in (getattr(owner, name, None) for name in HEADS) if isinstance(n, int)), 1)
        if sum(isinstance(child, nn.Linear) and child in outputs for child in owner.children()) >= 2:
            repeats = max(repeats, heads)
    for layer in outputs:
        if isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups < layer.out_channels:
            repeats = max(repeats, layer.groups)
        if isinstance(layer, nn.GroupNorm):
            repeats = max(repeats, layer.num_groups)
    return repeats


def _chunked(root: str, score: Tensor, repeats: int, round_to: int, max_channel_ratio: float) -> _Group:
    channels = score.numel()
    per_part = channels // repeats
    score = score.reshape(repeats, per_part).mean(0)  # (per_part,)
    step = round_to // math.gcd(round_to, repeats)
    order = score.argsort(stable=True).tolist()
    fewest = max(1, round((1 - max_channel_ratio) * per_part))
    fewest = -(-fewest // step) * step
    # the first cut takes the channels beyond a multiple of step, so that what stays is always a multiple
    cuts = list(range((per_part - 1) // step * step, fewest - 1, -step))
    chunks, scores, kept = [], [], per_part
    for cut in cuts:
        gone = order[per_part - kept : per_part - cut]
        chunks.append(tuple(part * per_part + i for part in range(repeats) for i in gone))
        scores.append(float(score[gone].mean()))
        kept = cut
    return _Group(root, tuple(chunks), tuple(scores), tuple(1 - cut / per_part for cut in cuts))


def _dependency_graph(module: nn.Module, example: Tensor) -> Any:
    import torch_pruning as tp

    loose = [
        (p, 1 if p.dim() >= 4 else max(i for i, n in enumerate(p.shape) if n > 1))
        for owner in module.modules()
        if not isinstance(owner, (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.PReLU, *NORMS))
        for p in owner.parameters(recurse=False)
        if p.numel() > 1
    ]
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            module.eval(),
            example,
            forward_fn=lambda model, inputs: model(inputs),
            output_transform=lambda output: output.clone(),  # gives the output a node of its own, whatever makes it
            unwrapped_parameters=loose,
            verbose=False,
        )
    for node in graph.module2node.values():
        if node.type == tp.ops.OPTYPE.CONCAT:
            made = [function is not None for function, _ in node.grad_fn.next_functions]
            if not all(made) and made != [True] + [False] * (len(made) - 1):  # its offsets would be wrong
                raise ValueError(
                    f"{type(module).__name__} cannot be pruned: it concatenates channels that no weight has made with "
                    "features; they must come last, behind one tensor"
                )
    return graph


# --- how much to remove ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    module: nn.Module
    macs: int
    achieved: float
    round_to: int


def _bisect(
    module: nn.Module,
    example: Tensor,
    groups: Sequence[_Group],
    before: int,
    macs_ratio: float,
    round_to: int,
    scope: str,
) -> _Cut:
    """The cut, of all prefixes of the ordered chunks, whose share of removed MACs is nearest to ``macs_ratio``."""

    def key(item: tuple[int, int]) -> tuple[float, float]:
        score, share = groups[item[0]].scores[item[1]], groups[item[0]].shares[item[1]]
        return (share, score) if scope == "uniform" else (score, share)

    order = sorted(((g, c) for g, group in enumerate(groups) for c in range(len(group.chunks))), key=key)
    tried = {0: _Cut(module, before, 0.0, round_to)}  # by number of chunks

    def achieved(count: int) -> float:
        if count not in tried:
            pruned = _remove(module, example, groups, Counter(g for g, _ in order[:count]))
            macs = count_macs(pruned, example)
            tried[count] = _Cut(pruned, macs, 1 - macs / before, round_to)
        return tried[count].achieved

    low, high = 0, len(order)
    achieved(high)
    while high - low > 1 and min(abs(cut.achieved - macs_ratio) for cut in tried.values()) > CLOSE:
        # where a straight line between both ends says, but never so near to one end that the other hardly moves
        share = (macs_ratio - achieved(low)) / max(achieved(high) - achieved(low), 1e-9)
        middle = low + min(max(round((high - low) * min(max(share, 0.1), 0.9)), 1), high - low - 1)
        if achieved(middle) < macs_ratio:
            low = middle
        else:
            high = middle
    return min(tried.values(), key=lambda cut: abs(cut.achieved - macs_ratio))


def _remove(module: nn.Module, example: Tensor, groups: Sequence[_Group], counts: Mapping[int, int]) -> nn.Module:
    """A copy of ``module`` without the first ``counts[g]`` chunks of group g."""
    copied = copy.deepcopy(module)
    graph = _dependency_graph(copied, example)
    for g, count in counts.items():
        root = copied.get_submodule(groups[g].root)
        gone = sorted(i for chunk in groups[g].chunks[:count] for i in chunk)
        graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, gone).prune()
    return copied


def _channels(module: nn.Module) -> dict[str, int]:
    return {
        name: layer.weight.shape[0]
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear))
    }
