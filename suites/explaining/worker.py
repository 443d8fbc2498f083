"""The process that runs one ONNX file for :mod:`depthbench.suites.explain`: one file, one fresh process.

Reads JSON lines: a specification, then one line for each block. Writes JSON lines: ``{"ready": {}}`` after the warm-up or
``{"error": line}``; the wall times of each block; and, asked to finish, the optimized graph's kernels with their times.
With ``{"rates": true}`` for a specification it answers what this machine attains, and ends.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

PROFILED_RUNS = 60
"""More runs under the profiler would only fill the disk: a kernel's time is a quartile of these."""

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class Profiled:
    """A file's two sessions, one timed from outside and one with the profiler, and what was seen so far.

    ``ValueError`` when an input is no image of float, float16 or uint8.
    """

    def __init__(self, path: str, folder: Path, threads: int, seed: int, image: str | None) -> None:
        self.optimized = folder / "optimized.onnx"
        self.plain = _session(path, threads)
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(self.optimized)
        self.profiled = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(seed)
        given = np.load(image) if image is not None else None
        self.feed = {i.name: _input(i, rng, given) for i in self.plain.get_inputs()}
        self.runs = 0

    def block(self, seconds: float) -> list[float]:
        """Inferences for ``seconds``, then half as many under the profiler; wall times of the first in ms."""
        samples: list[float] = []
        until = time.perf_counter() + seconds
        while not samples or time.perf_counter() < until:
            start = time.perf_counter()
            self.plain.run(None, self.feed)
            samples.append((time.perf_counter() - start) * 1e3)
        for _ in range(min(max(2, len(samples) // 2), PROFILED_RUNS - self.runs)):
            self.profiled.run(None, self.feed)
            self.runs += 1
        return samples

    def finish(self) -> dict[str, Any]:
        """One profiler's event a node, in the order of the optimized graph, ``ms`` its time in each run."""
        events = json.loads(Path(self.profiled.end_profiling()).read_text("utf-8"))
        kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
        nodes = onnx.load(self.optimized, load_external_data=False).graph.node
        ran = len(kernels) // self.runs
        order = [event["args"]["op_name"] for event in kernels[:ran]]
        if len(kernels) % self.runs or order != [node.op_type for node in nodes]:
            raise ValueError("its control flow (If, Loop) is not followed by the profile")
        first = kernels[ran : 2 * ran] if self.runs > 1 else kernels[:ran]
        seen = [
            {"args": {"output_type_shape": event["args"].get("output_type_shape", [])}, "ms": times}
            for event, times in zip(
                first, np.array([e["dur"] for e in kernels]).reshape(self.runs, ran).T / 1e3, strict=True
            )
        ]
        return {"events": [event | {"ms": event["ms"][1:].tolist()} for event in seen], "feed": _shapes(self.feed)}


def _shapes(feed: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    names = {"float32": "float", "float64": "double"}
    return {name: [names.get(value.dtype.name, value.dtype.name), list(value.shape)] for name, value in feed.items()}


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.log_severity_level = 4  # errors come as exceptions
    return options


def _session(model: str | bytes, threads: int) -> ort.InferenceSession:
    return ort.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])


def _input(value: Any, rng: np.random.Generator, given: NDArray[Any] | None) -> NDArray[Any]:
    wanted = _TYPES.get(value.type)
    if wanted is None:
        raise ValueError(f"input {value.name} is {value.type}; float, float16 and uint8 images are supported")
    shape = [side if isinstance(side, int) else 1 for side in value.shape]
    if given is not None and list(given.shape) == shape:
        return given.astype(wanted)
    if given is not None:
        raise ValueError(f"input {value.name} is {'x'.join(map(str, shape))}, not {'x'.join(map(str, given.shape))}")
    values = rng.random(shape, dtype=np.float32)
    return (values * 255).astype(wanted) if wanted is np.uint8 else values.astype(wanted)


def attainable(threads: int) -> dict[str, Any]:
    """What this machine attains, the best of several tries each.

    ``fp32`` and ``int8``: MACs a second of a large matrix product in ONNX Runtime; ``bandwidth``: pairs of traffic (bytes) and
    bytes a second, of adding two arrays; ``launch_ms``: an operator on one number; ``block``: channels are padded to
    multiples of it in ONNX Runtime's blocked layout (1: there is none here).
    """
    side = 512
    rng = np.random.default_rng(0)
    right = rng.integers(-99, 99, (side, side)).astype(np.int8)
    left = rng.integers(0, 255, (side, side)).astype(np.uint8)
    rates = {}
    for name, op, a, b in (
        ("fp32", "MatMul", left.astype(np.float32), right.astype(np.float32)),
        ("int8", "MatMulInteger", left, right),
    ):
        session = _session(_one_product(op, a, b), threads)
        rates[name] = side**3 / _fastest(partial(session.run, None, {"x": a}))
    bandwidth = []
    for elements in (1 << 14, 1 << 17, 1 << 20, 1 << 23):
        first, second = np.ones((2, elements), np.float32)
        bandwidth.append((12 * elements, 12 * elements / _fastest(partial(np.add, first, second, out=second))))
    return {**rates, "bandwidth": bandwidth, "launch_ms": _launch_ms(threads), "block": _block(threads)}


def _fastest(call: Callable[[], Any], seconds: float = 0.1, least: int = 5) -> float:
    """Seconds of the fastest of several calls."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _model(nodes: list[Any], shape: list[int], kind: int, out: int, constants: list[Any]) -> bytes:
    x, y = helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", out, None)
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return bytes(made.SerializeToString())


def _one_product(op: str, a: NDArray[Any], b: NDArray[Any]) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    out = TensorProto.FLOAT if op == "MatMul" else TensorProto.INT32
    weight = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(b.dtype), b.shape, b.tobytes(), raw=True)
    return _model([helper.make_node(op, ["x", "w"], ["y"])], list(a.shape), kind, out, [weight])


def _launch_ms(threads: int, count: int = 64, runs: int = 40) -> float:
    """What the profiler says of an operator on one number: nearly all of it is the launch."""
    names = [*(f"t{i}" for i in range(count)), "y"]
    chain = [helper.make_node("Sin", [names[i - 1] if i else "x"], [names[i]], name=f"n{i}") for i in range(count + 1)]
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "p")
        model = _model(chain, [1], TensorProto.FLOAT, TensorProto.FLOAT, [])
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, {"x": np.ones(1, np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    times = np.array([e["dur"] for e in events if e.get("cat") == "Node"]).reshape(runs, count + 1)
    return float(max(times.sum(axis=1).min() / (count + 1), 0.5)) / 1e3


def _block(threads: int) -> int:
    """Channels that ONNX Runtime makes of 20, seen in the graph it writes."""
    values = np.ones((20, 24, 1, 1), np.float32)
    weight = helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.tobytes(), raw=True)
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.optimized_model_filepath = str(Path(folder) / "m.onnx")
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="c")
        ort.InferenceSession(
            _model([node], [1, 24, 8, 8], TensorProto.FLOAT, TensorProto.FLOAT, [weight]),
            options,
            providers=["CPUExecutionProvider"],
        )
        written = onnx.load(options.optimized_model_filepath).graph
    channels = next((entry.dims[0] for entry in written.initializer if len(entry.dims) == 4), 20)
    return {32: 16, 24: 8}.get(channels, 1)


def main() -> None:
    """Answer the lines on standard input until it ends."""
    spec = json.loads(sys.stdin.readline())
    if spec.get("rates"):
        print(json.dumps(attainable(spec["threads"])), flush=True)
        return
    try:
        profiled = Profiled(spec["file"], Path(spec["folder"]), spec["threads"], spec["seed"], spec["image"])
        profiled.block(spec["warmup_s"])
    except Exception as error:  # the runtime's exceptions share no base class; the reason goes to the caller
        reason = " ".join(str(error).split())[:300]
        print(json.dumps({"error": f"{spec['file']}: ONNX Runtime refuses it: {reason}"}), flush=True)
        return
    print(json.dumps({"ready": {}}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "block" in asked:
            print(json.dumps({"samples_ms": profiled.block(asked["block"])}), flush=True)
            continue
        try:
            answer = profiled.finish()
        except ValueError as error:
            answer = {"error": f"{spec['file']}: {error}"}
        print(json.dumps(answer), flush=True)
        return


if __name__ == "__main__":
    main()
