"""The process that times one ONNX file in ONNX Runtime or OpenVINO: one file, one fresh process.

What it reads and writes is in :mod:`depthbench.suites.targets.worker_loop`; it is started by
:class:`depthbench.suites.targets.worker.Worker`, for a measurement and for a gate.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.targets.processing import room_input
from depthbench.suites.targets.worker_loop import Timed, serve, wall_ms

Opened = tuple[Callable[[], Any], Iterable[NDArray[Any]], str]
"""One inference, what it is fed, and the runtime's version."""


def _onnxruntime(path: str, spec: dict[str, Any]) -> Opened:
    import onnxruntime as ort

    threads = spec["threads"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else threads spin on in the next one's turn
    options.log_severity_level = 3
    provider = spec.get("provider", "CPUExecutionProvider")
    exact = {"use_tf32": "0"} if provider == "CUDAExecutionProvider" else {}
    session = ort.InferenceSession(path, options, providers=[(provider, exact)])
    if session.get_providers()[0] != provider:  # it falls back to the CPU without a word
        raise ValueError(f"{provider} does not start here")
    feed = {i.name: _input(i.name, i.type, i.shape, spec["seed"]) for i in session.get_inputs()}
    return lambda: session.run(None, feed), feed.values(), ort.__version__


def _openvino(path: str, spec: dict[str, Any]) -> Opened:
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": spec["threads"], "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    kinds = {"f32": "tensor(float)", "f16": "tensor(float16)", "u8": "tensor(uint8)"}
    feed = {}
    for port in compiled.inputs:
        kind = port.get_element_type().get_type_name()
        shape = list(port.get_partial_shape().to_shape())
        feed[port] = _input(port.get_any_name(), kinds.get(kind, kind), shape, spec["seed"])
    request = compiled.create_infer_request()
    return lambda: request.infer(feed), feed.values(), ov.__version__


def _input(name: str, kind: str, sides: list[Any], seed: int) -> NDArray[Any]:
    """What an input is fed: the picture where it takes pictures (N, 3, H, W), else fixed random values in [0, 1]."""
    shape = [side if isinstance(side, int) else 1 for side in sides]
    wanted = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(kind)
    if wanted is None:
        raise ValueError(f"input {name} is {kind}; float, float16 and uint8 images are supported")
    if _takes_pictures(shape):
        values = np.repeat(room_input((shape[2], shape[3])), shape[0], axis=0)  # (N, 3, H, W)
    else:
        values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return (values * 255).astype(wanted) if wanted is np.uint8 else values.astype(wanted)


def _load(spec: dict[str, Any]) -> tuple[Timed, dict[str, Any]]:
    if spec.get("affinity") is not None:
        os.sched_setaffinity(0, spec["affinity"])
    start = time.perf_counter()
    infer, fed, version = _RUNTIMES[sys.argv[1]](spec["file"], spec)
    load_ms = (time.perf_counter() - start) * 1e3
    sizes = [(image.shape[2], image.shape[3]) for image in fed if _takes_pictures(image.shape)]
    return Timed(lambda: wall_ms(infer), load_ms, sizes[0] if sizes else None), {"version": version}


def _takes_pictures(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[1] == 3


_RUNTIMES = {"onnxruntime": _onnxruntime, "openvino": _openvino}

if __name__ == "__main__":
    os.environ.setdefault("CI", "true")  # OpenVINO's telemetry then sends nothing: it would run beside the measurement
    importlib.import_module(sys.argv[1])  # before the specification comes: what it needs is no part of a file's memory
    serve(_load)
