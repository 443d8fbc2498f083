"""Reading many images: ahead of their use in several threads, in order, and past a few broken ones.

Threads, not processes: Pillow decodes and numpy computes outside Python's lock, and an image need not be copied between
processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    """The data set without the images that cannot be read, each named in ``skipped``.

    ``ValueError`` at the first broken image beyond ``tolerated``, and when none is left.
    """
    broken = broken_images(dataset, tolerated, workers=workers, progress=progress)
    if not broken:
        return dataset
    kept = [item for index, item in enumerate(dataset.items) if index not in broken]
    if not kept:
        first = next(iter(broken.values()))
        raise ValueError(f"{dataset.name}: every {dataset.split} image is broken, the first: {first}")
    return replace(dataset, items=kept, skipped=list(broken.values()))


def broken_images(
    dataset: FileDataset, tolerated: int = 0, *, workers: int | None = None, progress: Progress | None = None
) -> dict[int, str]:
    """The images that cannot be read, by index, each with the line that names its file; ``ValueError`` beyond ``tolerated``.

    All are read once; which ones are broken is kept in the cache by the files' content and when they were written.
    """
    found: dict[int, str] = {}

    def note(index: int, outcome: Sample | ValueError) -> None:
        if isinstance(outcome, ValueError):
            found[index] = str(outcome)
            if len(found) > tolerated:
                counted = f" (broken image number {len(found)}; {tolerated} are tolerated)" if tolerated else ""
                raise ValueError(f"{outcome}{counted}")

    def scan(_: Path) -> dict[str, Any]:
        for index, outcome in enumerate(outcomes(dataset, workers)):
            note(index, outcome)
            if progress is not None:
                progress(index + 1, len(dataset))
        return {"broken": list(found)}

    from depthbench.suites.storage.store import Store

    known = Store("checked").make(_content(dataset), scan).meta["broken"]
    if not found:  # what is wrong is said of the files as they lie here
        for index, outcome in zip(
            known, outcomes(replace(dataset, items=[dataset.items[i] for i in known])), strict=True
        ):
            note(index, outcome)
    return found


def _content(dataset: FileDataset) -> str:
    """Digest of a data set of which files may be missing, and of the libraries that read it."""
    gone = [i for i, item in enumerate(dataset.items) if not all(map(_readable, item.files))]
    there = dataset
    if gone:
        there = replace(dataset, items=[item for i, item in enumerate(dataset.items) if i not in set(gone)])
    written = [path.stat().st_mtime_ns for path in dict.fromkeys(path for item in there.items for path in item.files)]
    content = [there.digest, written, gone, *(version(name) for name in ("depthbench", "pillow", "h5py"))]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def check_images(dataset: DepthDataset, progress: Progress | None = None) -> None:
    """``ValueError``, one line, names the first file of a data set that is broken; all are read unless that was done before."""
    if isinstance(dataset, FileDataset) and not dataset.skipped:  # else it was read to find them
        broken_images(dataset, progress=progress)
