"""The measuring of a run's files on one target, as a worker carries it out, and why a form of a network is hardly faster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from depthbench.compression.recipes import Recipe
from depthbench.suites.compressing import network
from depthbench.suites.models import ModelSpec
from depthbench.suites.names import lookup
from depthbench.suites.running.execution import described
from depthbench.suites.running.stage_calls import Report, at_home, stored_here
from depthbench.suites.source import DataSource
from depthbench.suites.stages import Artefact
from depthbench.suites.storage.disk import FullDiskError
from depthbench.suites.targets import TARGETS, Target
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.measuring import Work, measure_group

if TYPE_CHECKING:
    from torch import nn

EXPLAINED = ("desktop-cpu", "desktop-cpu-all")
"""Targets on which a form that is hardly faster than its parent is explained at once."""

EXPLAIN_S = 1.0
EXPLAIN_SHARE = 0.5
"""Explaining takes at most this share of the time that measuring took; what is left is said by the report."""


@dataclass(frozen=True)
class Measurable:
    """A file to be measured, and the network it was made from, for targets that run the network itself."""

    made: Artefact
    model: ModelSpec
    recipe: Recipe
    source: DataSource

    def work(self) -> Work:
        """As the target takes it."""
        made = stored_here(self.made)
        build = None if self.model.kind == "onnx" else partial(_module, self.model, self.recipe, self.source)
        return Work(made.path, made.precision, made.size, build)


@dataclass
class Measured:
    """What measuring came to, an outcome a file; ``explanations``: by place, of files hardly faster than their parent."""

    outcomes: list[Outcome]
    explanations: dict[int, dict[str, Any]] = field(default_factory=dict)


def measure(
    target: str | Target,
    files: Sequence[Measurable],
    profile: str,
    batches: Sequence[int] = (),
    report: Report | None = None,
) -> Measured:
    """Measure files on a target, interleaved with each other; one outcome each, in their order.

    ``target``: by name, as this machine knows it; or itself, when its board stands in a suite.

    What fails is measured once more: those files that have a reason of their own together, and all of them each alone when
    the measurement as a whole failed.
    """
    started = time.monotonic()
    work = [file.work() for file in files]
    places = list(range(len(work)))
    outcomes, whole = _outcomes(target, work, profile, batches, report)
    failed = [place for place in places if outcomes[place].latency is None]
    for again in [[place] for place in failed] if whole else [failed] if failed else []:
        second, _ = _outcomes(target, [work[place] for place in again], profile, batches, None)
        for place, outcome in zip(again, second, strict=True):
            outcomes[place] = outcome
    spent = time.monotonic() - started
    if not isinstance(target, str) or target not in EXPLAINED:
        return Measured(outcomes)
    return Measured(outcomes, _explanations(target, files, outcomes, EXPLAIN_SHARE * spent))


def parents(files: Sequence[Measurable]) -> dict[int, int]:
    """By place, the FP32 file of the same network, as it is, in the same size; for the files that are not it."""
    plain = {
        (file.model.name, file.model.digest, file.made.size): place
        for place, file in enumerate(files)
        if not file.recipe.steps and file.made.precision == "fp32"
    }
    found = {place: plain.get((file.model.name, file.model.digest, file.made.size)) for place, file in enumerate(files)}
    return {place: parent for place, parent in found.items() if parent is not None and parent != place}


def _explanations(
    target: str, files: Sequence[Measurable], outcomes: Sequence[Outcome], seconds: float
) -> dict[int, dict[str, Any]]:
    from depthbench.suites.explain import PAYS, explain

    medians = [np.median(each.latency.samples_ms) if each.latency is not None else None for each in outcomes]
    found: dict[int, dict[str, Any]] = {}
    started, longest = time.monotonic(), 2 * EXPLAIN_S
    for place, parent in parents(files).items():
        before, after = medians[parent], medians[place]
        if before is None or after is None or before / after >= PAYS:
            continue
        begun = time.monotonic()
        if begun - started + longest > seconds:
            break
        paths = [stored_here(files[each].made).path for each in (parent, place)]
        names = (f"{files[place].model.name}:fp32", f"{files[place].model.name}:{files[place].recipe.name}")
        try:
            found[place] = explain(*paths, target=target, names=names, seconds=EXPLAIN_S).to_json()
        except Exception as error:  # the cell is measured all the same; its record says that this failed
            found[place] = {"error": described(error), "sentences": []}
        longest = max(longest, time.monotonic() - begun)
    return found


def _outcomes(
    target: str | Target, work: Sequence[Work], profile: str, batches: Sequence[int], report: Report | None
) -> tuple[list[Outcome], bool]:
    """An outcome each, and whether the measurement failed as a whole."""
    try:
        chosen = lookup("target", target, TARGETS) if isinstance(target, str) else target
        return measure_group(chosen, work, profile, batches=batches, progress=report), False
    except FullDiskError:
        raise
    except Exception as error:  # as in perform
        return [Outcome(None, f"latency: {described(error)}")] * len(work), True


def _module(model: ModelSpec, recipe: Recipe, source: DataSource) -> nn.Module:
    return network(at_home(model), recipe, source)[0]
