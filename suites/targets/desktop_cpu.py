"""Latency in ONNX Runtime or OpenVINO on this machine's CPU, interleaved between the compared files.

Each file has fresh processes (:mod:`depthbench.suites.targets.cpu_worker`); the engine
(:mod:`depthbench.suites.targets.engine`) lets one of them work at a time.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthbench.suites.environment import environment
from depthbench.suites.names import lookup
from depthbench.suites.targets.engine import Measured, MeasureProfile, Network, interleave

WORKER = "depthbench.suites.targets.cpu_worker"

PROFILES = {
    "quick": MeasureProfile(10, 100),
    "standard": MeasureProfile(60, 662, processes=3),
    "sustained": MeasureProfile(600, 662, processes=3),
}

COMPARED = 8
"""Fresh processes of each file when two are compared: so many are needed to tell 5 % from their luck."""

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class CpuSettings:
    """How a file runs on a CPU: threads of the runtime, the cores it is bound to (None: any), and the runtime."""

    threads: int = 1
    affinity: tuple[int, ...] | None = None
    runtime: str = "onnxruntime"


def check_settings(settings: CpuSettings) -> None:
    """``ValueError`` when this machine lacks a core or the runtime."""
    lookup("runtime", settings.runtime, RUNTIMES)
    if settings.runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        raise ValueError("runtime openvino is not installed: pip install 'depthbench[openvino]'")
    if settings.affinity is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise ValueError("this system cannot bind a process to cores")
        usable = sorted(os.sched_getaffinity(0))
        if missing := sorted(set(settings.affinity) - set(usable)):
            raise ValueError(f"core {', '.join(map(str, missing))} is not here (usable: {', '.join(map(str, usable))})")


def cpu_network(file: str, settings: CpuSettings, seed: int = 0) -> Network:
    """An ONNX file as the engine measures it."""
    spec = {"file": file, "threads": settings.threads, "affinity": settings.affinity, "seed": seed}
    return Network(WORKER, (settings.runtime,), spec, f"{file}: {RUNTIMES[settings.runtime]} refuses it")


def measure(
    files: Sequence[Path], profile: MeasureProfile, settings: CpuSettings | None = None, **options: Any
) -> list[Measured]:
    """As :func:`try_measure`; ``ValueError`` names a file that cannot be measured."""
    measured = []
    for one in try_measure(files, profile, settings, **options):
        if isinstance(one, str):
            raise ValueError(one)
        measured.append(one)
    return measured


def try_measure(
    files: Sequence[Path],
    profile: MeasureProfile,
    settings: CpuSettings | None = None,
    *,
    seed: int = 0,
    control: bool = False,
    processing: bool = False,
    progress: Callable[[float], None] | None = None,
) -> list[Measured | str]:
    """Measure ONNX files against each other, on a fixed picture; for each, in their order, the result or why there is none.

    See :func:`depthbench.suites.targets.engine.interleave`. ``ValueError`` names a setting that this machine lacks.
    """
    chosen = settings or CpuSettings()
    check_settings(chosen)
    networks = [cpu_network(str(path), chosen, seed) for path in files]
    return interleave(networks, profile, seed=seed, control=control, processing=processing, progress=progress)


def thread_count(threads: str | None) -> int:
    """Threads of a CPU target: ``"one"`` or ``"all"`` cores that this process may use."""
    return len(os.sched_getaffinity(0)) if threads == "all" else 1


def measuring_environment(threads: int) -> dict[str, Any]:
    """The environment of a measurement with the libraries' versions and the runtime's settings."""
    from depthbench.suites.plan import library_versions

    settings = {"intra_op_threads": threads, "inter_op_threads": 1, "execution": "sequential"}
    return {**environment(), "libraries": library_versions(), **settings}
