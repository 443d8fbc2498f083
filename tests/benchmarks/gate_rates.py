"""How often the gate is right on this machine: a real experiment, for a machine on which nothing else runs.

    python tests/benchmarks/gate_rates.py --unchanged 60 --slower 0.10:20 --slower 0.08:20 --loaded 20 --out rates.json

Unchanged files are timed all the same, a slower file has a layer inserted that takes the given share of the base's latency,
and under a foreign load other processes keep every core busy half of the time. Prints a line per kind: how many passed,
failed, were ambiguous or contaminated, and the longest gate in seconds. No test; pytest does not collect it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from depthbench.reports.gate import Limit
from depthbench.reports.gate_latency import judge_latency, read_attempt
from depthbench.suites.export import export_onnx
from depthbench.suites.gating.config import DEFAULTS, Timing
from depthbench.suites.gating.environments import Interpreter
from depthbench.suites.gating.timing import paired
from depthbench.suites.models import MODELS

SIZE = (224, 224)
LIMIT = Limit(DEFAULTS["latency"].tolerance, DEFAULTS["latency"].reason)
TIMING = Timing(warmup_s=0.6)
BUSY = "import time\nwhile True:\n    end = time.time() + .3\n    while time.time() < end: pass\n    time.sleep(.3)\n"


def insert_layer(source: Path, out: Path, channels: int) -> Path:
    """A copy with two pointwise convolutions put before the network, 3 → ``channels`` → 3, that change nothing but time."""
    model = onnx.load(source)
    name = model.graph.input[0].name
    into = np.zeros((channels, 3, 1, 1), np.float32)
    into[:3, :, 0, 0] = np.eye(3)[: min(3, channels)]
    for node in model.graph.node:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = "inserted.rgb"
    model.graph.initializer.append(numpy_helper.from_array(into, "inserted.into"))
    model.graph.initializer.append(
        numpy_helper.from_array(into.transpose(1, 0, 2, 3).copy(), "inserted.back")
    )  # (3, C, 1, 1)
    nodes = [
        helper.make_node("Conv", [name, "inserted.into"], ["inserted.wide"], name="/inserted/into/Conv"),
        helper.make_node("Conv", ["inserted.wide", "inserted.back"], ["inserted.rgb"], name="/inserted/back/Conv"),
    ]
    for i, node in enumerate(nodes):
        model.graph.node.insert(i, node)
    onnx.save(model, out)
    return out


def calibrate(base: Path, slowdown: float, folder: Path) -> tuple[Path, float]:
    """A slower file whose cost, measured over three long runs of fresh processes each, comes nearest to ``slowdown``."""
    costs: dict[int, float] = {}
    channels = 16
    for _ in range(6):
        out = insert_layer(base, folder / f"slower-{slowdown}.onnx", channels)
        costs[channels] = float(np.median([_cost(base, out, seed) for seed in range(3)]))
        if abs(costs[channels] - slowdown) < 0.004:
            break
        step = max(1, round(channels * slowdown / max(costs[channels], 0.01)))
        if step in costs:
            break
        channels = min(step, 256)
    best = min(costs, key=lambda count: abs(costs[count] - slowdown))
    return insert_layer(base, folder / f"slower-{slowdown}.onnx", best), costs[best]


def _cost(base: Path, head: Path, seed: int) -> float:
    attempt = paired((base, Interpreter()), (head, Interpreter()), TIMING, seed=seed).to_json()
    return read_attempt(attempt, LIMIT.tolerance).change


def gate(base: Path, head: Path, seed: int) -> tuple[str, float]:
    """One gate's verdict on latency, and how long it took."""
    start = time.perf_counter()
    attempts: list[dict[str, Any]] = []
    while True:
        timing = paired((base, Interpreter()), (head, Interpreter()), TIMING, seed=1000 * seed + len(attempts))
        attempts.append(timing.to_json())
        check = judge_latency("net", attempts, LIMIT)
        if check is not None:
            return check.state, time.perf_counter() - start


@contextmanager
def foreign_load() -> Iterator[None]:
    """Processes that keep every core busy half of the time."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Carry out the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tst-t", choices=sorted(MODELS))
    parser.add_argument("--unchanged", type=int, default=60)
    parser.add_argument("--slower", action="append", default=[], metavar="SHARE:GATES")
    parser.add_argument("--loaded", type=int, default=20, metavar="GATES")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    with TemporaryDirectory() as place:
        torch.manual_seed(0)
        base = export_onnx(MODELS[options.model].build(), Path(place) / "base.onnx", SIZE)
        kinds: list[tuple[str, Path, int, float]] = [("unchanged", base, options.unchanged, 0.0)]
        for text in options.slower:
            share, _, count = text.partition(":")
            head, cost = calibrate(base, float(share), Path(place))
            kinds.append((f"+{float(share):.0%} asked, {cost:+.1%} measured", head, int(count), cost))
        for kind, head, count, cost in kinds:
            results.append(_many(kind, base, head, count) | {"cost": cost})
        with foreign_load():
            results.append(_many("unchanged, under a foreign load", base, base, options.loaded))
    if options.out:
        options.out.write_text(json.dumps({"model": options.model, "results": results}, indent=1))


def _many(kind: str, base: Path, head: Path, count: int) -> dict[str, Any]:
    outcomes = [gate(base, head, seed) for seed in range(count)]
    states = Counter(state for state, _ in outcomes)
    longest = max((seconds for _, seconds in outcomes), default=0.0)
    print(f"{kind}: {count} gates, {dict(states)}, longest {longest:.1f} s", flush=True)
    return {"kind": kind, "gates": count, "states": dict(states), "longest_s": longest}


if __name__ == "__main__":
    main()
