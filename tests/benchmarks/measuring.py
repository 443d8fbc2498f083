"""How far the measuring engine can be believed, on a machine where nothing else runs. Not a test.

    python tests/benchmarks/measuring.py power --out power.json          how often a difference is declared: 60 comparisons of
                                                                         a network with itself, 40 with 5 % more work
    python tests/benchmarks/measuring.py fidelity --out fidelity.json    the engine's median against a bare onnxruntime loop,
                                                                         three networks

Every result is written at once; the same command goes on where it was stopped, and begins nothing new after ``--minutes``
(power needs some 20 in all, fidelity 3). ``complete`` says that nothing is left; ``foreign_cores`` how quiet the machine was.
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

from depthbench.suites.environment import environment
from depthbench.suites.results import read_json, write_json
from depthbench.suites.targets.desktop_cpu import COMPARED, CpuSettings, cpu_network, measure
from depthbench.suites.targets.engine import Arm, MeasureProfile
from depthbench.suites.targets.intervals import compare
from depthbench.suites.targets.watch import EnergyCounter, ForeignLoad

COMPARISON = MeasureProfile(1.5, 100, block_s=0.1, warmup_s=0.2, warmup_runs=10, processes=COMPARED, longest=1.0)
SAME, MORE = "itself", "5 % more work"
MODELS = ("tst-t", "fastdepth", "mobilevit-xxs")
LIVES, TURNS, TURN_S = 5, 8, 0.125

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


def power(out: Path, wanted: dict[str, int], end: float) -> None:
    """Compare until all are done or the time is over; every comparison is written down."""
    found = _begun(out)
    rows: list[dict[str, Any]] = found.setdefault("comparisons", [])
    with tempfile.TemporaryDirectory() as folder:
        base = chain(Path(folder) / "20.onnx", 20)
        heads = {SAME: base, MORE: chain(Path(folder) / "21.onnx", 21)}
        todo = [(kind, seed) for kind in heads for seed in range(wanted[kind])]
        done = {(row["kind"], row["seed"]) for row in rows}
        for kind, seed in todo:
            if (kind, seed) in done:
                continue
            if time.monotonic() > end:
                break
            start = time.perf_counter()
            first, second = measure([heads[kind], base], COMPARISON, seed=seed, control=True)
            result = compare(first, second, first.control)
            row = {
                "kind": kind,
                "seed": seed,
                "ratio": result.ratio,
                "ci999": result.interval999,
                "control": result.control,
                "declared": result.different,
                "seconds": time.perf_counter() - start,
                "foreign_cores": float(np.median(first.facts["foreign_cores"])),
            }
            rows.append(row)
            found["summary"] = {kind: _summary([one for one in rows if one["kind"] == kind]) for kind in heads}
            found["complete"] = {(one["kind"], one["seed"]) for one in rows} >= set(todo)
            write_json(out, found)
            print(
                f"{kind} {seed + 1}/{wanted[kind]}: {result.ratio:.4f} {'declared' if result.different else ''}",
                file=sys.stderr,
            )


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "of": len(rows),
        "declared": sum(row["declared"] for row in rows),
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
            path = deployed(model, "fp32", None, progress).path
        others = ForeignLoad()
        pairs = [_life(path) for _ in range(LIVES)]
        logs = np.log([ours / bare for ours, bare, _ in pairs])
        half = stats.t.ppf(0.975, LIVES - 1) * logs.std(ddof=1) / np.sqrt(LIVES)
        found.setdefault("models", {})[model] = {
            "ratio": float(np.exp(logs.mean())),
            "ci95": [float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))],
            "engine_ms": [ours for ours, _, _ in pairs],
            "bare_ms": [bare for _, bare, _ in pairs],
            "foreign_cores": others.cores(sum(used for *_, used in pairs)),
        }
        found["complete"] = set(found["models"]) >= set(models)
        write_json(out, found)


def _life(path: Path) -> tuple[float, float, float]:
    """Medians in ms of a fresh process of the engine and of a bare loop that take turns, and processor seconds used."""
    arm = Arm(cpu_network(str(path), CpuSettings()))
    with ExitStack() as stack:
        arm.start(stack)
        arm.wait()
        arm.load(MeasureProfile(1, 1))
        used = 0.0
        pipe = subprocess.PIPE
        bare = subprocess.Popen([sys.executable, "-c", BARE, str(path)], stdin=pipe, stdout=pipe, text=True)
        stack.enter_context(bare)
        assert bare.stdin is not None
        assert bare.stdout is not None

        def loop(seconds: float) -> list[float]:
            assert bare.stdin is not None
            assert bare.stdout is not None
            bare.stdin.write(f"{seconds}\n")
            bare.stdin.flush()
            times: list[float] = json.loads(bare.stdout.readline())
            return times

        loop(1.0)
        samples: list[float] = []
        energy = EnergyCounter()
        for turn in range(TURNS):
            for ours in (True, False, False, True) if turn % 2 else (False, True, True, False):
                if ours:
                    used += arm.block(TURN_S, turn, energy)
                else:
                    samples += loop(TURN_S)
                    used += TURN_S
        bare.stdin.close()
        assert arm.failed is None, arm.failed
    return float(np.median(arm.samples_ms)), float(np.median(samples)), used


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
    parser.add_argument("--minutes", type=float, default=9.0)
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
