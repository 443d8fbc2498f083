"""Which layers two ONNX graphs differ in: their nodes aligned, and what changed in each, from the facts of both files.

A layer is an entry of ``facts["layers"]`` (``name``, ``op``, ``macs``, ``params``, ``shared``, ``quantized``, ``shape``,
``dtype``, ``reads``). Nodes are aligned by what they are and where they stand, so that one inserted node does not make
strangers of all that an exporter numbers after it; those left over are matched by name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class LayerChange:
    """One layer that differs. ``macs`` and ``params`` are head minus base; ``quantized`` is +1, 0 or -1."""

    name: str
    what: Literal["added", "removed", "changed"]
    op: tuple[str | None, str | None]
    macs: int
    params: int
    quantized: int
    output: tuple[str, str]
    moved: bool = False
    rewired: bool = False
    unshared: bool = False

    def describe(self, metric: str) -> str:
        """The layer's name with what this check is about: ``head.conv.Conv (+1,152 params)``."""
        return f"{self.name} ({self._detail(metric)})"

    def _detail(self, metric: str) -> str:
        """The first that applies: what the check is about, then what is most visible of the change."""
        params = f"{self.params:+,} params" + (", no longer shared" if self.unshared else "")
        stands = self.what == "changed"
        details = (
            (metric in ("params", "size") and self.params != 0, params),
            (metric == "macs" and self.macs != 0, f"{self.macs:+,} MACs"),
            (metric == "quantized_nodes" and self.quantized > 0, "now in INT8"),
            (metric == "quantized_nodes" and self.quantized < 0, "no longer in INT8"),
            (not stands, f"{self.what} {self.op[self.what == 'added']}"),
            (self.op[0] != self.op[1], f"{self.op[0]} → {self.op[1]}"),
            (self.output[0] != self.output[1], f"{self.output[0]} → {self.output[1]}"),
            (self.params != 0, params),
            (self.moved, "moved"),
            (True, "reads other layers"),
        )
        return next(text for applies, text in details if applies)

    def concerns(self, metric: str) -> bool:
        """Whether this change bears on a check."""
        reshaped = self.what != "changed" or self.output[0] != self.output[1] or self.moved or self.rewired
        bears = {
            "params": self.params != 0,
            "macs": self.macs != 0,
            "quantized_nodes": self.quantized != 0,
            "nodes": self.what != "changed" or self.op[0] != self.op[1],
            "activation_peak": reshaped,
            "size": self.params != 0 or self.what != "changed",
        }
        return bears.get(metric, True)


def layer_changes(base: Sequence[Layer], head: Sequence[Layer]) -> list[LayerChange]:
    """The layers that differ, in the head's order, removed ones where they stood."""
    pairs, removed, added = _align(base, head)
    place = {after: before for before, after in pairs}
    names = {base[before]["name"]: head[after]["name"] for before, after in pairs}
    found: list[tuple[float, LayerChange]] = []
    order = sorted(pairs, key=lambda pair: pair[1])
    kept = _in_order([before for before, _ in order])
    for before, after in order:
        change = _change(base[before], head[after], names, moved=before not in kept)
        if change is not None:
            found.append((after, change))
    for after in added:
        found.append((after, _alone(head[after], 1)))
    for before in removed:
        earlier = [after for after, other in place.items() if other < before]
        found.append((max(earlier, default=-1) + 0.5, _alone(base[before], -1)))
    return [change for _, change in sorted(found, key=lambda entry: entry[0])]


def _align(base: Sequence[Layer], head: Sequence[Layer]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Index pairs of layers that correspond, and the indices of those left over in base and in head.

    First what is equal where it stands, then what has the same name, then what is alike but for its weights and module,
    then an operator put in another's place.
    """
    pairs = _match(base, head, range(len(base)), range(len(head)), _token)
    for key in (lambda one: (one["name"], one["op"]), lambda one: (one["op"], tuple(one["shape"]), one["dtype"])):
        left, right = _left(pairs, base, head)
        pairs += _match(base, head, left, right, key)
    left, right = _left(pairs, base, head)
    after = dict(pairs)
    for i in left:
        stands = after.get(i - 1, -1) + 1
        if stands in right and all(base[i][field] == head[stands][field] for field in ("shape", "dtype")):
            pairs.append((i, stands))
            after[i] = stands
    return (pairs, *_left(pairs, base, head))


def _match(
    base: Sequence[Layer],
    head: Sequence[Layer],
    left: Sequence[int],
    right: Sequence[int],
    key: Callable[[Layer], tuple[Any, ...]],
) -> list[tuple[int, int]]:
    """Pairs of the given indices with equal keys, in a common order."""
    matcher = SequenceMatcher(None, [key(base[i]) for i in left], [key(head[i]) for i in right], autojunk=False)
    blocks = matcher.get_matching_blocks()
    return [(left[block.a + k], right[block.b + k]) for block in blocks for k in range(block.size)]


def _left(
    pairs: Sequence[tuple[int, int]], base: Sequence[Layer], head: Sequence[Layer]
) -> tuple[list[int], list[int]]:
    old, new = {before for before, _ in pairs}, {after for _, after in pairs}
    return [i for i in range(len(base)) if i not in old], [i for i in range(len(head)) if i not in new]


def _token(layer: Layer) -> tuple[Any, ...]:
    fields = ("op", "macs", "params", "shared", "quantized", "dtype")
    return (_scope(layer), tuple(layer["shape"]), *(layer[name] for name in fields))


def _scope(layer: Layer) -> str:
    return str(layer["name"]).rpartition(".")[0]


def _in_order(values: Sequence[int]) -> set[int]:
    """The members of a longest increasing subsequence of distinct values: what did not move."""
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for value in values:
        place = bisect_left(tails, value)
        before[value] = tails[place - 1] if place else None
        tails[place : place + 1] = [value]
    member = tails[-1] if tails else None
    kept = set()
    while member is not None:
        kept.add(member)
        member = before[member]
    return kept


def _change(base: Layer, head: Layer, names: Mapping[str, str], *, moved: bool) -> LayerChange | None:
    rewired = sorted(names.get(read, read) for read in base["reads"]) != sorted(head["reads"])
    if _token(base)[1:] == _token(head)[1:] and not moved and not rewired:
        return None
    return LayerChange(
        name=head["name"],
        what="changed",
        op=(base["op"], head["op"]),
        macs=head["macs"] - base["macs"],
        params=head["params"] - base["params"],
        quantized=int(head["quantized"]) - int(base["quantized"]),
        output=(_output(base), _output(head)),
        moved=moved,
        rewired=rewired,
        unshared=base["shared"] > head["shared"],
    )


def _alone(layer: Layer, sign: Literal[-1, 1]) -> LayerChange:
    return LayerChange(
        name=layer["name"],
        what="added" if sign > 0 else "removed",
        op=(None, layer["op"]) if sign > 0 else (layer["op"], None),
        macs=sign * layer["macs"],
        params=sign * layer["params"],
        quantized=sign * int(layer["quantized"]),
        output=("", _output(layer)) if sign > 0 else (_output(layer), ""),
    )


def _output(layer: Layer) -> str:
    return f"{'x'.join(map(str, layer['shape']))} {layer['dtype']}"
