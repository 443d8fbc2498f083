"""The stages of a gate, from two sides to judged checks: facts → accuracy → latency, artefact by artefact."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from depthbench.reports.gate import Check, Limit, judge_accuracy, judge_static, static_values
from depthbench.reports.gate_latency import judge_latency
from depthbench.reports.gate_output import GateReport
from depthbench.suites.environment import environment, now
from depthbench.suites.gating.accepted import Accepted
from depthbench.suites.gating.config import ACCURACY, EXACT, Policy, chosen
from depthbench.suites.gating.facts import read_facts
from depthbench.suites.gating.scoring import Scorer, per_image
from depthbench.suites.gating.sources import Artefact, Side
from depthbench.suites.gating.timing import paired
from depthbench.suites.running.exclusion import measuring
from depthbench.suites.targets import TARGETS

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Options:
    """What a user asks of a gate beyond its two sides."""

    policy: Policy = field(default_factory=Policy)
    accepted: Mapping[str, Accepted] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    latency: bool = True
    accuracy: bool = True
    time_identical: bool = False
    data_root: Path | None = None


@dataclass(frozen=True)
class Pair:
    """One artefact of both sides with its facts; ``same`` when the files are byte-identical."""

    name: str
    base: Artefact
    head: Artefact
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def same(self) -> bool:
        """Whether both files have the same bytes."""
        return bool(self.before["sha256"] == self.after["sha256"])


@dataclass(frozen=True)
class Judged:
    """What a gate found: ``values`` the head's by artefact, ``acceptable`` what ``--accept`` would write."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    values: Mapping[str, Mapping[str, Any]]
    attempts: Mapping[str, Sequence[Mapping[str, Any]]]
    acceptable: Mapping[str, Mapping[str, Any]]

    def accepted(self, reason: str) -> Judged:
        """The same after the head's values were accepted."""
        checks = [
            replace(check, state="accepted", message=f"{check.message}; accepted: {reason}")
            if check.artefact in self.acceptable and check.state in ("fail", "follows")
            else check
            for check in self.checks
        ]
        return replace(self, checks=tuple(checks))

    def report(self, base: str, head: str, seconds: float) -> GateReport:
        """The result to be shown."""
        where = {**environment(), "onnxruntime": version("onnxruntime")}
        return GateReport(base, head, self.checks, self.notes, self.values, self.attempts, where, now(), seconds)


def run_gate(base: Side, head: Side, options: Options, progress: Progress) -> Judged:
    """Judge every artefact of both sides; ``ValueError`` when they have none in common."""
    pairs, alone = _pairs(base, head, options.only)
    limits = partial(_limits, options.policy)
    notes = [f"{side.label}: {side.note}" for side in (base, head) if side.note]
    scorer: Scorer | None = None
    if options.accuracy and options.policy.data is not None:
        scorer = Scorer(options.policy.data, options.data_root)
        notes.append(f"accuracy on {scorer.label}")
    checks: list[Check] = list(alone)
    values: dict[str, dict[str, Any]] = {}
    attempts: dict[str, list[Mapping[str, Any]]] = {}
    acceptable: dict[str, dict[str, Any]] = {}
    for i, pair in enumerate(pairs):
        settled = options.accepted.get(pair.name)
        accepted = settled.model_dump() if settled else None
        static = limits(pair.name, (*EXACT, "size"))
        found = judge_static(
            pair.name, pair.before, pair.after, static, allowed=options.policy.operators, accepted=accepted
        )
        values[pair.name] = {**static_values(pair.after)}
        comparable = all(check.state == "pass" for check in found if check.metric in ("shapes", "signature")) or (
            "inputs" not in pair.before or pair.before["inputs"] == pair.after.get("inputs")
        )
        if scorer is not None:
            more, means = _accuracy(pair, base, head, scorer, options, accepted, comparable, progress)
            found += more
            values[pair.name]["accuracy"] = means
        if options.latency:
            layers = next((check.layers for check in found if check.metric == "macs" and check.layers), ())
            check, tried = _latency(pair, base, head, options, settled, comparable, layers, progress)
            found.append(check)
            attempts[pair.name] = tried
            if tried:
                values[pair.name]["latency_ms"] = _median_ms(tried)
        if any(check.state in ("fail", "follows") for check in found):
            acceptable[pair.name] = _acceptable(pair, values[pair.name], found)
        checks += found
        progress("artefacts", i + 1, len(pairs))
    return Judged(tuple(checks), tuple(notes), values, attempts, acceptable)


def _limits(policy: Policy, name: str, metrics: Sequence[str]) -> dict[str, Limit]:
    found = {metric: policy.tolerance(name, metric) for metric in metrics}
    return {metric: Limit(one.tolerance, one.reason) for metric, one in found.items()}


def _pairs(base: Side, head: Side, only: Sequence[str]) -> tuple[list[Pair], list[Check]]:
    """The artefacts of both sides, and a check for each that only one has. Two single files are a pair by any name."""
    before, after = dict(base.artefacts), dict(head.artefacts)
    if len(before) == len(after) == 1 and not (base.missing or head.missing):
        [name] = after
        before = {name: next(iter(before.values()))}
    known = [*dict.fromkeys([*before, *after, *base.missing, *head.missing])]
    names = chosen(known, only)
    alone = []
    for name in names:
        if name in before and name not in after:
            why = head.missing.get(name, "it is not there")
            alone.append(Check(name, "artefact", "ambiguous", f"only the base has it; the head: {why}"))
        elif name not in before:
            why = base.missing.get(name, "it is new")
            alone.append(Check(name, "artefact", "ambiguous", f"nothing to compare with; the base: {why}"))
    both = [name for name in names if name in before and name in after]
    if not both:
        sides = [f"{side.label} has {', '.join(side.artefacts) or 'none'}" for side in (base, head)]
        raise ValueError(f"no artefact in common: {'; '.join(sides)}")
    return [Pair(n, before[n], after[n], _facts(before[n]), _facts(after[n])) for n in both], alone


def _facts(artefact: Artefact) -> Mapping[str, Any]:
    return read_facts(artefact.path) if artefact.path is not None else artefact.stored


def _accuracy(
    pair: Pair,
    base: Side,
    head: Side,
    scorer: Scorer,
    options: Options,
    accepted: Mapping[str, Any] | None,
    comparable: bool,
    progress: Progress,
) -> tuple[list[Check], dict[str, float]]:
    """The accuracy checks of an artefact, and the head's means."""
    if pair.base.path is None or pair.head.path is None:
        scores, why = _stored_scores(pair, base, head)
    elif not comparable:
        scores, why = None, ("skipped", "accuracy: the files take different inputs or give different outputs")
    else:
        told = partial(_tell, progress, f"accuracy of {pair.name}")
        try:
            before = scorer.score(pair.base.path, told)
        except ValueError as error:
            return [Check(pair.name, "accuracy", "skipped", f"accuracy: {error}")], {}
        try:
            scores, why = (before, scorer.score(pair.head.path, told)), None
        except ValueError as error:
            return [Check(pair.name, "accuracy", "fail", f"accuracy: the head cannot be scored: {error}")], {}
    if scores is None:
        assert why is not None
        return [Check(pair.name, "accuracy", why[0], why[1])], {}  # type: ignore[arg-type]
    limits = _limits(options.policy, pair.name, ACCURACY)
    checks = judge_accuracy(
        pair.name, *scores, limits, accepted=accepted, onnxruntime=head.onnxruntime or version("onnxruntime")
    )
    means = {metric: _mean(column) for metric, column in scores[1].items()}
    return checks, means


Scores = dict[str, list[float]]


def _stored_scores(pair: Pair, base: Side, head: Side) -> tuple[tuple[Scores, Scores] | None, tuple[str, str] | None]:
    """Per-image metrics of two runs, when they are of the same images."""
    before, after = pair.base.evaluation, pair.head.evaluation
    if before is None or after is None:
        return None, ("ambiguous", "accuracy: a file is no longer in the cache, and no per-image metrics are stored")
    for key, what in (("dataset_digest", "images"), ("protocol", "protocols")):
        if before[key] != after[key]:
            return None, ("ambiguous", f"accuracy: the runs are of different {what}")
    if base.onnxruntime and head.onnxruntime and base.onnxruntime != head.onnxruntime:
        return None, ("ambiguous", f"accuracy: onnxruntime {base.onnxruntime} against {head.onnxruntime}")
    return (per_image(before), per_image(after)), None


def _latency(
    pair: Pair,
    base: Side,
    head: Side,
    options: Options,
    settled: Accepted | None,
    comparable: bool,
    layers: Sequence[str],
    progress: Progress,
) -> tuple[Check, list[Mapping[str, Any]]]:
    """The latency check of an artefact and the attempts behind it."""
    if pair.base.path is None or pair.head.path is None:
        why = "a stored latency is not compared, and the file is no longer in the cache"
        return Check(pair.name, "latency", "ambiguous", f"latency: {why}"), []
    if pair.same and base.interpreter == head.interpreter and not options.time_identical:
        return Check(pair.name, "latency", "pass", "latency: the same file, the same runtime"), []
    if not comparable:
        return Check(pair.name, "latency", "skipped", "latency: the files take different inputs"), []
    known = settled.latency if settled else None
    holds = known and (known.base, known.head) == (pair.before["structure"], pair.after["structure"])
    [limit] = _limits(options.policy, pair.name, ["latency"]).values()
    tried: list[Mapping[str, Any]] = []
    while True:
        told = partial(_share, progress, f"latency of {pair.name}" + (f", attempt {len(tried) + 1}" if tried else ""))
        with measuring(TARGETS["desktop-cpu"], progress):
            attempt = paired(
                (pair.base.path, base.interpreter),
                (pair.head.path, head.interpreter),
                options.policy.timing,
                seed=len(tried) + time.time_ns() % 1000,
                progress=told,
            )
        tried.append(attempt.to_json())
        check = judge_latency(
            pair.name,
            tried,
            limit,
            layers=layers,
            accepted_ratio=known.ratio if known and holds else None,
            accepted_reason=settled.reason if settled else "",
        )
        if check is not None:
            return check, tried


def _acceptable(pair: Pair, values: Mapping[str, Any], found: Sequence[Check]) -> dict[str, Any]:
    """What the reference would hold for the head's file."""
    slower = next((check for check in found if check.metric == "latency" and check.state == "fail"), None)
    latency = None
    if slower is not None and slower.change is not None:
        ratio = round(1 + slower.change, 3)
        latency = {"ratio": ratio, "base": pair.before["structure"], "head": pair.after["structure"]}
    accuracy = {name: round(value, 6) for name, value in values.get("accuracy", {}).items()}
    return {
        "onnxruntime": version("onnxruntime"),
        **static_values(pair.after),
        "accuracy": accuracy,
        "latency": latency,
    }


def _median_ms(attempts: Sequence[Mapping[str, Any]]) -> float:
    values = sorted(value for attempt in attempts for one in attempt["rounds"] for value in one["head"])
    return float(values[len(values) // 2])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _tell(progress: Progress, stage: str, done: int, total: int) -> None:
    progress(stage, done, total)


def _share(progress: Progress, stage: str, share: float) -> None:
    progress(stage, share, 1.0)
