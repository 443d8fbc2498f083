"""Latency on this machine's CUDA GPU: torch with CUDA events and graphs, or ONNX Runtime's CUDA provider.

Each network has fresh processes (:mod:`depthbench.suites.targets.cuda_worker`, or the CPU's for ONNX files); the engine
lets one of them work at a time. ``runtime`` torch: the details hold the device's time and, apart, ``wall_ms``. ``runtime``
onnxruntime: the wall's time from host to host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.environment import environment
from depthbench.suites.names import lookup
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.desktop_cpu import CpuSettings, cpu_network
from depthbench.suites.targets.engine import Measured, MeasureProfile, Network, interleave

if TYPE_CHECKING:
    from depthbench.suites.targets.measuring import Work

DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Where a driver shows itself: on Linux, in a container, in WSL."""

RUNTIMES = {"torch": "torch", "onnxruntime": "ONNX Runtime's CUDA provider"}
WORKER = "depthbench.suites.targets.cuda_worker"


def unavailable() -> str | None:
    """Why there is no CUDA here, or None. torch is imported only where there is a driver."""
    if not any(path.exists() for path in DRIVERS):
        return "no CUDA device: there is no NVIDIA driver here"
    import torch

    if torch.version.cuda is None:
        return "torch is installed without CUDA (see pytorch.org for the CUDA build)"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def onnxruntime_lacks_cuda() -> str | None:
    """Why ONNX Runtime cannot use a GPU here, or None."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return "onnxruntime is installed without CUDA (pip install onnxruntime-gpu in its place)"


def check_runtime(runtime: str) -> None:
    """``ValueError`` when the runtime is unknown or not here."""
    lookup("runtime", runtime, RUNTIMES)
    if runtime == "onnxruntime" and (why := onnxruntime_lacks_cuda()) is not None:
        raise ValueError(why)


def measure(
    work: Sequence[Work],
    profile: MeasureProfile,
    runtime: str = "torch",
    *,
    batches: Sequence[int] = (),
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Measure on the GPU, in FP32 or FP16; one outcome each. An ONNX file alone runs in ONNX Runtime, whatever ``runtime`` is.

    A network that cannot be captured, that does not give on the GPU what it gives on the CPU, or whose process ends, is a
    failure of its own.
    """
    from depthbench.suites.plan import library_versions
    from depthbench.suites.targets.measuring import (
        THROUGHPUT_SHARE,
        outcomes,
        split_progress,
        throughput,
        throughput_profile,
    )

    first, second = split_progress(progress, len(batches) * THROUGHPUT_SHARE)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        networks = [_network(one, runtime, 1, folder / str(i), seed) for i, one in enumerate(work)]
        found = _measured(networks, profile, seed=seed, control=len(work) > 1, processing=True, progress=first)
        rates: list[list[dict[str, Any]]] = [[] for _ in work]
        usable = [(i, batch) for batch in batches for i in range(len(work)) if isinstance(found[i], Measured)]
        larger = [_network(work[i], runtime, batch, folder / str(i), seed) for i, batch in usable]
        for (i, batch), one in zip(
            usable, _measured(larger, throughput_profile(profile), seed=seed, progress=second), strict=True
        ):
            rates[i].append(throughput(batch, one))
    extra = [{"throughput": rate} if rate else {} for rate in rates]
    where = environment() | {"libraries": library_versions()} | gpu_environment()
    made = outcomes(found, where, extra, clock="device")
    return [
        _as_wall(one) if isinstance(network, Network) and network.module != WORKER else one
        for one, network in zip(made, networks, strict=True)
    ]


def _as_wall(outcome: Outcome) -> Outcome:
    """ONNX Runtime's times are the wall's."""
    if outcome.latency is None:
        return outcome
    return replace(outcome, latency=replace(outcome.latency, details={**outcome.latency.details, "clock": "wall"}))


def _measured(
    networks: Sequence[Network | str], profile: MeasureProfile, *, control: bool = False, **options: Any
) -> list[Measured | str]:
    """What the engine says of the networks, with the reasons of those that did not get so far in their places."""
    usable = [network for network in networks if isinstance(network, Network)]
    if not usable:
        return [network for network in networks if isinstance(network, str)]
    clock = ("gpu_mhz", gpu_mhz)
    found = iter(interleave(usable, profile, control=control and len(usable) > 1, clock=clock, **options))
    return [network if isinstance(network, str) else _without_energy(next(found)) for network in networks]


def _without_energy(one: Measured | str) -> Measured | str:
    """Without what the processor's counter says: it does not see the GPU."""
    if isinstance(one, str):
        return one
    facts = {name: value for name, value in one.facts.items() if name != "energy_mj"}
    return replace(one, facts={**facts, "energy_absent": "no counter of the GPU's energy is read"})


def _network(work: Work, runtime: str, batch: int, file: Path, seed: int) -> Network | str:
    """What the engine starts for a batch size, or the reason why it cannot."""
    if work.build is None or runtime == "onnxruntime":
        return _onnx_network(work, batch, file, seed)
    import torch

    path = file.with_suffix(".pt")
    if not path.is_file():
        try:
            torch.save(work.build().eval(), path)
        except Exception as error:  # pickle raises whatever a user's class does
            reason = " ".join(str(error).split())[:200]
            return f"the network cannot be given to a process of its own ({reason}): define its classes in a module"
    spec = {"file": str(path), "size": list(work.size), "precision": work.precision, "batch": batch}
    paths = os.pathsep.join(path for path in sys.path if path)
    return Network(WORKER, (), spec, "CUDA", {"PYTHONPATH": paths})


def _onnx_network(work: Work, batch: int, file: Path, seed: int) -> Network | str:
    from depthbench.suites.targets.batches import rebatched

    if (why := onnxruntime_lacks_cuda()) is not None:
        return f"an ONNX file alone cannot run in torch, and {why}"
    path = work.path
    if batch > 1:
        try:
            path = rebatched(work.path, batch, file.with_name(f"{file.name}-{batch}.onnx"))
        except ValueError as error:
            return str(error)
    network = cpu_network(str(path), CpuSettings(), seed)
    return replace(network, spec={**network.spec, "provider": "CUDAExecutionProvider"})


def gpu_mhz() -> float | None:
    """The GPU's clock now, in MHz, as ``nvidia-smi`` gives it; None where it cannot be asked."""
    said = _nvidia_smi("clocks.sm")
    return float(said["clocks.sm"]) if said.get("clocks.sm", "").replace(".", "").isdigit() else None


def _first_gpu() -> str:
    """The GPU that CUDA's first device is, as ``nvidia-smi`` takes it: an index or a UUID."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


def _nvidia_smi(*names: str) -> dict[str, str]:
    """What ``nvidia-smi`` says of the first GPU; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", f"--id={_first_gpu()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else {}


def gpu_environment() -> dict[str, Any]:
    """The GPU, its driver and limits, and the libraries on it."""
    import torch

    cudnn: Any = torch.backends.cudnn
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_capability": list(torch.cuda.get_device_capability()),
        "gpu_state": _nvidia_smi(
            "driver_version", "power.limit", "clocks.max.sm", "temperature.gpu", "persistence_mode"
        ),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        "torch": torch.__version__,
        "tf32": False,
        "cudnn_benchmark": True,
    }
