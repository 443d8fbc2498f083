"""A long-lived process that times one ONNX file on demand for :mod:`depthbench.suites.gating.timing`.

Reads JSON lines: first ``{"file", "threads", "seed", "warmup_s"}``, then ``{"block": seconds}`` for each block. Writes JSON
lines: ``{"ready": onnxruntime's version}`` or ``{"error": line}``, then for each block the times of its inferences and what
the processor did meanwhile.
"""

from __future__ import annotations

import json
import sys
import time

import onnxruntime as ort

from depthbench.suites.targets.cpu_worker import Timed

WARMUP_RUNS = 10


def main() -> None:
    """Answer the lines on standard input until it ends."""
    spec = json.loads(sys.stdin.readline())
    try:
        timed = Timed(spec["file"], spec["threads"], spec["seed"])
        timed.warm_up(spec["warmup_s"], WARMUP_RUNS)
    except Exception as error:  # ONNX Runtime's exceptions share no base class; the reason goes to the caller
        reason = " ".join(str(error).split())[:300]
        print(json.dumps({"error": f"{spec['file']}: ONNX Runtime refuses it: {reason}"}), flush=True)
        return
    print(json.dumps({"ready": ort.__version__}), flush=True)
    for line in sys.stdin:
        timed.samples_ms.clear()
        timed.blocks.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        timed.block(json.loads(line)["block"], 0)
        spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps({"samples_ms": timed.samples_ms, **spent}), flush=True)


if __name__ == "__main__":
    main()
