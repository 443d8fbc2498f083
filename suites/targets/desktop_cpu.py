"""Latency in ONNX Runtime on this machine's CPU, interleaved between the compared files.

A fresh process (:mod:`depthbench.suites.targets.cpu_worker`) holds one session per file, warms each one up until it is
stable, and then runs blocks of inferences in rounds: each round a random order of the files, forwards and then backwards
(A B B A), so that a drift of the machine meets all of them alike. Raw times of single inferences come back; statistics are
derived when they are read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.environment import environment
from depthbench.suites.results import Latency


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


@dataclass(frozen=True)
class Measured:
    """What the worker says of one file: warm-up and sample times in ms, and the block that each sample belongs to."""

    warmup_ms: list[float]
    samples_ms: list[float]
    blocks: list[int]


def measure(
    files: Sequence[Path],
    profile: MeasureProfile,
    *,
    threads: int = 1,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Measured]:
    """Measure ONNX files against each other, batch 1, on fixed random inputs in [0, 1]; one result a file, in their order.

    ``progress`` receives the share done, 0 to 1. ``ValueError`` names a file that ONNX Runtime refuses.
    """
    spec = {
        "files": [str(path) for path in files],
        "threads": threads,
        "seed": seed,
        "profile": {
            "seconds": profile.seconds,
            "samples": profile.samples,
            "block_s": profile.block_s,
            "warmup_s": profile.warmup_s,
            "warmup_runs": profile.warmup_runs,
        },
    }
    command = [sys.executable, "-m", "depthbench.suites.targets.cpu_worker"]
    result: list[dict[str, Any]] | None = None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(spec))
            worker.stdin.close()
            for line in worker.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise ValueError(message["error"])
                if "progress" in message and progress is not None:
                    progress(message["progress"])
                result = message.get("result", result)
        except BaseException:
            worker.kill()
            raise
    if worker.returncode != 0 or result is None:
        raise RuntimeError(f"the measuring process ended with code {worker.returncode} and no result")
    return [Measured(**one) for one in result]


def latency(measured: Measured, threads: int, flags: Sequence[str] = ()) -> Latency:
    """The record's latency of one measured file, flagged ``noisy`` when its median is not sharp."""
    noisy = ["noisy"] if median_rse(measured.samples_ms) > NOISY_RSE else []
    return Latency(
        kind="measured",
        samples_ms=measured.samples_ms,
        warmup_ms=measured.warmup_ms,
        threads=threads,
        flags=[*noisy, *flags],
        details={"blocks": measured.blocks},
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


def thread_count(threads: str | None) -> int:
    """Threads of a CPU target: ``"one"`` or ``"all"`` cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if threads == "all" else 1


def measuring_environment(threads: int) -> dict[str, Any]:
    """The environment of a measurement with the runtime's settings."""
    return {**environment(), "intra_op_threads": threads, "inter_op_threads": 1, "execution": "sequential"}
