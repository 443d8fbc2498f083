"""How far the measuring engine can be believed, on a machine where nothing else runs. Not a test: it takes half an hour.

    python tests/benchmarks/measuring.py fidelity      the engine's median against a bare onnxruntime loop, three networks
    python tests/benchmarks/measuring.py power         60 comparisons of a network with itself, 40 with 5 % more work

Prints one JSON document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from depthbench.suites.targets import desktop_cpu as cpu
from depthbench.suites.targets.desktop_cpu import CpuSettings, Measured, MeasureProfile, _Arm
from depthbench.suites.targets.watch import EnergyCounter

COMPARISON = MeasureProfile(seconds=3, samples=100, block_s=0.1, warmup_s=0.5, warmup_runs=10)

BARE = """
import sys, time, json, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {i.name: np.random.default_rng(0).random(i.shape, dtype=np.float32) for i in session.get_inputs()}
for line in sys.stdin:
    times, end = [], time.perf_counter() + float(line)
    while time.perf_counter() < end:
        start = time.perf_counter(); session.run(None, feed); times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps(times), flush=True)
"""


def chain(path: Path, layers: int) -> Path:
    """``layers`` equal convolutions in a row, so that 21 of them are 5 % more work than 20."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 16, 3, 3)) * 0.05).astype(np.float32)
    nodes = [
        helper.make_node("Conv", [f"x{i}", "w"], [f"x{i + 1}"], pads=[1, 1, 1, 1], name=f"conv{i}")
        for i in range(layers)
    ]
    shape = (1, 16, 96, 96)
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def power(folder: Path, same: int = 60, more: int = 40) -> dict[str, Any]:
    """How often a difference is declared where there is none, and where there are 5 %."""
    base, slower = chain(folder / "20.onnx", 20), chain(folder / "21.onnx", 21)
    found: dict[str, Any] = {}
    for name, head, times in (("itself", base, same), ("5 % more work", slower, more)):
        ratios, declared, spent = [], 0, []
        for seed in range(times):
            start = time.perf_counter()
            first, second = cpu.measure([head, base], COMPARISON, seed=seed, control=True)
            result = cpu.compare(first, second)
            spent.append(time.perf_counter() - start)
            ratios.append(result.ratio)
            declared += result.different
            print(f"{name} {seed + 1}/{times}: {result.ratio:.4f} declared {declared}", file=sys.stderr)
        found[name] = {"of": times, "declared": declared, "ratios": ratios, "longest_s": max(spent)}
    return found


def fidelity(seconds: float = 10.0) -> dict[str, Any]:
    """The engine's median over a bare loop's, the two interleaved, with a 95 % interval."""
    from depthbench.suites.cli.artefacts import deployed
    from depthbench.suites.cli.output import stages

    found = {}
    profile = MeasureProfile(seconds, 100)
    for model in ("tst-t", "fastdepth", "mobilevit-xxs"):
        with stages() as progress:
            path = deployed(model, "fp32", None, progress).path
        bare = subprocess.Popen(
            [sys.executable, "-c", BARE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert bare.stdin is not None
        assert bare.stdout is not None
        samples: list[float] = []
        blocks: list[int] = []
        with bare, _Arm(path, profile, CpuSettings(), 0) as arm:

            def loop(number: int, keep: bool = True, bare: Any = bare, into: Any = (samples, blocks)) -> None:
                bare.stdin.write("0.125\n" if keep else "1.5\n")
                bare.stdin.flush()
                times = json.loads(bare.stdout.readline())
                if keep:
                    into[0].extend(times)
                    into[1].extend([number] * len(times))

            loop(0, keep=False)
            number = 0
            while arm.done(profile) < 1:
                turns = [lambda n: arm.block(0.125, n, EnergyCounter()), loop]
                for turn in (*turns, *turns[::-1]) if number % 2 else (*turns[::-1], *turns):
                    turn(number)
                number += 1
            bare.stdin.close()
            ratio, interval = cpu.paired_ratio(Measured([], arm.samples_ms, arm.blocks), Measured([], samples, blocks))
            medians = float(np.median(arm.samples_ms) / np.median(samples))
            found[model] = {"ratio": ratio, "ci95": interval, "ratio_of_medians": medians, "n": len(arm.samples_ms)}
    return found


def main() -> None:
    """Run what the command line names."""
    with tempfile.TemporaryDirectory() as folder:
        result = power(Path(folder)) if sys.argv[1] == "power" else fidelity()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
