"""What a run costs for a cell of which everything is in the store: a generated suite of trivial files, run twice.

    python tests/benchmarks/cached_cells.py [--cells 1000]

The first run makes the files; the second one, in a run folder of its own, finds them all; the third finds the records too.
Milliseconds of wall time a cell come out, the start of the program apart.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

BOARDS = ("jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-orin-nano", "jetson-orin-nx")


def network(path: Path, factor: float) -> None:
    """An ONNX file: depth = factor · mean of the channels."""
    scale = helper.make_tensor("factor", TensorProto.FLOAT, (1,), [factor])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "factor"], ["metres"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, 32, 32)) for n, c in (("image", 3), ("metres", 1))
    ]
    graph = helper.make_graph(nodes, "grey", ends[:1], ends[1:], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def main() -> None:
    """Run the suite three times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--profile", action="store_true", help="where the second run's time goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DEPTHBENCH_CACHE"], os.environ["DEPTHBENCH_LOCKS"] = str(folder / "cache"), str(folder / "locks")
        print(json.dumps(measure(folder, options.cells, options.profile)))


def measure(folder: Path, cells: int, profiled: bool = False) -> dict[str, float]:
    """Milliseconds a cell of the three runs."""
    from depthbench.suites.runner import Request, run
    from depthbench.suites.schema import parse_suite

    (folder / "images").mkdir()
    for i in range(16):
        Image.fromarray(np.full((32, 32, 3), 60 + i, np.uint8)).save(folder / "images" / f"{i}.jpg")
        Image.fromarray(np.full((32, 32), 2000 + i, np.uint16)).save(folder / "images" / f"{i}.png")
    names = [f"net{i}.onnx" for i in range(cells // len(BOARDS))]
    for i, file in enumerate(names):
        network(folder / file, 4 + i / 100)
    text = f"name: many\ndata: {{name: folder, limit: 1}}\nmatrix:\n  - models: [{', '.join(names)}]\n"
    text += f"    recipes: [fp16]\n    sizes: [32x32]\n    targets: [{', '.join(BOARDS)}]\n"
    suite = parse_suite(text, "many.yaml", folder)
    found = {}
    for label, out in (("made", "first"), ("cached", "second"), ("recorded", "second")):
        request = Request(suite, folder / out, folder, folder / "images")
        profile = cProfile.Profile()
        if profiled and label == "cached":
            profile.enable()
        started = time.perf_counter()
        outcome = run(request, lambda *_: None)
        found[f"{label}_ms"] = round(1000 * (time.perf_counter() - started) / len(outcome.records), 3)
        profile.disable()
        if profiled and label == "cached":
            pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
        assert {record.status for record in outcome.records} == {"ok"}, {record.reason for record in outcome.records}
        assert outcome.computed == (0 if label == "recorded" else len(outcome.records))
    return found


if __name__ == "__main__":
    main()
