"""The process that times one network in torch on a CUDA GPU: one network, one fresh process.

What it reads and writes is in :mod:`depthbench.suites.targets.worker_loop`. Two clocks, never mixed: ``samples_ms`` is the
device's time between two CUDA events around a replayed graph of one inference; ``wall_ms`` is the host's time from a
picture in its memory to the depth in its memory.

FP32 is true FP32: TF32 is off. What the graph gives is compared with what the same network gives on the CPU.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from depthbench.suites.targets.board_results import TOLERANCE
from depthbench.suites.targets.processing import room_input
from depthbench.suites.targets.worker_loop import Timed, serve, wall_ms

DEVICE = "cuda"
WARMUPS = 3
"""Inferences before the capture, on the capture's stream: libraries make their handles and choose their kernels in them."""

HEAD_START = 500_000
"""Clock cycles (some 0.3 ms) that the device waits in front of the first event, while the host hands it the graph:
otherwise the time of the launch would count as the device's."""


class Captured:
    """A network captured as a CUDA graph of one inference of a batch of pictures, with its memory on both sides."""

    def __init__(self, module: nn.Module, image: Tensor, dtype: torch.dtype) -> None:
        start = time.perf_counter()
        self.module = module.to(DEVICE, dtype)
        self.host_in = image.to(dtype).pin_memory()
        self.image = self.host_in.to(DEVICE)
        torch.cuda.synchronize()
        self.load_ms = (time.perf_counter() - start) * 1e3
        cuda: Any = torch.cuda  # its events, streams and sleep are not typed
        self.pause = cuda._sleep
        self.begin, self.end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        self.stream = cuda.Stream()
        self.graph, self.depth = self._capture()
        self.host_out = torch.empty(self.depth.shape, dtype=dtype).pin_memory()

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            start = time.perf_counter()
            self.module(self.image)
            self.stream.synchronize()
            self.first_ms = (time.perf_counter() - start) * 1e3
            for _ in range(WARMUPS):
                self.module(self.image)
        torch.cuda.current_stream().wait_stream(self.stream)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            depth = self.module(self.image)
        self.peak_gpu_mb = torch.cuda.max_memory_allocated() / 1e6
        return graph, depth

    def device_ms(self) -> float:
        """One inference, in ms of the device."""
        self.pause(HEAD_START)
        self.begin.record()
        self.graph.replay()
        self.end.record()
        self.end.synchronize()
        return float(self.begin.elapsed_time(self.end))

    def whole(self) -> None:
        """One inference from the host's picture to the host's depth."""
        self.image.copy_(self.host_in, non_blocking=True)
        self.graph.replay()
        self.host_out.copy_(self.depth, non_blocking=True)
        torch.cuda.current_stream().synchronize()


def deviation(got: Tensor, wanted: Tensor) -> float:
    """Mean |difference| over mean |value|; infinite when something is not finite."""
    values = got.double().cpu()
    if not bool(torch.isfinite(values).all()):
        return float("inf")
    return float((values - wanted.double()).abs().mean() / wanted.double().abs().mean().clamp(min=1e-12))


def _load(spec: dict[str, Any]) -> tuple[Timed, dict[str, Any]]:
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = True  # one shape for ever: the fastest kernel is worth looking for
    module: nn.Module = torch.load(spec["file"], map_location="cpu", weights_only=False)
    module.eval()
    size = (int(spec["size"][0]), int(spec["size"][1]))
    image = torch.from_numpy(np.repeat(room_input(size), spec["batch"], axis=0))  # (N, 3, H, W)
    wanted = module(image)
    captured = Captured(module, image, torch.float16 if spec["precision"] == "fp16" else torch.float32)
    captured.whole()
    apart = deviation(captured.host_out, wanted)
    allowed = TOLERANCE[spec["precision"]]
    if not apart <= allowed:
        raise ValueError(
            f"its output differs from the CPU's by {apart:.2%}, more than the {allowed:.1%} allowed in {spec['precision']}"
        )
    timed = Timed(captured.device_ms, captured.load_ms, size, wall=lambda: wall_ms(captured.whole))
    facts = {
        "first_eager_ms": captured.first_ms,
        "peak_gpu_mb": captured.peak_gpu_mb,
        "output_deviation": apart,
        "version": torch.__version__,
    }
    return timed, facts


if __name__ == "__main__":
    serve(_load)
