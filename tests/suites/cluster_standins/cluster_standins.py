"""A package with targets of its own: two boards and a processor that are not there, and files to measure on them.

Their times are a function of the file. What ``$STANDIN_LOG`` names has a line for each measurement: target, file, begin, end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from depthbench.suites.models import file_sha256
from depthbench.suites.results import Latency
from depthbench.suites.targets import Target
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.measuring import Work

EACH_S = float(os.environ.get("STANDIN_EACH_S", "0.03"))


def measure(
    name: str,
    work: Sequence[Work],
    profile: str,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Each file takes a moment."""
    del profile, seed, progress
    log = Path(os.environ["STANDIN_LOG"])
    outcomes = []
    for one in work:
        begun = time.time()
        try:
            if not outcomes:  # here, so that whoever sees it can interrupt nothing but what follows
                note(log.with_name(f"{name}.begun"), str(os.getpid()))
            time.sleep(EACH_S)
        except KeyboardInterrupt:
            if "STANDIN_DEAF" in os.environ:  # a library that does not stop when it should
                note(log.with_name(f"{name}.deaf"), "")
                time.sleep(EACH_S)
            raise
        sha = file_sha256(one.path)
        note(log, f"{name} {sha} {begun} {time.time()}")
        samples = [1 + int(sha[i : i + 2], 16) / 256 for i in range(0, 40, 2)]
        outcomes.append(Outcome(Latency("measured", samples_ms=samples, threads=1), None, {"target": name}))
    return outcomes


def note(path: Path, text: str) -> None:
    """Add a line to a file that several processes write."""
    with path.open("a") as file:
        file.write(f"{text}\n")


def _here() -> None:
    return None


CPU = Target("stand-in-cpu", "cpu", "measured", "a processor", _here, measure=partial(measure, "cpu"))
BOARD_A = Target("stand-in-a", "board", "measured", "a board", _here, opset=13, measure=partial(measure, "a"))
BOARD_B = Target("stand-in-b", "board", "measured", "a board", _here, opset=13, measure=partial(measure, "b"))


def network(path: Path, factor: float, size: int = 32) -> Path:
    """An ONNX file: depth = factor · mean of the channels."""
    scale = helper.make_tensor("factor", TensorProto.FLOAT, (1,), [factor])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "factor"], ["metres"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, size, size))
        for n, c in (("image", 3), ("metres", 1))
    ]
    graph = helper.make_graph(nodes, "grey", ends[:1], ends[1:], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
