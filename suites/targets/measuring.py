"""Measuring files on a target, whichever it is: the one place that knows which module measures on what."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.targets import Target
from depthbench.suites.targets import desktop_cpu as cpu
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.engine import Measured, MeasureProfile, latency
from depthbench.suites.targets.intervals import paired_ratio

if TYPE_CHECKING:
    from torch import nn

Progress = Callable[[float], None]

THROUGHPUT_SHARE = 0.3
"""A batch size is measured for this share of the time that latency takes."""


@dataclass(frozen=True)
class Work:
    """What is measured: an ONNX file, its precision and input size, and for a GPU a function that builds the network."""

    path: Path
    precision: str
    size: tuple[int, int]
    build: Callable[[], nn.Module] | None = None


def measure_group(
    target: Target,
    work: Sequence[Work],
    profile: str | MeasureProfile,
    *,
    settings: cpu.CpuSettings | None = None,
    batches: Sequence[int] = (),
    processes: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Measure on one target, all interleaved with each other; one outcome each, in their order.

    ``settings``: threads, affinity and runtime on a CPU; the target's own when left out. ``batches``: batch sizes whose
    throughput is measured too on a CPU or a GPU, after the latency; their raw times are ``details["throughput"]``.
    ``processes``: fresh processes of each file, the profile's own number when left out. What cannot be measured has an outcome
    with its reason. ``profile``: by name; on a CPU or a GPU also one that has none.
    Several files on a CPU or GPU have a control: the first one's ``details["control"]``, and in all of them ``control_ratio``.
    """
    if target.how != "measured":
        raise ValueError(f"target {target.name} is predicted, not measured")
    if target.measure is not None:
        theirs: list[Outcome] = target.measure(work, profile, seed=seed, progress=progress)
        return _without_batches(theirs, batches)
    if target.kind == "board":
        from depthbench.suites.targets import jetson
        from depthbench.suites.targets.board_steps import PROFILES, BoardCell

        assert isinstance(profile, str)  # a board counts rounds of trtexec
        cells = [BoardCell(one.path, one.precision) for one in work]
        timed = jetson.measure(cells, target.board, PROFILES[profile], seed=seed, progress=progress)
        return _without_batches(timed, batches)
    chosen = cpu.PROFILES[profile] if isinstance(profile, str) else profile
    if processes is not None:
        chosen = replace(chosen, processes=processes)
    if target.kind == "cuda":
        from depthbench.suites.targets import desktop_cuda

        runtime = settings.runtime if settings is not None else "torch"
        return desktop_cuda.measure(work, chosen, runtime, batches=batches, seed=seed, progress=progress)
    return _on_cpu(work, chosen, settings or cpu.CpuSettings(cpu.thread_count(target.threads)), batches, seed, progress)


def _without_batches(found: Sequence[Outcome], batches: Sequence[int]) -> list[Outcome]:
    """Outcomes whose batch sizes have a reason in the place of a throughput."""
    rates = [{"batch": batch, "reason": "batch sizes are measured on a CPU or a GPU"} for batch in batches]
    if not rates:
        return list(found)
    return [
        replace(one, latency=replace(one.latency, details={**one.latency.details, "throughput": rates}))
        if one.latency is not None
        else one
        for one in found
    ]


def _on_cpu(
    work: Sequence[Work],
    profile: MeasureProfile,
    settings: cpu.CpuSettings,
    batches: Sequence[int],
    seed: int,
    progress: Progress | None,
) -> list[Outcome]:
    where = cpu.measuring_environment(settings.threads)
    where |= {"affinity": list(settings.affinity) if settings.affinity else None, "runtime": settings.runtime}
    first, second = split_progress(progress, len(batches) * THROUGHPUT_SHARE)
    found = cpu.try_measure(
        [one.path for one in work],
        profile,
        settings,
        seed=seed,
        control=len(work) > 1,
        processing=True,
        progress=first,
    )
    extra: list[dict[str, Any]] = [{} for _ in work]
    if batches:
        usable = [i for i, one in enumerate(found) if isinstance(one, Measured)]
        rates = _throughput([work[i].path for i in usable], profile, settings, batches, seed, second)
        for i, rate in zip(usable, rates, strict=True):
            extra[i] = {"throughput": rate}
    return outcomes(found, where, extra, threads=settings.threads)


def outcomes(
    found: Sequence[Measured | str],
    where: dict[str, Any],
    extra: Sequence[dict[str, Any]],
    *,
    clock: str = "wall",
    threads: int | None = None,
) -> list[Outcome]:
    """Outcomes of what the engine found, ``extra`` joined to their details, and the control's ratio to all."""
    controlled = next((one for one in found if isinstance(one, Measured) and one.control is not None), None)
    shared: dict[str, Any] = {}
    if controlled is not None and controlled.control is not None:
        shared["control_ratio"] = paired_ratio(controlled, controlled.control)[0]
    made = []
    for one, more in zip(found, extra, strict=True):
        if isinstance(one, str):
            made.append(Outcome(None, one, where))
            continue
        timed = latency(one, clock=clock, threads=threads)
        details = {**timed.details, **more, **shared}
        if one.control is not None:
            details["control"] = {"samples_ms": one.control.samples_ms, "blocks": one.control.blocks}
        made.append(Outcome(replace(timed, details=details), None, where))
    return made


def split_progress(progress: Progress | None, second: float) -> tuple[Progress | None, Progress | None]:
    """Progress of two stages, of which the second is as long as ``second`` times the first."""
    if progress is None:
        return None, None
    share = 1 / (1 + second)
    return lambda done: progress(done * share), lambda done: progress(share + done * (1 - share))


def throughput_profile(profile: MeasureProfile) -> MeasureProfile:
    """How long one batch size is measured."""
    return replace(profile, seconds=profile.seconds * THROUGHPUT_SHARE, samples=20, processes=1, longest=1.0)


def _throughput(
    files: Sequence[Path],
    profile: MeasureProfile,
    settings: cpu.CpuSettings,
    batches: Sequence[int],
    seed: int,
    progress: Progress | None,
) -> list[list[dict[str, Any]]]:
    """For each file the raw times of each batch size, or the reason why there are none."""
    from depthbench.suites.targets.batches import rebatched

    rates: list[list[dict[str, Any]]] = [[] for _ in files]
    with tempfile.TemporaryDirectory() as folder:
        ready: list[tuple[int, int, Path]] = []
        for i, path in enumerate(files):
            for batch in batches:
                try:
                    ready.append((i, batch, rebatched(path, batch, Path(folder) / f"{i}-{batch}.onnx")))
                except ValueError as error:
                    rates[i].append({"batch": batch, "reason": str(error)})
        found = cpu.try_measure(
            [path for *_, path in ready], throughput_profile(profile), settings, seed=seed, progress=progress
        )
    for (i, batch, _), one in zip(ready, found, strict=True):
        rates[i].append(throughput(batch, one))
    return [sorted(rate, key=lambda one: int(one["batch"])) for rate in rates]


def throughput(batch: int, one: Measured | str) -> dict[str, Any]:
    """What is kept of a batch size: raw times in ms of whole batches, or the reason why there are none."""
    if isinstance(one, str):
        return {"batch": batch, "reason": one}
    return {"batch": batch, "samples_ms": one.samples_ms, "blocks": one.blocks}
