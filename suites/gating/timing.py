"""Paired latency of two files: long-lived processes take turns in A B B A rounds, with a second process of A as control.

Each round is a random order of the three arms (base, control, head), forwards and then backwards, so that a drift of the
machine meets all alike. The arms start afresh for every attempt: a process keeps its luck with memory for its whole life.
While they run, the driver watches what else keeps the processors busy; a round in which it is much is not clean.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.gating.config import Timing
from depthbench.suites.gating.environments import Interpreter
from depthbench.suites.targets.watch import busy_s

ARMS = ("base", "control", "head")

FOREIGN_CORES = 0.25
FOREIGN_SHARE = 0.1
"""A round is not clean when other processes keep more than a quarter of a core, or a tenth of all, busy."""

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
        arms = {
            name: stack.enter_context(_Arm(*(head if name == "head" else base), timing, seed))
            for name in order.sample(ARMS, len(ARMS))
        }
        versions = (arms["base"].version, arms["head"].version)
        while sum(one.clean for one in rounds) < timing.rounds and len(rounds) < 2 * timing.rounds:
            rounds.append(_round(arms, order, timing))
            if progress is not None:
                progress(min(1.0, len(rounds) / timing.rounds))
    return Attempt(tuple(rounds), versions, timing.threads, time.perf_counter() - start)


class _Arm:
    """A running process of :mod:`depthbench.suites.gating.arm`, warmed up."""

    def __init__(self, path: Path, interpreter: Interpreter, timing: Timing, seed: int) -> None:
        self.process = subprocess.Popen(
            [interpreter.python, "-m", "depthbench.suites.gating.arm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **interpreter.environment},
        )
        spec = {"file": str(path.resolve()), "threads": timing.threads, "seed": seed, "warmup_s": timing.warmup_s}
        try:
            answer = self.ask(spec)
            if "error" in answer:
                raise ValueError(answer["error"])
        except BaseException:
            self.__exit__()
            raise
        self.version: str = answer["ready"]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line there, one line back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measuring process ended with code {self.process.wait()} and no result")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> _Arm:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def _round(arms: dict[str, _Arm], order: random.Random, timing: Timing) -> Round:
    row = order.sample(ARMS, len(ARMS))
    medians: dict[str, list[float]] = {name: [] for name in ARMS}
    shares, used = [], 0.0
    busy, wall, own = busy_s(), time.perf_counter(), time.process_time()
    for name in [*row, *reversed(row)]:
        block = arms[name].ask({"block": timing.block_s})
        medians[name].append(float(np.median(block["samples_ms"])))
        shares.append(block["cpu_s"] / block["wall_s"])
        used += block["cpu_s"]
    used += time.process_time() - own
    foreign = max(0.0, (busy_s() - busy - used) / (time.perf_counter() - wall))
    share = min(shares)
    quiet = foreign <= max(FOREIGN_CORES, FOREIGN_SHARE * (os.cpu_count() or 1))
    return Round(
        base=_pair(medians["base"]),
        control=_pair(medians["control"]),
        head=_pair(medians["head"]),
        foreign_cores=foreign,
        own_share=share,
        clean=quiet and (share >= OWN_SHARE or timing.threads > 1),
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return first, second
