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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper

from depthbench.reports.gate import Limit
from depthbench.reports.gate_latency import judge_latency
from depthbench.suites.export import export_onnx
from depthbench.suites.gating.config import DEFAULTS, Timing
from depthbench.suites.gating.environments import Interpreter
from depthbench.suites.gating.timing import paired
from depthbench.suites.models import MODELS

SIZE = (224, 224)
LIMIT = Limit(DEFAULTS["latency"].tolerance, DEFAULTS["latency"].reason)
TIMING = Timing()
BUSY = "import time\nwhile True:\n    end = time.time() + .3\n    while time.time() < end: pass\n    time.sleep(.3)\n"


def insert_layer(source: Path, out: Path, taps: int) -> Path:
    """A copy with a horizontal convolution of ``taps`` (odd) taps before the network that changes nothing but time."""
    model = onnx.load(source)
    name = model.graph.input[0].name
    kernel = np.zeros((3, 3, 1, taps), np.float32)
    kernel[:, :, 0, taps // 2] = np.eye(3)
    for node in model.graph.node:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = "inserted.rgb"
    model.graph.initializer.append(numpy_helper.from_array(kernel, "inserted.kernel"))
    pads = [0, taps // 2, 0, taps // 2]
    layer = helper.make_node("Conv", [name, "inserted.kernel"], ["inserted.rgb"], name="/inserted/Conv", pads=pads)
    model.graph.node.insert(0, layer)
    onnx.save(model, out)
    return out


def calibrate(base: Path, slowdown: float, folder: Path) -> tuple[Path, float]:
    """A slower file whose layer costs what comes nearest to ``slowdown``, by sessions that take turns in this one process."""
    out = folder / f"slower-{slowdown}.onnx"
    taps = range(1, 34, 2)
    costs = layer_costs(base, {count: insert_layer(base, folder / f"{count}-taps.onnx", count) for count in taps})
    best = min(costs, key=lambda count: abs(costs[count] - slowdown))
    return insert_layer(base, out, best), costs[best]


def layer_costs(base: Path, slower: Mapping[int, Path], repeats: int = 200) -> dict[int, float]:
    """Median latency of each file over that of ``base``, minus 1: inference by inference in turn, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    files = {0: base, **slower}
    sessions = {count: ort.InferenceSession(path, options) for count, path in files.items()}
    [image] = sessions[0].get_inputs()
    feed = {image.name: np.random.default_rng(0).random(image.shape, np.float32)}
    took: dict[int, list[float]] = {count: [] for count in sessions}
    for _ in range(repeats):
        for count, session in sessions.items():
            start = time.perf_counter()
            session.run(None, feed)
            took[count].append(time.perf_counter() - start)
    medians = {count: float(np.median(samples)) for count, samples in took.items()}
    return {count: medians[count] / medians[0] - 1 for count in slower}


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
