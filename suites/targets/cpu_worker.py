"""The process that times ONNX files for :mod:`depthbench.suites.targets.desktop_cpu`.

Reads one JSON specification from standard input; writes JSON lines: ``{"progress": share}``, then ``{"result": [...]}``, or
``{"error": line}``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import numpy as np
import onnxruntime as ort

STABLE = 0.02
"""Warm-up ends when the medians of its last two windows differ by less than this share, or after five times its length."""


class Timed:
    """One file's session, its input, and the times of its inferences."""

    def __init__(self, path: str, threads: int, seed: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(seed)
        self.feed = {i.name: _input(i, rng) for i in self.session.get_inputs()}
        self.warmup_ms: list[float] = []
        self.samples_ms: list[float] = []
        self.blocks: list[int] = []
        self.spent_s = 0.0

    def once(self) -> float:
        """One inference, in ms of wall time."""
        start = time.perf_counter()
        self.session.run(None, self.feed)
        return (time.perf_counter() - start) * 1e3

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


def _input(info: Any, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = [side if isinstance(side, int) else 1 for side in info.shape]
    values = rng.random(shape, dtype=np.float32)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    kind = kinds.get(info.type)
    if kind is None:
        raise ValueError(f"input {info.name} is {info.type}; float, float16 and uint8 images are supported")
    return (values * 255).astype(kind) if kind is np.uint8 else values.astype(kind)


def main() -> None:
    """Carry out the specification on standard input."""
    spec = json.load(sys.stdin)
    profile = spec["profile"]
    timed: list[Timed] = []
    for path in spec["files"]:
        try:
            timed.append(Timed(path, spec["threads"], spec["seed"]))
        except Exception as error:  # ONNX Runtime's exceptions share no base class; the reason goes to the caller
            print(
                json.dumps({"error": f"{path}: ONNX Runtime refuses it: {' '.join(str(error).split())[:300]}"}),
                flush=True,
            )
            return
    for one in timed:
        one.warm_up(profile["warmup_s"], profile["warmup_runs"])
    order = random.Random(spec["seed"])
    number = 0
    while any(t.spent_s < profile["seconds"] or len(t.samples_ms) < profile["samples"] for t in timed):
        row = order.sample(timed, len(timed))
        for one in [*row, *reversed(row)]:
            one.block(profile["block_s"] / 2, number)
        number += 1
        done = [min(1.0, t.spent_s / profile["seconds"], len(t.samples_ms) / profile["samples"]) for t in timed]
        print(json.dumps({"progress": sum(done) / len(done)}), flush=True)
    result = [{"warmup_ms": t.warmup_ms, "samples_ms": t.samples_ms, "blocks": t.blocks} for t in timed]
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    main()
