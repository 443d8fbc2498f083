"""Latency on this machine's CUDA GPU: torch with CUDA events and graphs.

Two clocks, never mixed: ``samples_ms`` is the device's time between two events around a replayed graph of one inference;
``wall_ms`` in the details is the time until the host has waited for it. Networks are interleaved in rounds as on the CPU
(A B B A).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.desktop_cpu import NOISY_RSE, MeasureProfile, measuring_environment, median_rse

if TYPE_CHECKING:
    import torch
    from torch import nn

DRIVER = Path("/proc/driver/nvidia/version")


def unavailable() -> str | None:
    """Why there is no CUDA here, or None. torch is imported only where there is a driver."""
    if not DRIVER.is_file():
        return "no CUDA device: there is no NVIDIA driver here"
    import torch

    if torch.version.cuda is None:
        return "torch is installed without CUDA (see pytorch.org for the CUDA build)"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


class _Captured:
    """A network with its input on the GPU, captured as a CUDA graph of one inference."""

    def __init__(self, build: Callable[[], nn.Module], size: tuple[int, int], precision: str) -> None:
        import torch

        dtype = torch.float16 if precision == "fp16" else torch.float32
        start = time.perf_counter()
        self.module = build().eval().to("cuda", dtype)
        self.image = torch.rand(1, 3, *size, device="cuda", dtype=dtype)
        torch.cuda.synchronize()
        self.load_ms = (time.perf_counter() - start) * 1e3
        self.samples_ms: list[float] = []
        self.wall_ms: list[float] = []
        self.warmup_ms: list[float] = []
        self.blocks: list[int] = []
        self.spent_s = 0.0
        cuda: Any = torch.cuda  # its events and streams are not typed
        self.begin, self.end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        self.graph = self._capture()

    def _capture(self) -> torch.cuda.CUDAGraph:
        import torch

        with torch.inference_mode():
            cuda: Any = torch.cuda
            stream = cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                start = time.perf_counter()
                self.module(self.image)
                stream.synchronize()
                self.first_ms = (time.perf_counter() - start) * 1e3
                for _ in range(3):
                    self.module(self.image)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.module(self.image)
        return graph

    def once(self) -> tuple[float, float]:
        """One inference: ms of the device and of the wall."""
        start = time.perf_counter()
        self.begin.record()
        self.graph.replay()
        self.end.record()
        self.end.synchronize()
        return float(self.begin.elapsed_time(self.end)), (time.perf_counter() - start) * 1e3

    def warm_up(self, profile: MeasureProfile) -> None:
        start = time.perf_counter()
        while len(self.warmup_ms) < profile.warmup_runs or time.perf_counter() - start < profile.warmup_s:
            self.warmup_ms.append(self.once()[0])

    def block(self, seconds: float, number: int) -> None:
        start = time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            device, wall = self.once()
            self.samples_ms.append(device)
            self.wall_ms.append(wall)
            self.blocks.append(number)
        self.spent_s += spent

    def done(self, profile: MeasureProfile) -> float:
        return min(1.0, self.spent_s / profile.seconds, len(self.samples_ms) / profile.samples)


def measure(
    networks: Sequence[tuple[Callable[[], nn.Module], tuple[int, int], str]],
    profile: MeasureProfile,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Measure networks on the GPU, each given as a function that builds it, its input size and ``fp32`` or ``fp16``.

    FP32 is true FP32: TF32 is switched off while measuring. A network that cannot be captured is a failure of its own.
    """
    import torch

    from depthbench.suites.results import Latency

    where = measuring_environment(1) | gpu_environment()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    captured: dict[int, _Captured] = {}
    reasons: dict[int, str] = {}
    try:
        for place, (build, size, precision) in enumerate(networks):
            try:
                captured[place] = _Captured(build, size, precision)
                captured[place].warm_up(profile)
            except (RuntimeError, ValueError) as error:
                captured.pop(place, None)
                reasons[place] = f"CUDA: {' '.join(str(error).split())[:300]}"
        order, number = random.Random(seed), 0
        arms = list(captured.values())
        while any(arm.done(profile) < 1 for arm in arms):
            row = order.sample(arms, len(arms))
            for arm in [*row, *reversed(row)]:
                arm.block(profile.block_s / 2, number)
            number += 1
            if progress is not None:
                progress(sum(arm.done(profile) for arm in arms) / len(arms))
        peak_mb = torch.cuda.max_memory_allocated() / 1e6
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

    def latency(arm: _Captured) -> Latency:
        details: dict[str, Any] = {
            "clock": "device",
            "blocks": arm.blocks,
            "wall_ms": arm.wall_ms,
            "load_ms": arm.load_ms,
            "first_ms": arm.first_ms,
            "peak_gpu_mb_all": peak_mb,
        }
        noisy = ["noisy"] if median_rse(arm.samples_ms) > NOISY_RSE else []
        return Latency("measured", samples_ms=arm.samples_ms, warmup_ms=arm.warmup_ms, flags=noisy, details=details)

    return [
        Outcome(latency(captured[place]), None, where) if place in captured else Outcome(None, reasons[place], where)
        for place in range(len(networks))
    ]


def gpu_environment() -> dict[str, Any]:
    """The GPU and the libraries on it."""
    import torch

    cudnn: Any = torch.backends.cudnn
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_capability": list(torch.cuda.get_device_capability()),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        "torch": torch.__version__,
    }
