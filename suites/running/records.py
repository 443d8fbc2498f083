"""From what came of a cell to its record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from depthbench.suites.environment import now
from depthbench.suites.plan import Job
from depthbench.suites.results import Record, Status, Timings
from depthbench.suites.stages import Artefact
from depthbench.suites.targets.board_results import Outcome


def completed(
    job: Job,
    made: Artefact,
    evaluation: str,
    outcome: Outcome,
    timings: Timings | None,
    explanation: dict[str, Any] | None,
) -> Record:
    """The record of a cell whose file was made and scored, and whose latency was asked for."""
    return replace(
        unfinished(job, "ok" if outcome.latency is not None else "failed", outcome.reason),
        profile=made.profile,
        latency=outcome.latency,
        evaluation=evaluation,
        lineage=made.lineage,
        compression=made.reports,
        environment=outcome.environment,
        timings=timings,
        explanation=explanation,
    )


def unfinished(job: Job, status: Status, reason: str | None) -> Record:
    """The record of a cell that was skipped, or failed before its latency was known."""
    return Record(
        id=job.id,
        status=status,
        model=job.model.name,
        family=job.model.family,
        recipe=job.recipe.name,
        size=job.size,
        target=job.target.name,
        target_kind=job.target.kind,
        dataset=job.data.name,
        protocol=job.data.protocol,
        precision=job.precision,
        reason=reason,
        finished=now(),
        left_out=job.data.skipped,
    )
