"""Targets: the devices that a network is measured on, or predicted for.

A target has a kind (which decides the precision that a recipe is deployed in, see ``Recipe.precision``), the precisions
it can run, and a ``probe`` that says why it is not available here. A target that is not there is a named skip. This
module imports nothing heavy; the code that measures is in the modules beside it.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Target:
    """A row of the target table.

    ``refuses``: precisions that the device cannot run, each with the reason. ``opset``: of the ONNX files it is given.
    ``probe``: None when the target can be used here, else the reason why not.
    """

    name: str
    kind: Literal["cpu", "cuda", "board"]
    how: Literal["measured", "predicted"]
    summary: str
    probe: Callable[[], str | None]
    threads: Literal["one", "all"] | None = None
    opset: int = 17
    refuses: Mapping[str, str] = field(default_factory=dict)


def _available() -> str | None:
    return None


def _cuda() -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return "ONNX Runtime sees a CUDA device, but measuring on it is not supported by this version"
    return "no CUDA device: ONNX Runtime here has no CUDAExecutionProvider"


def _jetson() -> str | None:
    if not Path("/etc/nv_tegra_release").is_file():
        return "this machine is not a Jetson (there is no /etc/nv_tegra_release)"
    if shutil.which("trtexec") is None and not Path("/usr/src/tensorrt/bin/trtexec").is_file():
        return "this Jetson has no trtexec (install TensorRT from its JetPack)"
    return "this is a Jetson, but measuring on it is not supported by this version"


BOARD_OPSET = 13
"""The newest opset that every TensorRT from 8.2 on reads, so that one file serves all boards."""

_NO_INT8 = {"int8-trt": "no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16 or prune30"}


def _board(name: str, title: str, refuses: Mapping[str, str] | None = None) -> Target:
    return Target(
        name, "board", "predicted", f"{title}, predicted", _available, opset=BOARD_OPSET, refuses=refuses or {}
    )


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target("desktop-cpu", "cpu", "measured", "ONNX Runtime on this CPU, one thread", _available, "one"),
            Target("desktop-cpu-all", "cpu", "measured", "ONNX Runtime on this CPU, all cores", _available, "all"),
            Target("desktop-cuda", "cuda", "measured", "this machine's CUDA GPU", _cuda),
            Target("jetson", "board", "measured", "the Jetson that this runs on", _jetson, opset=BOARD_OPSET),
            _board("jetson-nano", "Jetson Nano (TensorRT 8.2)", _NO_INT8),
            _board("jetson-tx2", "Jetson TX2 (TensorRT 8.2)", _NO_INT8),
            _board("jetson-xavier-nx", "Jetson Xavier NX (TensorRT 8.5)"),
            _board("jetson-agx-xavier", "Jetson AGX Xavier (TensorRT 8.5)"),
            _board("jetson-orin-nano", "Jetson Orin Nano 8GB (TensorRT 10.3)"),
            _board("jetson-orin-nano-super", "Jetson Orin Nano Super (TensorRT 10.3)"),
            _board("jetson-orin-nx", "Jetson Orin NX 16GB (TensorRT 10.3)"),
            _board("jetson-agx-orin", "Jetson AGX Orin 64GB (TensorRT 10.3)"),
        )
    }
)
