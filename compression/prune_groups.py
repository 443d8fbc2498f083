"""Channels that are pruned together, in the order in which they go.

Torch-Pruning's dependency graph (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) finds which channels
of which layers belong together; a *group* is one such set, pruned as one and cut into chunks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthbench.compression.prune_importance import channel_scores
from depthbench.compression.shapes import head_count, set_heads

if TYPE_CHECKING:
    from depthbench.compression.options import PruneOptions
    from depthbench.compression.steps import Context

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Group:
    """Channels that go together: ``root`` names the layer, ``chunks[i]`` the channels of the i-th chunk to remove.

    ``scores[i]``: mean importance of chunk i; chunks come least important first. ``shares[i]``: the share of the group's
    channels that is gone with chunks 0 to i. ``attention``: the module whose heads the channels are, ``heads[i]`` how many
    of them are left after chunk i. ``graph``: Torch-Pruning's, in which the group was found.
    """

    root: str
    chunks: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    shares: tuple[float, ...]
    graph: Any = field(repr=False, compare=False)
    attention: str | None = None
    heads: tuple[int, ...] = ()

    def gone(self, count: int) -> list[int]:
        """The channels of the first ``count`` chunks, ascending."""
        return sorted(i for chunk in self.chunks[:count] for i in chunk)


def find_groups(
    module: nn.Module,
    example: Tensor,
    options: PruneOptions,
    round_to: int,
    context: Context | None = None,
    original: Mapping[str, int] | None = None,
) -> tuple[list[Group], dict[str, Any]]:
    """The groups of ``module`` that may lose channels, and what a report must say about their scores.

    ``original``: output channels by layer before an earlier pass; the largest share that may go is of those.
    The output, layers with fixed weights (an edge filter) and the layers that feed them keep their channels.
    """
    import torch_pruning as tp

    copied = copy.deepcopy(module)
    graph = dependency_graph(copied, example)
    fixed = {m for m in copied.modules() if any(not p.requires_grad for p in m.parameters(recurse=False))}
    names = {m: name for name, m in copied.named_modules()}
    found, outputs = [], []
    for group in graph.get_all_groups():
        members = [(dep.target, graph.is_out_channel_pruning_fn(dep.handler)) for dep, _ in group]
        if any(node.type == tp.ops.OPTYPE.OUTPUT or node.module in fixed for node, _ in members):
            continue
        found.append(group)
        outputs.append({node.module for node, out in members if out})
    scores, remarks = channel_scores(copied, found, options, context)
    groups = []
    for group, score, layers in zip(found, scores, outputs, strict=True):
        if score is None:
            continue
        root = names[group[0].dep.target.module]
        attention, parts = _parts(copied, layers)
        before = (original or {}).get(root, score.numel())
        fewest = max(1, round((1 - options.max_channel_ratio) * before / parts)) * parts
        whole = options.heads and attention is not None
        scored = score.reshape(parts, -1)
        groups.append(_chunked(graph, root, scored, fewest, round_to, attention if whole else None))
    return groups, remarks


def _parts(model: nn.Module, outputs: set[Any]) -> tuple[str | None, int]:
    """The attention module that a group's channels belong to, and into how many equal parts (heads, convolution groups) they
    fall that must stay equal in size.

    ``outputs``: the modules whose output channels the group holds. The channels are those of attention when two or more
    linear layers of one module with a number of heads are among them: queries, keys and values.
    """
    attention, parts = None, 1
    for name, owner in model.named_modules():
        if sum(isinstance(child, nn.Linear) and child in outputs for child in owner.children()) >= 2:
            heads = head_count(owner)
            if heads is not None and heads >= parts:
                attention, parts = name, heads
    for layer in outputs:
        inside = 1
        if isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups < layer.out_channels:
            inside = layer.groups
        if isinstance(layer, nn.GroupNorm):
            inside = layer.num_groups
        if inside > parts:
            attention, parts = None, inside
    return attention, parts


def _chunked(graph: Any, root: str, score: Tensor, fewest: int, round_to: int, attention: str | None) -> Group:
    """Cut a group with scores (parts, channels per part) down to ``fewest`` channels, least important first.

    Every cut leaves a multiple of ``round_to`` channels, the same in every part; with ``attention`` a cut takes a whole part
    (head) where those are the less important channels.
    """
    parts, per_part = score.shape
    rows, columns = list(range(parts)), list(range(per_part))
    chunks: list[tuple[int, ...]] = []
    means: list[float] = []
    shares: list[float] = []
    heads: list[int] = []
    while True:
        least = rows[int(score[rows][:, columns].mean(1).argmin())]
        choices = [rows] if attention is None or len(rows) == 1 else [rows, [row for row in rows if row != least]]
        cuts = []
        for left in choices:
            widest = len(columns) - (left is rows)  # something has to go
            fits = (n for n in range(widest, 0, -1) if len(left) * n % round_to == 0)
            width = next(fits, 0)
            if width and len(left) * width >= fewest:
                order = score[left][:, columns].mean(0).argsort(stable=True).tolist()
                inside = sorted(columns[i] for i in order[len(columns) - width :])
                stay = {(row, column) for row in left for column in inside}
                gone = [(row, column) for row in rows for column in columns if (row, column) not in stay]
                cuts.append((float(score[tuple(zip(*gone, strict=True))].mean()), left, inside, gone))
        if not cuts:
            break
        mean, rows, columns, gone = min(cuts, key=lambda cut: cut[0])
        chunks.append(tuple(row * per_part + column for row, column in gone))
        means.append(max([mean, *means[-1:]]))  # never before a chunk that must go first
        shares.append(1 - len(rows) * len(columns) / (parts * per_part))
        heads.append(len(rows))
    of_heads = tuple(heads) if attention else ()
    return Group(root, tuple(chunks), tuple(means), tuple(shares), graph, attention, of_heads)


def dependency_graph(module: nn.Module, example: Tensor) -> Any:
    """Torch-Pruning's dependency graph of ``module``, which is put in eval mode.

    ``ValueError`` for a network that concatenates channels no weight has made (an edge map) anywhere but behind one tensor
    of features: Torch-Pruning would take wrong channels.
    """
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


def remove(module: nn.Module, groups: Sequence[Group], counts: Mapping[int, int]) -> nn.Module:
    """A copy of ``module``, in which ``groups`` were found, in eval mode and without the first ``counts[g]`` chunks of group g.

    What goes from a layer goes at once: every channel is named as it was numbered when the groups were found.
    """
    import torch_pruning as tp

    copied = copy.deepcopy(module).eval()
    gone: dict[tuple[str, Any], tuple[Any, set[int]]] = {}  # by layer and side (what it reads, what it gives)
    for g, count in counts.items():
        if not count:
            continue
        group = groups[g]
        graph = group.graph
        names = {part: name for name, part in graph.model.named_modules()}
        names |= {parameter: name for name, parameter in graph.model.named_parameters()}
        root = graph.model.get_submodule(group.root)
        cut = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, group.gone(count))
        for dep, channels in cut:
            if dep.target.module in names:  # not an operation between layers
                where = names[dep.target.module], dep.handler
                gone.setdefault(where, (dep.target, set()))[1].update(channels)
        if group.attention is not None:
            set_heads(copied, {group.attention: group.heads[count - 1]})
    for (name, prune), (node, channels) in gone.items():
        prune.__self__.pruning_dim = node.pruning_dim
        if node.type == tp.ops.OPTYPE.PARAMETER:
            path, _, leaf = name.rpartition(".")
            owner = copied.get_submodule(path)
            setattr(owner, leaf, prune(getattr(owner, leaf), sorted(channels)))
        else:
            prune(copied.get_submodule(name), sorted(channels))
    return copied
