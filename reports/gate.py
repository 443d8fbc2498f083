"""Judging two sets of artefacts: exact counts, file size, paired accuracy. Latency is :mod:`depthbench.reports.gate_latency`'s.

Values come as JSON-ready facts of both files (``params``, ``macs``, ...); nothing here reads or runs an artefact. What a
change brings with it is not reported as a second failure: a wider channel fails ``params``, and ``macs``, ``activation_peak``
and ``size`` are said to follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from depthbench.reports import stats
from depthbench.reports.gate_layers import LayerChange, layer_changes

Verdict = Literal["pass", "fail", "ambiguous", "contaminated"]
State = Literal["pass", "fail", "ambiguous", "contaminated", "accepted", "follows", "skipped"]
EXIT_CODES: Mapping[Verdict, int] = {"pass": 0, "ambiguous": 0, "fail": 1, "contaminated": 3}

HIGHER_IS_BETTER = frozenset({"delta1"})
ACCURACY = ("rmse_m", "abs_rel", "delta1")
NAMED_LAYERS = 4
"""A message names at most this many layers and counts the others."""

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Limit:
    """How far a metric may move, as a share of the base's value, and why."""

    tolerance: float
    reason: str


@dataclass(frozen=True)
class Check:
    """One metric of one artefact. ``change`` is relative to the base; ``interval`` its bootstrap 95 % interval."""

    artefact: str
    metric: str
    state: State
    message: str
    base: str = ""
    head: str = ""
    change: float | None = None
    interval: tuple[float, float] | None = None
    layers: tuple[str, ...] = ()
    tolerance: float | None = None
    reason: str = ""


def overall(checks: Sequence[Check]) -> Verdict:
    """The worst of all: fail, then contaminated, then ambiguous, then pass."""
    order: tuple[Verdict, ...] = ("fail", "contaminated", "ambiguous")
    states = {check.state for check in checks}
    return next((verdict for verdict in order if verdict in states), "pass")


def static_values(facts: Facts) -> dict[str, Any]:
    """The value of each exact check and the file's size; a stored run's record lacks ``shapes`` and ``signature``."""
    names = {"activation_peak": "peak_activation_bytes", "size": "size_bytes"}
    plain = ("params", "macs", "activation_peak", "nodes", "quantized_nodes", "operators", "size")
    values = {name: facts[names.get(name, name)] for name in plain}
    if "inputs" in facts:
        ports = [*(("input", one) for one in facts["inputs"]), *(("output", one) for one in facts["outputs"])]
        values["shapes"] = [f"{way} {i}: {'x'.join(map(str, one['shape']))}" for i, (way, one) in enumerate(ports)]
        values["signature"] = [f"{way} {one['name']}: {one['type']}" for way, one in ports]
    return values


def judge_static(
    artefact: str,
    base: Facts,
    head: Facts,
    limits: Mapping[str, Limit],
    *,
    allowed: Sequence[str] | None = None,
    accepted: Mapping[str, Any] | None = None,
) -> list[Check]:
    """The exact checks and the file size of one artefact.

    ``allowed``: operators that a file may use; without it, those that the base uses. ``accepted``: values of this artefact
    that a person accepted, by metric, and their ``reason``.
    """
    before, after = static_values(base), static_values(head)
    changes = layer_changes(base["layers"], head["layers"]) if "layers" in base and "layers" in head else []
    checks: dict[str, Check] = {}
    for metric, limit in limits.items():
        if metric == "operators":
            checks[metric] = _operators(artefact, before[metric], after[metric], head, allowed, limit)
        elif metric not in before or metric not in after:
            checks[metric] = Check(artefact, metric, "skipped", f"{metric}: not in the record of a stored run")
        else:
            checks[metric] = _compare(artefact, metric, before[metric], after[metric], limit, changes)
        if checks[metric].state == "fail" and accepted and accepted.get(metric) == after.get(metric):
            why = f"{checks[metric].message}; accepted: {accepted['reason']}"
            checks[metric] = replace(checks[metric], state="accepted", message=why)
    failing = {metric for metric, check in checks.items() if check.state == "fail"}
    for metric in failing:
        cause = _cause(metric, failing, changes, base, head, limits[metric].tolerance)
        if cause is not None:
            why = f"{checks[metric].message}; follows from {cause}"
            checks[metric] = replace(checks[metric], state="follows", message=why)
    return list(checks.values())


def _compare(
    artefact: str, metric: str, before: Any, after: Any, limit: Limit, changes: Sequence[LayerChange]
) -> Check:
    check = Check(
        artefact, metric, "pass", f"{metric}: unchanged", _text(before), _text(after), tolerance=limit.tolerance
    )
    if before == after:
        return check
    if isinstance(before, int):
        moved = (after - before) / before if before else math.inf
        detail = f"{before:,} → {after:,}" + (f" ({moved:+.2%})" if before else "")
    elif isinstance(before, Mapping):
        counts = {op: after.get(op, 0) - before.get(op, 0) for op in sorted({*before, *after})}
        counts = {op: count for op, count in counts.items() if count}
        moved = sum(abs(count) for count in counts.values()) / sum(before.values())
        detail = ", ".join(f"{op} {count:+d}" for op, count in counts.items())
        check = replace(check, base=str(sum(before.values())), head=str(sum(after.values())))
    else:
        moved = math.inf
        gone, new = [one for one in before if one not in after], [one for one in after if one not in before]
        detail = f"{', '.join(gone) or 'nothing'} → {', '.join(new) or 'nothing'}" if gone or new else "another order"
    concerned = [change for change in changes if change.concerns(metric)]
    layers = tuple(change.name for change in concerned) if metric not in ("shapes", "signature") else ()
    where = _name_layers([change.describe(metric) for change in concerned]) if layers else ""
    return replace(
        check,
        state="pass" if moved != math.inf and abs(moved) <= limit.tolerance else "fail",
        message=f"{metric}: {detail}{where}",
        change=None if moved == math.inf else moved,
        layers=layers,
        reason=limit.reason,
    )


def _operators(
    artefact: str,
    before: Sequence[str],
    after: Sequence[str],
    head: Facts,
    allowed: Sequence[str] | None,
    limit: Limit,
) -> Check:
    known = set(before if allowed is None else allowed)
    outside = [op for op in after if op not in known]
    check = Check(artefact, "operators", "pass", "operators: all allowed", str(len(before)), str(len(after)))
    if not outside:
        return check
    layers = [layer for layer in head.get("layers", ()) if layer["op"] in outside]
    where = _name_layers([f"{layer['name']} ({layer['op']})" for layer in layers])
    whose = "the base uses" if allowed is None else "the allow-list has"
    return replace(
        check,
        state="fail",
        message=f"operators: {', '.join(outside)} not among those that {whose}{where}",
        layers=tuple(layer["name"] for layer in layers),
        reason=limit.reason,
    )


_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def _cause(
    metric: str, failing: set[str], changes: Sequence[LayerChange], base: Facts, head: Facts, tolerance: float
) -> str | None:
    """The failing check that explains this one, or None when it stands for itself."""
    explains = {
        "macs": _explains_macs,
        "nodes": _explains_nodes,
        "activation_peak": _explains_peak,
        "size": _explains_size,
    }
    if metric not in explains:
        return None
    causes = explains[metric](changes, base, head, tolerance)
    return next((cause for cause in causes if cause in failing), None)


def _explains_macs(changes: Sequence[LayerChange], _base: Facts, head: Facts, _tolerance: float) -> tuple[str, ...]:
    """Other input sizes, or other widths: of the very layers, or of layers that they read from."""
    reached = {change.name for change in changes if change.params}
    for layer in head.get("layers", ()):
        if reached.intersection(layer["reads"]):
            reached.add(layer["name"])
    elsewhere = [change for change in changes if change.macs and change.name not in reached]
    return ("shapes",) if elsewhere else ("shapes", "params")


def _explains_nodes(changes: Sequence[LayerChange], base: Facts, head: Facts, _tolerance: float) -> tuple[str, ...]:
    """Quantizers that came or went, or operators put in others' places."""
    ops = {*base["nodes"], *head["nodes"]}
    differing = {op for op in ops if base["nodes"].get(op) != head["nodes"].get(op)}
    new = set(head["operators"]) - set(base["operators"])
    concerned = [change for change in changes if change.concerns("nodes")]
    replaced = concerned and all(change.what == "changed" and change.op[1] in new for change in concerned)
    return (*(("quantized_nodes",) if differing <= _QUANTIZERS else ()), *(("operators",) if replaced else ()))


def _explains_peak(_changes: Sequence[LayerChange], _base: Facts, _head: Facts, _tolerance: float) -> tuple[str, ...]:
    return ("shapes", "signature", "params", "macs", "nodes", "quantized_nodes", "operators")


def _explains_size(changes: Sequence[LayerChange], base: Facts, head: Facts, tolerance: float) -> tuple[str, ...]:
    """Weights that came or went, up to what the nodes' names and attributes take."""
    if "weight_bytes" not in base or "weight_bytes" not in head:
        return ()
    weights = head["weight_bytes"] - base["weight_bytes"]
    unexplained = abs(head["size_bytes"] - base["size_bytes"] - weights)
    slack = tolerance * base["size_bytes"] + 1024 * len(changes)
    return ("params", "quantized_nodes", "nodes", "operators") if unexplained <= slack else ()


def judge_accuracy(
    artefact: str,
    base: Mapping[str, Sequence[float]],
    head: Mapping[str, Sequence[float]],
    limits: Mapping[str, Limit],
    *,
    accepted: Mapping[str, Any] | None = None,
    onnxruntime: str = "",
) -> list[Check]:
    """Per-image values of both files on the same images, judged in pairs and on both sides.

    A gain beyond the tolerance stops too: the reference is stale, and what comes after would be held against old values.
    """
    return [
        _accuracy(
            artefact, metric, np.asarray(base[metric]), np.asarray(head[metric]), limits[metric], accepted, onnxruntime
        )
        for metric in limits
        if metric in base and metric in head
    ]


def _accuracy(
    artefact: str,
    metric: str,
    base: Any,
    head: Any,
    limit: Limit,
    accepted: Mapping[str, Any] | None,
    onnxruntime: str,
) -> Check:
    scored = ~(np.isnan(base) | np.isnan(head))
    base, head = base[scored], head[scored]
    check = Check(artefact, metric, "ambiguous", "", tolerance=limit.tolerance, reason=limit.reason)
    if len(base) < stats.MIN_FOR_INTERVAL:
        return replace(check, message=f"{metric}: {len(base)} images are too few for an interval")
    before, after = float(base.mean()), float(head.mean())
    scale = abs(before) or 1.0
    low, high = (end / scale for end in stats.mean_interval(head - base))
    change = (after - before) / scale
    check = replace(check, base=f"{before:.4f}", head=f"{after:.4f}", change=change, interval=(low, high))
    told = f"{metric}: {before:.4f} → {after:.4f} ({change:+.2%}, 95 % interval {low:+.2%} to {high:+.2%})"
    if abs(change) <= limit.tolerance:
        return replace(check, state="pass", message=told)
    if low <= 0 <= high:
        return replace(check, message=f"{told}: beyond {limit.tolerance:.1%}, but not sure on {len(base)} images")
    settled = (accepted or {}).get("accuracy", {}).get(metric)
    if accepted and settled is not None:
        if abs(after - settled) / (abs(settled) or 1.0) <= limit.tolerance:
            return replace(check, state="accepted", message=f"{told}; accepted: {accepted['reason']}")
        if accepted["onnxruntime"] != onnxruntime:
            versions = f"accepted under onnxruntime {accepted['onnxruntime']}, this is {onnxruntime}"
            return replace(check, message=f"{told}: the reference was {versions}; accept it again")
    better = (change > 0) == (metric in HIGHER_IS_BETTER)
    why = "better than the base by more than the tolerance: the reference is stale, settle it with --accept"
    return replace(
        check, state="fail", message=f"{told}: {why}" if better else f"{told}: worse than {limit.tolerance:.1%}"
    )


def _name_layers(names: Sequence[str]) -> str:
    more = len(names) - NAMED_LAYERS
    shown = ", ".join(names[:NAMED_LAYERS])
    return f" in {shown}{f' and {more} more' if more > 0 else ''}" if names else ""


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(len(value))
