"""The process that times one ONNX file for :mod:`depthbench.suites.targets.desktop_cpu`: one file, one fresh process.

Reads JSON lines: a specification, then one line for each block. Writes JSON lines: ``{"ready": {...}}`` after the warm-up, or
``{"error": line}``; then the times of each block and what the processor and the memory did meanwhile.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

STABLE = 0.02
"""Warm-up ends when the medians of its last two windows differ by less than this share, or after five times its length."""


class Timed:
    """One file's session, its input, and the times of its inferences.

    ``runtime``: ``"onnxruntime"`` or ``"openvino"``. ``load_ms``: from the file to a session. ``first_ms``: the first
    inference; None before the warm-up.
    """

    def __init__(self, path: str, threads: int, seed: int, runtime: str = "onnxruntime") -> None:
        start = time.perf_counter()
        self.infer = (_openvino if runtime == "openvino" else _onnxruntime)(path, threads, np.random.default_rng(seed))
        self.load_ms = (time.perf_counter() - start) * 1e3
        self.first_ms: float | None = None
        self.warmup_ms: list[float] = []
        self.samples_ms: list[float] = []
        self.blocks: list[int] = []
        self.spent_s = 0.0

    def once(self) -> float:
        """One inference, in ms of wall time."""
        start = time.perf_counter()
        self.infer()
        return (time.perf_counter() - start) * 1e3

    def warm_up(self, seconds: float, runs: int) -> None:
        """Run until stable: at least ``runs`` and ``seconds``, then until two windows in a row agree."""
        start = time.perf_counter()
        while True:
            self.warmup_ms.append(self.once())
            if self.first_ms is None:
                self.first_ms = self.warmup_ms[0]
            spent = time.perf_counter() - start
            if spent < seconds or len(self.warmup_ms) < max(runs, 10):
                continue
            window = len(self.warmup_ms) // 3
            last, before = np.median(self.warmup_ms[-window:]), np.median(self.warmup_ms[-2 * window : -window])
            if abs(last / before - 1) < STABLE or spent > 5 * seconds:
                return

    def block(self, seconds: float, number: int) -> None:
        """Inferences for ``seconds``, at least one."""
        start = time.perf_counter()
        while True:
            self.samples_ms.append(self.once())
            self.blocks.append(number)
            spent = time.perf_counter() - start
            if spent >= seconds:
                break
        self.spent_s += spent


def _onnxruntime(path: str, threads: int, rng: np.random.Generator) -> Callable[[], Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {i.name: _input(i.name, i.type, i.shape, rng) for i in session.get_inputs()}
    return lambda: session.run(None, feed)


def _openvino(path: str, threads: int, rng: np.random.Generator) -> Callable[[], Any]:
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    kinds = {"f32": "tensor(float)", "f16": "tensor(float16)", "u8": "tensor(uint8)"}
    feed = {}
    for port in compiled.inputs:
        kind = port.get_element_type().get_type_name()
        feed[port] = _input(port.get_any_name(), kinds.get(kind, kind), list(port.get_partial_shape().to_shape()), rng)
    request = compiled.create_infer_request()
    return lambda: request.infer(feed)


def _input(name: str, kind: str, sides: list[Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = [side if isinstance(side, int) else 1 for side in sides]
    values = rng.random(shape, dtype=np.float32)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    wanted = kinds.get(kind)
    if wanted is None:
        raise ValueError(f"input {name} is {kind}; float, float16 and uint8 images are supported")
    return (values * 255).astype(wanted) if wanted is np.uint8 else values.astype(wanted)


def _peak_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Answer the lines on standard input until it ends."""
    spec = json.loads(sys.stdin.readline())
    runtime = spec["runtime"]
    name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[runtime]
    try:
        if spec["affinity"] is not None:
            os.sched_setaffinity(0, spec["affinity"])
        before_mb = _peak_mb()
        timed = Timed(spec["file"], spec["threads"], spec["seed"], runtime)
        timed.warm_up(spec["warmup_s"], spec["warmup_runs"])
    except Exception as error:  # the runtimes' exceptions share no base class; the reason goes to the caller
        reason = " ".join(str(error).split())[:300]
        print(json.dumps({"error": f"{spec['file']}: {name} refuses it: {reason}"}), flush=True)
        return
    ready = {
        "load_ms": timed.load_ms,
        "first_ms": timed.first_ms,
        "warmup_ms": timed.warmup_ms,
        "idle_mem_mb": before_mb,
        "version": importlib.metadata.version(runtime),
    }
    print(json.dumps({"ready": ready}), flush=True)
    for line in sys.stdin:
        timed.samples_ms.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        timed.block(json.loads(line)["block"], 0)
        spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mem_mb": _peak_mb()}
        print(json.dumps({"samples_ms": timed.samples_ms, **spent}), flush=True)


if __name__ == "__main__":
    main()
