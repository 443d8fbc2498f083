"""Reading many images: ahead of their use in several threads, in order, and past a few broken ones.

Threads, not processes: Pillow decodes and numpy computes outside Python's lock, and an image need not be copied between
processes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from depthbench.suites.data.base import DepthDataset, FileDataset, Sample

Progress = Callable[[int, int], None]
"""Called with (images done, images wanted)."""

_AHEAD_PER_WORKER = 4


def default_workers() -> int:
    """The cores that this process may use, at most 8."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def samples(dataset: DepthDataset, workers: int | None = None) -> Iterator[Sample]:
    """Every sample of a data set in order, read ahead by ``workers`` threads; raises what reading one raises, in its place."""
    for outcome in outcomes(dataset, workers):
        if isinstance(outcome, ValueError):
            raise outcome
        yield outcome


def outcomes(dataset: DepthDataset, workers: int | None = None) -> Iterator[Sample | ValueError]:
    """As :func:`samples`, with the ``ValueError`` in place of a sample that cannot be read."""
    workers = workers or default_workers()

    def read(index: int) -> Sample | ValueError:
        try:
            return dataset[index]
        except ValueError as error:
            return error

    count = len(dataset)
    if count:
        yield read(0)  # alone: the first image may make a data set prepare all of them
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Sample | ValueError]] = deque()
    try:
        for index in range(1, count):
            waiting.append(pool.submit(read, index))
            if len(waiting) > workers * _AHEAD_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def without_broken(
    dataset: FileDataset, tolerated: int, *, workers: int | None = None, progress: Progress | None = None
) -> FileDataset:
    """The data set without the images that cannot be read, each named in ``skipped``; it is read once, whole, to find them.

    ``ValueError`` at the first broken image beyond ``tolerated``, and when none is left.
    """
    kept, skipped = [], []
    for index, outcome in enumerate(outcomes(dataset, workers)):
        if isinstance(outcome, ValueError):
            skipped.append(str(outcome))
            if len(skipped) > tolerated:
                raise ValueError(f"{outcome} (broken image number {len(skipped)}; {tolerated} are tolerated)")
        else:
            kept.append(dataset.items[index])
        if progress is not None:
            progress(index + 1, len(dataset))
    if not kept:
        raise ValueError(f"{dataset.name}: every {dataset.split} image is broken, the first: {skipped[0]}")
    return replace(dataset, items=kept, skipped=skipped)
