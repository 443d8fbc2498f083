"""How far the measuring engine can be believed, on a machine where nothing else runs. Not a test.

    python tests/benchmarks/measuring.py power --out power.json          how often a difference is declared: 60 comparisons of
                                                                         a network with itself, 40 with 5 % more work
    python tests/benchmarks/measuring.py fidelity --out fidelity.json    the engine's median against a bare onnxruntime loop,
                                                                         three networks

What is compared goes through the same functions as ``depthbench measure --against``, with a shorter profile. Every result is
written at once and told on standard error; the same command goes on where it was stopped, and begins nothing new after
``--minutes`` (power needs some 23 in all, fidelity 5). ``complete`` says that nothing is left; ``foreign_cores`` how quiet the
machine was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from scipy import stats

from depthbench.suites.cli.measured import comparison
from depthbench.suites.environment import environment
from depthbench.suites.results import read_json, write_json
from depthbench.suites.running.exclusion import MACHINE, held
from depthbench.suites.targets import BUILT_IN
from depthbench.suites.targets.desktop_cpu import COMPARED, CpuSettings, cpu_network
from depthbench.suites.targets.engine import Arm, MeasureProfile
from depthbench.suites.targets.measuring import Work, measure_group
from depthbench.suites.targets.processing import room_input
from depthbench.suites.targets.watch import EnergyCounter, ForeignLoad

COMPARISON = MeasureProfile(2, 100, block_s=0.05, warmup_s=0.1, warmup_runs=10, processes=COMPARED, longest=1.0)
SAME, MORE = "itself", "5 % more work"
SIDE = 64
MODELS = ("tst-t", "fastdepth", "mobilevit-xxs")
LIVES, TURNS, TURN_S = 10, 6, 0.125

BARE = """
import sys, time, json, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: np.load(sys.argv[2])}
for line in sys.stdin:
    times, end, cpu = [], time.perf_counter() + float(line), time.process_time()
    while time.perf_counter() < end:
        start = time.perf_counter(); session.run(None, feed); times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps([times, time.process_time() - cpu]), flush=True)
"""


def chain(path: Path, layers: int) -> Path:
    """``layers`` equal convolutions in a row, so that 21 of them are 5 % more work than 20."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 16, 3, 3)) * 0.05).astype(np.float32)
    nodes = [
        helper.make_node("Conv", [f"x{i}", "w"], [f"x{i + 1}"], pads=[1, 1, 1, 1], name=f"conv{i}")
        for i in range(layers)
    ]
    shape = (1, 16, SIDE, SIDE)
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def power(out: Path, wanted: dict[str, int], end: float) -> None:
    """Compare until all are done or the time is over; every comparison is written down."""
    found = _begun(out)
    rows: list[dict[str, Any]] = found.setdefault("comparisons", [])
    # both kinds all along, so that a machine that changes meets them alike
    todo = sorted(((seed + 0.5) / n, kind, seed) for kind, n in wanted.items() for seed in range(n))
    with tempfile.TemporaryDirectory() as folder:
        base = chain(Path(folder) / "20.onnx", 20)
        heads = {SAME: base, MORE: chain(Path(folder) / "21.onnx", 21)}
        for _, kind, seed in todo:
            if any((row["kind"], row["seed"]) == (kind, seed) for row in rows):
                continue
            if time.monotonic() > end:
                break
            rows.append({"kind": kind, "seed": seed, **_compared([heads[kind], base], seed)})
            found["summary"] = {kind: _summary([row for row in rows if row["kind"] == kind]) for kind in wanted}
            found["complete"] = len(rows) >= len(todo)
            write_json(out, found)
            row, said = rows[-1], "declared" if rows[-1]["declared"] else "-"
            low, high = row["ci999"]
            print(
                f"{len(rows)}/{len(todo)} {kind} {seed}: {row['ratio']:.4f} [{low:.4f}, {high:.4f}] {said} "
                f"in {row['seconds']:.1f} s, {row['foreign_cores']:.2f} foreign cores",
                file=sys.stderr,
                flush=True,
            )


def _compared(files: list[Path], seed: int) -> dict[str, Any]:
    """A comparison, as ``depthbench measure`` makes it."""
    work = [Work(path, "fp32", (SIDE, SIDE)) for path in files]
    with held(MACHINE):
        start = time.perf_counter()
        first, second = measure_group(BUILT_IN["desktop-cpu"], work, COMPARISON, seed=seed)
        assert first.latency is not None, first.reason
        assert second.latency is not None, second.reason
        told = comparison(first.latency, second.latency)
        seconds = time.perf_counter() - start
    return {
        "ratio": told["ratio"],
        "ci999": told["ratio_ci999"],
        "control": told["control_ratio"],
        "declared": told["different"],
        "median_ms": told["against_median_ms"],
        "n": len(second.latency.samples_ms),
        "flags": first.latency.flags,
        "seconds": seconds,
        "foreign_cores": float(np.median(first.latency.details["foreign_cores"])),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "of": len(rows),
        "declared": sum(row["declared"] for row in rows),
        "ratio": float(np.median([row["ratio"] for row in rows])) if rows else None,
        "longest_s": max((row["seconds"] for row in rows), default=None),
        "foreign_cores": float(np.median([row["foreign_cores"] for row in rows])) if rows else None,
    }


def fidelity(out: Path, models: list[str], end: float) -> None:
    """The engine's median over a bare loop's, process by process; every network is written down."""
    from depthbench.suites.cli.artefacts import deployed
    from depthbench.suites.cli.output import stages

    found = _begun(out)
    for model in models:
        if model in found.get("models", {}) or time.monotonic() > end:
            continue
        with stages() as progress:
            made = deployed(model, "fp32", None, progress)
        lives = []
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "picture.npy"  # the engine's own
            np.save(picture, room_input(made.size))
            for number in range(LIVES):
                with held(MACHINE):
                    lives.append(_life(made.path, picture))
                print(f"{model} {number + 1}/{LIVES}: {lives[-1][0] / lives[-1][1]:.4f}", file=sys.stderr, flush=True)
        logs = np.log([ours / bare for ours, bare, _ in lives])
        half = stats.t.ppf(0.975, LIVES - 1) * logs.std(ddof=1) / np.sqrt(LIVES)
        result = {
            "ratio": float(np.exp(logs.mean())),
            "ci95": [float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))],
            "engine_ms": [ours for ours, _, _ in lives],
            "bare_ms": [bare for _, bare, _ in lives],
            "foreign_cores": float(np.median([foreign for *_, foreign in lives])),
        }
        found.setdefault("models", {})[model] = result
        found["complete"] = set(found["models"]) >= set(models)
        write_json(out, found)
        low, high = result["ci95"]
        print(f"{model}: {result['ratio']:.4f} [{low:.4f}, {high:.4f}]", file=sys.stderr, flush=True)


def _life(path: Path, picture: Path) -> tuple[float, float, float]:
    """Medians in ms of a fresh process of the engine and of a bare loop that take turns, and cores that others used."""
    arm = Arm(cpu_network(str(path), CpuSettings()))
    with ExitStack() as stack:
        arm.start(stack)
        arm.wait()
        arm.load(MeasureProfile(1, 1))
        pipe = subprocess.PIPE
        bare = subprocess.Popen(
            [sys.executable, "-c", BARE, str(path), str(picture)], stdin=pipe, stdout=pipe, text=True
        )
        stack.enter_context(bare)
        assert bare.stdin is not None
        assert bare.stdout is not None

        def loop(seconds: float) -> tuple[list[float], float]:
            assert bare.stdin is not None
            assert bare.stdout is not None
            bare.stdin.write(f"{seconds}\n")
            bare.stdin.flush()
            times, cpu = json.loads(bare.stdout.readline())
            return times, cpu

        loop(1.0)
        samples: list[float] = []
        used, energy, others = 0.0, EnergyCounter(), ForeignLoad()
        for turn in range(TURNS):
            for ours in (True, False, False, True) if turn % 2 else (False, True, True, False):
                if ours:
                    used += arm.block(TURN_S, turn, energy)
                else:
                    times, cpu = loop(TURN_S)
                    samples += times
                    used += cpu
        foreign = others.cores(used)
        bare.stdin.close()
        assert arm.failed is None, arm.failed
    return float(np.median(arm.samples_ms)), float(np.median(samples)), foreign


def _begun(out: Path) -> dict[str, Any]:
    """What an earlier call has written, or a beginning."""
    if out.is_file():
        found: dict[str, Any] = read_json(out)
        return found
    return {"environment": environment(), "complete": False}


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("power", "fidelity"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--same", type=int, default=60)
    parser.add_argument("--more", type=int, default=40)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    if options.what == "power":
        power(options.out, {SAME: options.same, MORE: options.more}, end)
    else:
        fidelity(options.out, options.models.split(","), end)
    found = read_json(options.out)
    print(json.dumps({key: found.get(key) for key in ("complete", "summary", "models") if key in found}, indent=1))


if __name__ == "__main__":
    main()
