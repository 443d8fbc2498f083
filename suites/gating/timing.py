"""Paired latency of two files: long-lived processes take turns in A B B A rounds, with a second process of A as control.

Each round is a random order of the three arms (base, control, head), forwards and then backwards, so that a drift of the
machine meets all alike. The arms start afresh for every attempt: a process keeps its luck with memory for its whole life.
While they run, the driver watches what else keeps the processors busy; a round in which it is much is not clean.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.gating.config import Timing
from depthbench.suites.gating.environments import Interpreter
from depthbench.suites.targets.desktop_cpu import WORKER, CpuSettings, cpu_network
from depthbench.suites.targets.watch import ForeignLoad, is_busy
from depthbench.suites.targets.worker import Worker

ARMS = ("base", "control", "head")

WARMUP_RUNS = 10

OWN_SHARE = 0.95
"""A single-threaded block that had the processor for less than this share of its time was pushed aside."""


@dataclass(frozen=True)
class Round:
    """Medians in ms of an arm's two blocks, and how much of the machine others used meanwhile (in cores)."""

    base: tuple[float, float]
    control: tuple[float, float]
    head: tuple[float, float]
    foreign_cores: float
    own_share: float
    clean: bool


@dataclass(frozen=True)
class Attempt:
    """One measurement with fresh processes."""

    rounds: tuple[Round, ...]
    onnxruntime: tuple[str, str]
    threads: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def paired(
    base: tuple[Path, Interpreter],
    head: tuple[Path, Interpreter],
    timing: Timing,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Attempt:
    """Time two files against each other until ``timing.rounds`` rounds were clean, at most twice as many in all.

    ``ValueError`` names a file that ONNX Runtime refuses.
    """
    start = time.perf_counter()
    order = random.Random(seed)
    rounds: list[Round] = []
    with ExitStack() as stack:
        arms: dict[str, Worker] = {}
        for name in order.sample(ARMS, len(ARMS)):
            _, interpreter = head if name == "head" else base
            started = Worker(WORKER, "onnxruntime", python=interpreter.python, environment=interpreter.environment)
            arms[name] = stack.enter_context(started)
        for worker in arms.values():  # imports go on side by side, loading and warming up do not
            worker.wait()
        for name, worker in arms.items():
            _load(worker, head[0] if name == "head" else base[0], timing, seed)
        versions = (arms["base"].ready["version"], arms["head"].ready["version"])
        while sum(one.clean for one in rounds) < timing.rounds and len(rounds) < 2 * timing.rounds:
            rounds.append(_round(arms, order, timing))
            if progress is not None:
                progress(min(1.0, len(rounds) / timing.rounds))
    return Attempt(tuple(rounds), versions, timing.threads, time.perf_counter() - start)


def _load(worker: Worker, path: Path, timing: Timing, seed: int) -> None:
    network = cpu_network(str(path.resolve()), CpuSettings(timing.threads), seed)
    warmup = {"warmup_s": timing.warmup_s, "warmup_runs": WARMUP_RUNS}
    worker.load({**network.spec, **warmup}, network.refusal)


def _round(arms: dict[str, Worker], order: random.Random, timing: Timing) -> Round:
    row = order.sample(ARMS, len(ARMS))
    medians: dict[str, list[float]] = {name: [] for name in ARMS}
    shares, used = [], 0.0
    others = ForeignLoad()
    for name in [*row, *reversed(row)]:
        block = arms[name].block(timing.block_s)
        medians[name].append(float(np.median(block["samples_ms"])))
        shares.append(block["cpu_s"] / block["wall_s"])
        used += block["cpu_s"]
    foreign = others.cores(used)
    share = min(shares)
    return Round(
        base=_pair(medians["base"]),
        control=_pair(medians["control"]),
        head=_pair(medians["head"]),
        foreign_cores=foreign,
        own_share=share,
        clean=not is_busy(foreign) and (share >= OWN_SHARE or timing.threads > 1),
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return first, second
