"""The measurement of a gate, with real processes; no time is judged here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from depthbench.reports.gate_latency import read_attempt
from depthbench.suites.gating.config import Timing
from depthbench.suites.gating.environments import Interpreter
from depthbench.suites.gating.timing import paired

QUICK = Timing(rounds=10, block_s=0.004, warmup_s=0.01)


def test_rounds_of_three_arms(nets: ModuleType, export: Callable[..., Path]) -> None:
    shares: list[float] = []
    path = export(nets.Plain)
    attempt = paired((path, Interpreter()), (path, Interpreter()), QUICK, progress=shares.append)
    assert 10 <= len(attempt.rounds) <= 20
    assert sum(one.clean for one in attempt.rounds) == 10 or len(attempt.rounds) == 20
    assert all(len(arm) == 2 and min(arm) > 0 for one in attempt.rounds for arm in (one.base, one.control, one.head))
    assert len(set(attempt.onnxruntime)) == 1
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    reading = read_attempt(attempt.to_json(), 0.05)
    assert reading.interval[0] <= reading.change <= reading.interval[1]


def test_a_foreign_load_is_seen(nets: ModuleType, export: Callable[..., Path]) -> None:
    path = export(nets.Plain)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        attempt = paired((path, Interpreter()), (path, Interpreter()), QUICK.model_copy(update={"block_s": 0.02}))
    finally:
        for other in busy:
            other.kill()
            other.wait()
    assert sum(one.clean for one in attempt.rounds) <= 2
    slower = tuple(replace(one, head=(one.head[0] * 3, one.head[1] * 3)) for one in attempt.rounds)
    assert read_attempt(replace(attempt, rounds=slower).to_json(), 0.05).state == "contaminated"


def test_a_file_that_is_refused_is_named(nets: ModuleType, export: Callable[..., Path], tmp_path: Path) -> None:
    bad = nets.edited(export(nets.Plain), tmp_path / "bad.onnx", lambda m: nets.swap_first(m, "Conv", "Convolve"))
    with pytest.raises(ValueError, match=r"bad\.onnx: ONNX Runtime refuses it: "):
        paired((bad, Interpreter()), (bad, Interpreter()), QUICK)
