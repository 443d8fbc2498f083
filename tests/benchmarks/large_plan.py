"""What ``depthbench plan`` takes for a suite of 10,400 cells: seconds and the most memory, by the whole command.

    python tests/benchmarks/large_plan.py [--blocks]

``--blocks``: the same cells, each as a block of its own, so that the file is large too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = ["tst-t", "tst-s", "tst-b", "fastdepth", "fastdepth-pruned", "mobilevit-xxs", "mobilevit-xs", "mobilevit-s"]
RECIPES = ["fp16", "fp32", "int8", "int8-trt", "prune30", "prune30-int8", "prune50", "prune50-int8", "int8-full", "own"]
SIZES = [f"{32 * side}x{32 * side + 32}" for side in range(2, 15)]
BOARDS = ["nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nano-super", "orin-nx", "agx-orin"]
TARGETS = [*(f"jetson-{board}" for board in BOARDS), "desktop-cpu", "desktop-cpu-all"]
HEAD = "name: large\nrecipes:\n  own: {steps: [{prune: {macs_ratio: 0.6}}], precision: {cpu: fp32, board: fp16}}\nmatrix:\n"


def block(*axes: list[str]) -> str:
    models, recipes, sizes, targets = (f"[{', '.join(values)}]" for values in axes)
    return f"  - {{models: {models}, recipes: {recipes}, sizes: {sizes}, targets: {targets}}}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", action="store_true")
    axes = (MODELS, RECIPES, SIZES, TARGETS)
    blocks = parser.parse_args().blocks
    body = "".join(block(*([v] for v in cell)) for cell in itertools.product(*axes)) if blocks else block(*axes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(HEAD + body)
        command = [sys.executable, "-c", "from depthbench.suites.cli import main; main()", "plan", str(path), "--json"]
        started = time.perf_counter()
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            env={**os.environ, "DEPTHBENCH_CACHE": str(Path(folder) / "cache")},
        )
        seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cells = len(json.loads(done.stdout)["cells"])
    cpu_s = usage.ru_utime + usage.ru_stime
    print(
        json.dumps(
            {"cells": cells, "seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2), "mb": usage.ru_maxrss // 1024}
        )
    )


if __name__ == "__main__":
    main()
