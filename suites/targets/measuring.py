"""Measuring files on a target, whichever it is: the one place that knows which module measures on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from depthbench.suites.targets import Target
from depthbench.suites.targets import desktop_cpu as cpu
from depthbench.suites.targets.board_results import Outcome

if TYPE_CHECKING:
    from torch import nn


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
    profile: str,
    *,
    settings: cpu.CpuSettings | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Measure on one target, all interleaved with each other; one outcome each, in their order.

    ``settings``: threads, affinity and runtime on a CPU; the target's own when left out. What cannot be measured has an
    outcome with its reason.
    """
    if target.how != "measured":
        raise ValueError(f"target {target.name} is predicted, not measured")
    if target.measure is not None:
        outcomes: list[Outcome] = target.measure(work, profile, seed=seed, progress=progress)
        return outcomes
    if target.kind == "board":
        from depthbench.suites.targets import jetson
        from depthbench.suites.targets.board_steps import PROFILES, BoardCell

        cells = [BoardCell(one.path, one.precision) for one in work]
        return jetson.measure(cells, target.board, PROFILES[profile], seed=seed, progress=progress)
    if target.kind == "cuda":
        return _on_gpu(work, cpu.PROFILES[profile], seed, progress)
    chosen = settings or cpu.CpuSettings(cpu.thread_count(target.threads))
    where = cpu.measuring_environment(chosen.threads)
    timings = cpu.measure(
        [one.path for one in work],
        cpu.PROFILES[profile],
        threads=chosen.threads,
        affinity=chosen.affinity,
        runtime=chosen.runtime,
        seed=seed,
        progress=progress,
    )
    where |= {"affinity": list(chosen.affinity) if chosen.affinity else None, "runtime": chosen.runtime}
    return [Outcome(cpu.latency(timing, chosen.threads), None, where) for timing in timings]


def _on_gpu(
    work: Sequence[Work], profile: cpu.MeasureProfile, seed: int, progress: Callable[[float], None] | None
) -> list[Outcome]:
    from depthbench.suites.targets import desktop_cuda

    networks = [(one.build, one.size, one.precision) for one in work if one.build is not None]
    measured = iter(desktop_cuda.measure(networks, profile, seed=seed, progress=progress) if networks else [])
    lacking = Outcome(None, "an ONNX file alone cannot run in torch; give a catalogue model or package.module:function")
    return [lacking if one.build is None else next(measured) for one in work]
