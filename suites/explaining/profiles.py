"""Running two files in turn for :mod:`depthbench.suites.explain`, each in a fresh process with ONNX Runtime's profiler."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from depthbench.suites.explaining.kernels import Kernel, executed_kernels, low_quartile, run_tensors
from depthbench.suites.graphs.graph import load_graph
from depthbench.suites.targets.intervals import Timings

BLOCKS = 16
"""Blocks a file: in each round both files, forwards and then backwards (A B B A)."""


@dataclass(frozen=True)
class Rates:
    """What a machine attains: MACs a second by precision, bytes a second by traffic, a launch in ms; padding of channels.

    ``channel_block``: channels are rounded up to multiples of it when a convolution runs (1: they are not).
    """

    macs: dict[str, float]
    bandwidth: tuple[tuple[float, float], ...]
    launch_ms: float
    channel_block: int

    def bytes_per_s(self, traffic: int) -> float:
        """Bandwidth for a kernel of that traffic in bytes: what fits into a cache is faster."""
        at, rate = zip(*self.bandwidth, strict=True)
        return float(np.interp(np.log(max(traffic, 1)), np.log(at), rate))

    def judged(self, kernel: Kernel) -> Kernel:
        """The kernel with what these rates allow it, and which of them limits it."""
        rate = self.macs.get(kernel.precision, self.macs["fp32"])
        limits = {
            "arithmetic": kernel.macs / rate * 1e3,
            "memory": kernel.bytes / self.bytes_per_s(kernel.bytes) * 1e3,
            "launch": self.launch_ms,
        }
        bound = max(limits, key=lambda name: limits[name])
        ideal = max(limits["arithmetic"], limits["memory"]) + limits["launch"]
        return replace(kernel, ideal_ms=ideal, bound=bound)


@dataclass(frozen=True)
class Ran:
    """One file as it ran: its kernels in order, and wall times of inferences without the profiler (``samples_ms``)."""

    kernels: tuple[Kernel, ...]
    measured: Timings


class _Worker:
    """A process with one file, warmed up, and what it has measured so far."""

    def __init__(self, path: Path, folder: Path, spec: dict[str, Any]) -> None:
        self.path, self.folder = path, folder
        self.samples_ms: list[float] = []
        self.blocks: list[int] = []
        folder.mkdir()
        self.process = _start()
        try:
            self._ask({"file": str(path), "folder": str(folder), **spec})
        except BaseException:
            self.__exit__()
            raise

    def block(self, seconds: float, number: int) -> None:
        samples = self._ask({"block": seconds})["samples_ms"]
        self.samples_ms += samples
        self.blocks += [number] * len(samples)

    def finish(self) -> Ran:
        answer = self._ask({"finish": True})
        model = onnx.load(self.folder / "optimized.onnx", load_external_data=False)
        feed = {name: (kind, tuple(shape)) for name, (kind, shape) in answer["feed"].items()}
        tensors = run_tensors(model, answer["events"], feed)
        times = [low_quartile(event["ms"]) for event in answer["events"]]
        kernels = executed_kernels(model, tensors, times, load_graph(self.path))
        return Ran(tuple(kernels), Timings(self.samples_ms, self.blocks))

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        answer = _ask(self.process, question)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with suppress(BrokenPipeError):  # what was written last reached nobody
            self.process.communicate()


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "depthbench.suites.explaining.worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the profiling process ended with code {process.wait()} and no result")
    answer: dict[str, Any] = json.loads(line)
    return answer


def measured_rates(threads: int) -> Rates:
    """What this machine attains now, in a fresh process; about a second."""
    with _start() as process:
        found = _ask(process, {"rates": True, "threads": threads})
    bandwidth = tuple((float(size), float(rate)) for size, rate in found["bandwidth"])
    return Rates({"fp32": found["fp32"], "int8": found["int8"]}, bandwidth, found["launch_ms"], found["block"])


def run_pair(
    files: Sequence[Path],
    *,
    threads: int = 1,
    seconds: float = 2.0,
    image: NDArray[np.float32] | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Ran]:
    """Run ONNX files in turn, ``seconds`` each beside the profiled runs; only one of them works at a time.

    ``image``: the network's input (1, 3, H, W) float32; random numbers in [0, 1] when left out. ``ValueError`` names a file
    that is not ONNX or that ONNX Runtime refuses.
    """
    with tempfile.TemporaryDirectory(prefix="depthbench-explain-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        given = None
        if image is not None:
            given = str(folder / "image.npy")
            np.save(given, image)
        spec = {"threads": threads, "seed": seed, "image": given, "warmup_s": seconds / BLOCKS}
        workers = [stack.enter_context(_Worker(path, folder / str(i), spec)) for i, path in enumerate(files)]
        for number in range(BLOCKS // 2):
            for worker in [*workers, *reversed(workers)]:
                worker.block(seconds / BLOCKS, number)
            if progress is not None:
                progress((number + 1) / (BLOCKS // 2))
        return [worker.finish() for worker in workers]
