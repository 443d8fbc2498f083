"""The sentence that each cause of :mod:`depthbench.suites.explaining.causes` is told in: the fact, a colon, what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from depthbench.suites.explaining.kernels import CLASSES, Kernel, base_operator

if TYPE_CHECKING:
    from depthbench.suites.explaining.causes import Pair

_FUSIBLE = frozenset({"Add", "AveragePool", "Conv", "Gemm", "MatMul", "Mul", "Sigmoid", "Softmax"})
"""Operators of which ONNX Runtime has an INT8 kernel: in floating point they are there for another reason."""


def neighbours(kernels: Sequence[Kernel], conversions: Iterable[Kernel]) -> list[str]:
    """The operators that conversions stand around, those first that most of them touch.

    Of what lies before and behind a conversion (other conversions passed over), operators that are no products come first.
    """
    makers = {name: kernel for kernel in kernels for name in kernel.outputs}
    readers: defaultdict[str, list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        for name in kernel.inputs:
            readers[name].append(kernel)
    touched: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for conversion in conversions:
        ends = {
            *_ends(conversion, lambda kernel: [makers[name] for name in kernel.inputs if name in makers]),
            *_ends(conversion, lambda kernel: [reader for name in kernel.outputs for reader in readers[name]]),
        }
        for op, product in ends:
            (products if product else touched)[op] += 1
    return [op for op, _ in (touched or products).most_common()]


def _ends(start: Kernel, step: Callable[[Kernel], Sequence[Kernel]]) -> set[tuple[str, bool]]:
    """(Operator, whether it is a product) of the first kernels in one direction that are no conversions."""
    seen = {id(start)}
    open_ = list(step(start))
    found = set()
    while open_:
        kernel = open_.pop()
        if id(kernel) in seen:
            continue
        seen.add(id(kernel))
        if kernel.is_conversion:
            open_ += step(kernel)
        else:
            found.add((base_operator(kernel.op), kernel.is_product))
    return found


def _operators(kernels: Sequence[Kernel], most: int = 2) -> str:
    """The operators that took longest, in words: ``Resize and Concat``."""
    time: Counter[str] = Counter()
    for kernel in kernels:
        time[base_operator(kernel.op)] += kernel.ms  # type: ignore[assignment]
    return " and ".join(op for op, _ in time.most_common(most))


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"


def _of_time(pair: Pair, share: float) -> str:
    return f"{share:.0%} of the {pair.label} time" if pair.label != "child" else f"{share:.0%} of the child's time"


def _conversions(pair: Pair, nodes: Sequence[Kernel], share: float) -> str:
    kinds = {"quantize": "Quantize/Dequantize", "reorder": "Reorder"}
    words = "/".join(kinds[kind] for kind in dict.fromkeys(kernel.kind for kernel in nodes))
    around = neighbours(pair.child, nodes)[:2]
    place = f" around the {' and '.join(around)} nodes" if around else ""
    only = around[0] if around else "the operators between them"
    return (
        f"{_of_time(pair, share)} goes into {len(nodes)} {words} node{'' if len(nodes) == 1 else 's'}{place}: let {only} "
        "run on the numbers and the layout of its neighbours (one scale for its input and output), or keep the whole "
        "stretch in floating point."
    )


def _float(pair: Pair, nodes: Sequence[Kernel], share: float) -> str:
    first = base_operator(nodes[0].op)
    same = [kernel for kernel in nodes if base_operator(kernel.op) == first]
    part = sum(kernel.ms for kernel in same) / pair.child_ms
    between = ", in the middle of the INT8 ones" if _enclosed(pair.child, same) else ""
    remedy = f"quantize or replace {first}; what surrounds it gains little"
    if first in _FUSIBLE:
        remedy = f"give {first} scales and types that the runtime fuses into its INT8 kernel, or leave it unquantized"
    return (
        f"{_of_time(pair, share)} goes into operators that stayed in floating point{between}, most of it into {first} "
        f"({_nodes(len(same))}, {part:.0%}): {remedy}."
    )


def _enclosed(kernels: Sequence[Kernel], nodes: Sequence[Kernel]) -> bool:
    """Whether INT8 kernels run both before and after the first of some nodes."""
    place = next(i for i, kernel in enumerate(kernels) if kernel is nodes[0])
    sides = (kernels[:place], kernels[place + 1 :])
    return all(any(kernel.precision == "int8" and kernel.is_product for kernel in side) for side in sides)


def _memory(pair: Pair, nodes: Sequence[Kernel], share: float) -> str:
    reached = sum(kernel.ideal_ms for kernel in nodes) / max(sum(kernel.ms for kernel in nodes), 1e-9)
    remedy = "keep these tensors in INT8, fuse the operators, or lower the resolution there"
    if pair.precision == "fp32":
        remedy = "fuse these operators or lower the resolution there"
    return (
        f"{_of_time(pair, share)} is bound by memory, in {_operators(nodes)} ({_nodes(len(nodes))}, at "
        f"{min(reached, 1):.0%} of the attainable bandwidth): cheaper arithmetic cannot shorten it; {remedy}."
    )


def _launch(pair: Pair, nodes: Sequence[Kernel], share: float) -> str:
    each = sum(kernel.ms for kernel in nodes) / len(nodes) * 1e3
    return (
        f"{_of_time(pair, share)} goes into launching {len(nodes)} small kernels ({each:.0f} µs each, mostly "
        f"{_operators(nodes)}): only fewer and larger operators help, neither fewer MACs nor fewer bits."
    )


def _padding(pair: Pair, nodes: Sequence[Kernel], share: float) -> str:
    useful = sum(kernel.useful_macs for kernel in nodes) / max(sum(kernel.macs for kernel in nodes), 1)
    worst = max(nodes, key=lambda kernel: kernel.ms * (1 - kernel.useful_macs / max(kernel.macs, 1)))
    return (
        f"{_of_time(pair, share)} goes into {len(nodes)} layers with channels off the grid of {pair.block}, which execute "
        f"{1 - useful:.0%} of their MACs on padding ({worst.name}: {worst.channels} channels run as {worst.executed}): "
        f"prune to multiples of {pair.block}."
    )


def _unchanged(pair: Pair, nodes: Sequence[Kernel], share: float) -> str:
    return (
        f"{_of_time(pair, share)} goes into {len(nodes)} layers whose multiply-accumulates did not fall, most of it into "
        f"{nodes[0].name}: compress these layers, the others gain little."
    )


def _slow(pair: Pair, nodes: Sequence[Kernel], _: float) -> str:
    gain = pair.gains.get(pair.precision, 1.0)
    sides = {kind: tuple([k for k in side if k.kind == kind] for side in (nodes, pair.parent)) for kind in CLASSES}
    lost = {kind: _ms(own) - _ms(theirs) / gain for kind, (own, theirs) in sides.items() if own}
    kind = max(lost, key=lambda name: lost[name])
    own, theirs = sides[kind]
    name = "kernel" if pair.label == "child" else f"{pair.label} kernel"
    remedy = "the runtime has no faster kernels for these shapes"
    if _ms(own) >= _ms(theirs) and pair.precision != "fp32":
        remedy = "leave these layers in floating point, where they are no slower"
    return (
        f"{_of_time(pair, _ms(own) / pair.child_ms)} goes into {len(own)} {name}{'' if len(own) == 1 else 's'} of class "
        f"{CLASSES[kind]} at {_reached(own):.0%} of the attainable rate (the parent's: {_reached(theirs):.0%}), most time lost "
        f"in {own[0].name}: {remedy}."
    )


def _ms(kernels: Iterable[Kernel]) -> float:
    return sum(kernel.ms for kernel in kernels)


def _reached(kernels: Sequence[Kernel]) -> float:
    return min(1.0, sum(kernel.ideal_ms for kernel in kernels) / max(sum(kernel.ms for kernel in kernels), 1e-9))


SENTENCES: Mapping[str, Callable[[Pair, Sequence[Kernel], float], str]] = {
    "conversions": _conversions,
    "float operators": _float,
    "memory": _memory,
    "launch": _launch,
    "padding": _padding,
    "unchanged layers": _unchanged,
    "kernels": _slow,
}
