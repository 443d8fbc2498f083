"""The CUDA worker on a machine without a GPU: torch's CUDA calls answered by the CPU, everything else its own.

A graph's replay computes nothing anew: what its capture gave stays in its output, as it would for the same picture.
"""

from __future__ import annotations

import time
from contextlib import contextmanager

import torch

from depthbench.suites.targets import cuda_worker
from depthbench.suites.targets.worker_loop import serve

MADE = []


def waits(_cycles):
    pass


class Event:
    def __init__(self, enable_timing=False):
        assert enable_timing

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return (end.at - self.at) * 1e3


class Stream:
    def wait_stream(self, other):
        assert other is not self

    def synchronize(self):
        pass


class Graph:
    def replay(self):
        assert [self] == MADE


@contextmanager
def stream(one):
    assert isinstance(one, Stream)
    yield


@contextmanager
def graph(one, stream):
    assert isinstance(stream, Stream)
    yield
    MADE.append(one)


cuda_worker.DEVICE = "cpu"
torch.Tensor.pin_memory = lambda self: self
for name, value in {
    "Event": Event,
    "Stream": Stream,
    "CUDAGraph": Graph,
    "stream": stream,
    "graph": graph,
    "current_stream": lambda: HERE,
    "synchronize": lambda: None,
    "reset_peak_memory_stats": lambda: None,
    "max_memory_allocated": lambda: 5_000_000,
    "_sleep": waits,
}.items():
    setattr(torch.cuda, name, value)
HERE = Stream()

if __name__ == "__main__":
    serve(cuda_worker._load)
