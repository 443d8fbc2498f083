"""Latency in ONNX Runtime on this machine's CPU, interleaved between the compared files.

Each file has a fresh process (:mod:`depthbench.suites.targets.cpu_worker`) that warms up until it is stable. This module
lets one process work at a time, a block of inferences each, in rounds: a random order of the files, forwards and then
backwards (A B B A), so that a drift of the machine meets all of them alike. Raw times of single inferences come back;
statistics are derived when they are read.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.environment import environment
from depthbench.suites.names import lookup
from depthbench.suites.results import Latency
from depthbench.suites.targets.watch import EnergyCounter, busy_s, contaminated, cpu_mhz, throttled


@dataclass(frozen=True)
class MeasureProfile:
    """How long a file is measured: at least ``seconds`` of inference and ``samples`` of them, in blocks of ``block_s``."""

    seconds: float
    samples: int
    block_s: float = 0.25
    warmup_s: float = 1.0
    warmup_runs: int = 10


PROFILES = {
    "quick": MeasureProfile(10, 100),
    "standard": MeasureProfile(60, 662),
    "sustained": MeasureProfile(600, 662),
}

NOISY_RSE = 0.005
"""Relative standard error of the median above which a record is flagged ``noisy``."""


RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class CpuSettings:
    """How a file runs on a CPU: threads of the runtime, the cores it is bound to (None: any), and the runtime."""

    threads: int = 1
    affinity: tuple[int, ...] | None = None
    runtime: str = "onnxruntime"


def check_settings(settings: CpuSettings) -> None:
    """``ValueError`` when this machine lacks a core or the runtime."""
    lookup("runtime", settings.runtime, dict.fromkeys(RUNTIMES))
    if settings.runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        raise ValueError("runtime openvino is not installed: pip install 'depthbench[openvino]'")
    if settings.affinity is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise ValueError("this system cannot bind a process to cores")
        usable = sorted(os.sched_getaffinity(0))
        if missing := sorted(set(settings.affinity) - set(usable)):
            raise ValueError(f"core {', '.join(map(str, missing))} is not here (usable: {', '.join(map(str, usable))})")


@dataclass(frozen=True)
class Measured:
    """What the workers say of one file: warm-up and sample times in ms, and the round (``blocks``) of each sample.

    ``control_ms``, ``control_blocks``: samples of a second process of the same file, where a control was asked for.
    ``facts``: ``load_ms``, ``first_ms``, ``peak_mem_mb``, ``idle_mem_mb`` (before the file was loaded), the runtime's version,
    ``foreign_cores`` (what other processes used in each round), ``cpu_mhz``, ``energy_mj`` an inference or ``energy_absent``.
    """

    warmup_ms: list[float]
    samples_ms: list[float]
    blocks: list[int]
    control_ms: list[float] = field(default_factory=list)
    control_blocks: list[int] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> Measured:
        """The control arm, to be compared like another file."""
        return Measured([], self.control_ms, self.control_blocks)


class _Arm:
    """A running worker process with one file, warmed up, and what it has measured so far."""

    def __init__(self, path: Path, profile: MeasureProfile, settings: CpuSettings, seed: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "depthbench.suites.targets.cpu_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        spec = {
            "file": str(path),
            "threads": settings.threads,
            "affinity": settings.affinity,
            "runtime": settings.runtime,
            "seed": seed,
            "warmup_s": profile.warmup_s,
            "warmup_runs": profile.warmup_runs,
        }
        try:
            answer = self._ask(spec)
            if "error" in answer:
                raise ValueError(answer["error"])
        except BaseException:
            self.__exit__()
            raise
        self.ready: dict[str, Any] = answer["ready"]
        self.samples_ms: list[float] = []
        self.blocks: list[int] = []
        self.spent_s = 0.0
        self.energy_mj = 0.0
        self.peak_mem_mb = 0.0

    def block(self, seconds: float, number: int, energy: EnergyCounter) -> float:
        """A block of inferences; seconds of processor time that it took."""
        before = energy.read_uj()
        answer = self._ask({"block": seconds})
        self.energy_mj += energy.spent_mj(before) if before else 0.0
        self.samples_ms += answer["samples_ms"]
        self.blocks += [number] * len(answer["samples_ms"])
        self.spent_s += answer["wall_s"]
        self.peak_mem_mb = answer["peak_mem_mb"]
        return float(answer["cpu_s"])

    def done(self, profile: MeasureProfile) -> float:
        """Share of the profile that is done, 0 to 1."""
        return min(1.0, self.spent_s / profile.seconds, len(self.samples_ms) / profile.samples)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the measuring process ended with code {self.process.wait()} and no result")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> _Arm:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with suppress(BrokenPipeError):  # what was written last reached nobody
            self.process.communicate()


def measure(
    files: Sequence[Path],
    profile: MeasureProfile,
    *,
    threads: int = 1,
    affinity: Sequence[int] | None = None,
    runtime: str = "onnxruntime",
    seed: int = 0,
    control: bool = False,
    progress: Callable[[float], None] | None = None,
) -> list[Measured]:
    """Measure ONNX files against each other, batch 1, on fixed random inputs in [0, 1]; one result a file, in their order.

    Each file has a fresh process; only one of them works at a time. ``control``: a second process of the first file is
    measured among the others, so that the difference of a file from itself can be seen. ``progress`` receives the share
    done, 0 to 1. ``ValueError`` names a file that the runtime refuses, or a setting that this machine lacks.
    """
    settings = CpuSettings(threads, tuple(affinity) if affinity is not None else None, runtime)
    check_settings(settings)
    order = random.Random(seed)
    energy = EnergyCounter()
    foreign_cores, clocks = [], []
    with ExitStack() as stack:
        paths = [*files, files[0]] if control else list(files)
        arms = [stack.enter_context(_Arm(path, profile, settings, seed)) for path in paths]
        number = 0
        while any(arm.done(profile) < 1 for arm in arms):
            row = order.sample(arms, len(arms))
            busy, wall, own = busy_s(), time.perf_counter(), time.process_time()
            used = sum(arm.block(profile.block_s / 2, number, energy) for arm in [*row, *reversed(row)])
            used += time.process_time() - own
            foreign_cores.append(max(0.0, (busy_s() - busy - used) / (time.perf_counter() - wall)))
            if (clock := cpu_mhz()) is not None:
                clocks.append(clock)
            number += 1
            if progress is not None:
                progress(sum(arm.done(profile) for arm in arms) / len(arms))
    around = {"foreign_cores": foreign_cores, "cpu_mhz": clocks}
    measured = [_measured(arm, around, energy) for arm in arms[: len(files)]]
    if control:
        measured[0] = replace(measured[0], control_ms=arms[-1].samples_ms, control_blocks=arms[-1].blocks)
    return measured


def _measured(arm: _Arm, around: dict[str, Any], energy: EnergyCounter) -> Measured:
    ready = dict(arm.ready)
    warmup = ready.pop("warmup_ms")
    joules = {"energy_absent": energy.absent} if energy.absent else {"energy_mj": arm.energy_mj / len(arm.samples_ms)}
    facts = {**ready, "peak_mem_mb": arm.peak_mem_mb, **around, **joules}
    return Measured(warmup, arm.samples_ms, arm.blocks, facts=facts)


def latency(measured: Measured, threads: int, flags: Sequence[str] = ()) -> Latency:
    """The record's latency of one measured file.

    Flags: ``noisy`` when its median is not sharp, ``contaminated`` when other processes kept the machine busy meanwhile,
    ``throttled`` when the clocks fell.
    """
    signs = {
        "noisy": median_rse(measured.samples_ms) > NOISY_RSE,
        "contaminated": contaminated(measured.facts.get("foreign_cores", [])),
        "throttled": throttled(measured.facts.get("cpu_mhz", [])),
    }
    return Latency(
        kind="measured",
        samples_ms=measured.samples_ms,
        warmup_ms=measured.warmup_ms,
        threads=threads,
        flags=[*(name for name, seen in signs.items() if seen), *flags],
        details={"clock": "wall", "blocks": measured.blocks, **measured.facts},
    )


def median_interval(samples_ms: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Bootstrap percentile interval of the median, in ms (1,000 seeded resamples)."""
    values = np.asarray(samples_ms)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, size=(1000, min(len(values), 2000))), axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def median_rse(samples_ms: Sequence[float]) -> float:
    """Standard error of the median over the median, from the width of its 95 % interval."""
    low, high = median_interval(samples_ms)
    return (high - low) / (2 * 1.96) / float(np.median(samples_ms))


def paired_ratio(first: Measured, second: Measured, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Ratio of the latencies of two files measured together (first over second), with a bootstrap interval over rounds.

    A round is one A B B A block of each; the ratio of a round is that of its two medians, and the figure is their median.
    """
    ratios = np.array(
        [
            np.median(np.asarray(first.samples_ms)[np.asarray(first.blocks) == block])
            / np.median(np.asarray(second.samples_ms)[np.asarray(second.blocks) == block])
            for block in sorted(set(first.blocks) & set(second.blocks))
        ]
    )
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, size=(2000, len(ratios))), axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(ratios)), (float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """Two files measured together: the ratio of their latencies (first over second) with intervals.

    ``control``: the ratio of the first file to itself, None without a control arm. The intervals are widened by it, so that
    what separates a file from itself is never taken for a difference. ``different``: the 99.9 % interval excludes 1.
    """

    ratio: float
    interval95: tuple[float, float]
    interval999: tuple[float, float]
    control: float | None

    @property
    def different(self) -> bool:
        """Whether a difference is declared."""
        return not self.interval999[0] <= 1 <= self.interval999[1]


def compare(first: Measured, second: Measured) -> Comparison:
    """The comparison of two files measured together."""
    ratio, interval95 = paired_ratio(first, second)
    _, interval999 = paired_ratio(first, second, 0.999)
    if not first.control_ms:
        return Comparison(ratio, interval95, interval999, None)
    control, _ = paired_ratio(first, first.control)
    widen = max(control, 1 / control)
    low, high = (interval95[0] / widen, interval95[1] * widen)
    return Comparison(ratio, (low, high), (interval999[0] / widen, interval999[1] * widen), control)


TAILS = {"p90_ms": (0.90, 64), "p95_ms": (0.95, 130), "p99_ms": (0.99, 662), "p999_ms": (0.999, 6636)}
"""Percentiles and the samples that support each at a confidence of .99 (MLPerf's early stopping)."""


def tails(samples_ms: Sequence[float]) -> dict[str, float]:
    """The percentiles in ms that the number of samples supports; the others are left out."""
    values = np.asarray(samples_ms)
    return {name: float(np.quantile(values, share)) for name, (share, n) in TAILS.items() if len(values) >= n}


def thread_count(threads: str | None) -> int:
    """Threads of a CPU target: ``"one"`` or ``"all"`` cores that this process may use."""
    return len(os.sched_getaffinity(0)) if threads == "all" else 1


def measuring_environment(threads: int) -> dict[str, Any]:
    """The environment of a measurement with the runtime's settings."""
    return {**environment(), "intra_op_threads": threads, "inter_op_threads": 1, "execution": "sequential"}
