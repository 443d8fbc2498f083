"""Judging paired latency: head against two processes of the base, round by round, with a second attempt before failing.

An attempt is ``{"rounds": [{"base", "control", "head": medians in ms of two blocks, "clean": bool, ...}], "onnxruntime":
[base's, head's], ...}``. Base and control run the same file: together they are what the head is compared with, and the
difference between them is what this machine calls a difference today; it may only widen the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, log1p
from typing import Any, Literal

import numpy as np

from depthbench.reports import stats
from depthbench.reports.gate import Check, Limit, State

MAX_ATTEMPTS = 3
CONTROL_FACTOR = 1.5
"""The threshold is at least this many times the difference between the two processes of the base."""

Attempt = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """What one attempt says. ``ratio`` and ``interval``: head over base, as a relative change; ``control``: base over base.

    ``quiet``: within the tolerance. ``slower``: beyond the widened threshold, and the interval excludes 0. ``unsure``: between
    the two. ``contaminated``: beyond the tolerance, but the machine was busy with something else, or the two processes of the
    base differ by more than the tolerance.
    """

    state: Literal["quiet", "slower", "unsure", "contaminated"]
    change: float
    interval: tuple[float, float]
    control: float
    threshold: float
    base_ms: float
    head_ms: float
    clean: int
    rounds: int
    foreign_cores: float


def read_attempt(attempt: Attempt, tolerance: float) -> Reading:
    """The reading of one attempt: over its clean rounds when there are enough for an interval, else over all."""
    rounds: Sequence[Mapping[str, Any]] = attempt["rounds"]
    clean = [one for one in rounds if one["clean"]]
    enough = len(clean) >= stats.MIN_FOR_INTERVAL
    used = clean if enough else rounds
    logs = {arm: np.log([one[arm] for one in used]).mean(axis=1) for arm in ("base", "control", "head")}  # (R,)
    ratios = logs["head"] - (logs["base"] + logs["control"]) / 2
    change = float(np.median(ratios))
    control = float(np.median(logs["control"] - logs["base"]))
    low, high = stats.median_interval(ratios)
    threshold = max(log1p(tolerance), CONTROL_FACTOR * abs(control))
    state: Literal["quiet", "slower", "unsure", "contaminated"]
    if change <= log1p(tolerance):
        state = "quiet"
    elif not enough or abs(control) > log1p(tolerance):
        state = "contaminated"
    else:
        state = "slower" if change > threshold and low > 0 else "unsure"
    return Reading(
        state=state,
        change=expm1(change),
        interval=(expm1(low), expm1(high)),
        control=expm1(control),
        threshold=expm1(threshold),
        base_ms=float(np.median([one[arm] for one in used for arm in ("base", "control")])),
        head_ms=float(np.median([one["head"] for one in used])),
        clean=len(clean),
        rounds=len(rounds),
        foreign_cores=float(np.median([one["foreign_cores"] for one in rounds])),
    )


def settled(readings: Sequence[Reading]) -> State | None:
    """The outcome of the attempts so far; None when another one with fresh processes is needed.

    Fails only when two attempts found it slower; one that finds it quiet ends the matter.
    """
    states = [reading.state for reading in readings]
    if states.count("slower") >= 2:
        return "fail"
    if "quiet" in states:
        return "ambiguous" if {"slower", "unsure"} & set(states) else "pass"
    if len(states) < MAX_ATTEMPTS:
        return None
    return "contaminated" if "contaminated" in states else "ambiguous"


def judge_latency(
    artefact: str,
    attempts: Sequence[Attempt],
    limit: Limit,
    *,
    layers: Sequence[str] = (),
    accepted_ratio: float | None = None,
    accepted_reason: str = "",
) -> Check | None:
    """The latency check of one artefact, or None when another attempt is needed.

    ``accepted_ratio``: head over base that a person accepted for this very change.
    """
    readings = [read_attempt(attempt, limit.tolerance) for attempt in attempts]
    state = settled(readings)
    if state is None:
        return None
    decisive = max(readings, key=lambda one: (one.state == "slower", one.state == "quiet", one.clean))
    low, high = decisive.interval
    told = (
        f"latency: {decisive.base_ms:.3g} → {decisive.head_ms:.3g} ms ({decisive.change:+.1%}, 95 % interval {low:+.1%} to "
        f"{high:+.1%}; the base against itself {decisive.control:+.1%})"
    )
    check = Check(
        artefact,
        "latency",
        state,
        told,
        base=f"{decisive.base_ms:.3g} ms",
        head=f"{decisive.head_ms:.3g} ms",
        change=decisive.change,
        interval=decisive.interval,
        layers=tuple(layers),
        tolerance=limit.tolerance,
        reason=limit.reason,
    )
    state, why = _explain(state, decisive, attempts, limit, accepted_ratio, accepted_reason)
    return replace(check, state=state, message=f"{told}{why}")


def _explain(
    state: State,
    decisive: Reading,
    attempts: Sequence[Attempt],
    limit: Limit,
    accepted_ratio: float | None,
    accepted_reason: str,
) -> tuple[State, str]:
    """The final state, and the words that give its reason."""
    versions = attempts[0]["onnxruntime"]
    busy = (
        f"other processes used {decisive.foreign_cores:.1f} cores ({decisive.clean} of {decisive.rounds} rounds clean)"
    )
    if state == "fail":
        slower = f": slower by more than {decisive.threshold:.1%} in {len(attempts)} attempts"
        if accepted_ratio is not None and (1 + decisive.change) / accepted_ratio <= 1 + limit.tolerance:
            return "accepted", f"; accepted: {accepted_reason}"
        if versions[0] != versions[1]:
            return (
                "ambiguous",
                f"{slower}, but onnxruntime is {versions[0]} for the base and {versions[1]} for the head",
            )
        return "fail", slower
    if state == "pass":
        return "pass", "" if decisive.clean >= stats.MIN_FOR_INTERVAL else f"; {busy}"
    if state == "contaminated":
        return "contaminated", f": cannot be judged, {busy}"
    return "ambiguous", f": beyond {limit.tolerance:.0%} once, and it did not recur"
