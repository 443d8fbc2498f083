"""What every measuring process does: warm up, answer for blocks of inferences, and time what stands around them.

Reads JSON lines: a specification, then one question a line. Writes JSON lines: ``{}`` when it has imported what it needs, so
that no network is loaded while other processes still start; ``{"ready": {...}}`` after the warm-up, or
``{"error": reason}``; then an answer to each question: ``{"block": seconds}`` or ``{"processing": repeats}``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.targets.processing import processing_times

STABLE = 0.02
"""Warm-up ends when the medians of its last two windows differ by less than this share, or after five times its length."""


class Timed:
    """The times of a network's inferences.

    ``once``: one inference, in ms of the record's clock. ``wall``: one inference from the host's image to the host's depth, in
    ms, where that is another clock; the two take turns. ``load_ms``: from the file to what can run. ``size``: height and
    width of the pictures that it takes, None where it takes none.
    """

    def __init__(
        self,
        once: Callable[[], float],
        load_ms: float,
        size: tuple[int, int] | None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.once = once
        self.wall = wall
        self.load_ms = load_ms
        self.size = size
        self.warmup_ms: list[float] = []

    def warm_up(self, seconds: float, runs: int) -> None:
        """Run until stable: at least ``runs`` and ``seconds``, then until two windows in a row agree."""
        start = time.perf_counter()
        while True:
            self.warmup_ms.append(self.once())
            spent = time.perf_counter() - start
            if spent < seconds or len(self.warmup_ms) < max(runs, 10):
                continue
            window = len(self.warmup_ms) // 3
            last, before = np.median(self.warmup_ms[-window:]), np.median(self.warmup_ms[-2 * window : -window])
            if abs(last / before - 1) < STABLE or spent > 5 * seconds:
                return

    def block(self, seconds: float) -> dict[str, Any]:
        """Inferences for ``seconds``, at least one, and what the processor and the memory did meanwhile."""
        samples: list[float] = []
        walls: list[float] = []
        start, cpu = time.perf_counter(), time.process_time()
        while True:
            samples.append(self.once())
            if self.wall is not None:
                walls.append(self.wall())
            spent = time.perf_counter() - start
            if spent >= seconds:
                break
        found = {"samples_ms": samples, "wall_s": spent, "cpu_s": time.process_time() - cpu, "peak_mem_mb": peak_mb()}
        return found if self.wall is None else found | {"wall_ms": walls}


def wall_ms(infer: Callable[[], Any]) -> float:
    """One call, in ms of wall time."""
    start = time.perf_counter()
    infer()
    return (time.perf_counter() - start) * 1e3


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure begins with that of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def serve(load: Callable[[dict[str, Any]], tuple[Timed, dict[str, Any]]]) -> None:
    """Answer the lines on standard input until it ends. ``load``: from the specification to the network and facts about it."""
    _say({})
    spec = json.loads(sys.stdin.readline())
    idle_mb = peak_mb()
    try:
        timed, facts = load(spec)
        timed.warm_up(spec["warmup_s"], spec["warmup_runs"])
    except Exception as error:  # the runtimes' exceptions share no base class; the reason goes to the caller
        _say({"error": " ".join(str(error).split())[:300] or type(error).__name__})
        return
    ready = {"load_ms": timed.load_ms, "first_ms": timed.warmup_ms[0], "warmup_ms": timed.warmup_ms}
    _say({"ready": {**ready, "idle_mem_mb": idle_mb, **facts}})
    for line in sys.stdin:
        question = json.loads(line)
        if "processing" in question:
            _say({} if timed.size is None else processing_times(timed.size, question["processing"]))
        else:
            _say(timed.block(question["block"]))


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
