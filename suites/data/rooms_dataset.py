"""``rooms`` as a data set: images of :func:`depthbench.suites.data.rooms.render`, rendered once and kept in the cache.

The cache holds files of 16 images, ``rooms/v<version>-seed<seed>-240x320/<split>/<first index>.npy``, each a memory-mapped
array of :data:`RECORD`, written atomically: an interrupted rendering goes on where it stopped, a larger ``limit`` only adds
files.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data.base import Sample
from depthbench.suites.results import write_atomic
from depthbench.suites.storage.cache import cache_dir

VERSION = 1
"""Raise it when the renderer's pictures change: it names the cache and enters the digest."""

SEED = 0
HEIGHT, WIDTH = 240, 320
SIZES = {"train": 2048, "calibration": 64, "test": 256}
DEPTH_UNITS = 5000
"""Stored depth units per metre: 0.2 mm steps up to 13.1 m."""

RECORD = np.dtype([("rgb", np.uint8, (3, HEIGHT, WIDTH)), ("depth", np.uint16, (HEIGHT, WIDTH))])
CHUNK = 16
_RENDER_BATCH = 8

Progress = Callable[[int, int], None]
"""Called with (images done, images wanted)."""


@dataclass(frozen=True)
class RoomsDataset:
    """A split of ``rooms``: the first ``size`` images, rendered by :meth:`prepare` or when the first one is asked for."""

    split: str
    size: int
    name: str = "rooms"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"rooms: {self.size} images asked for, must be at least 1")

    @property
    def digest(self) -> str:
        """Fingerprint of everything that the images are a function of; needs no rendering."""
        text = f"rooms v{VERSION} seed {SEED} {HEIGHT}x{WIDTH} {self.split} {self.size}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where this split's files lie."""
        return cache_dir() / "rooms" / f"v{VERSION}-seed{SEED}-{HEIGHT}x{WIDTH}" / self.split

    def prepare(self, progress: Progress | None = None, workers: int = 2) -> None:
        """Render what the cache lacks, in ``workers`` processes of one thread each."""
        starts = range(0, self.size, CHUNK)
        missing = [start for start in starts if not self._path(start).is_file()]
        done = CHUNK * (len(starts) - len(missing))
        if (
            multiprocessing.current_process().daemon
        ):  # of a Dask cluster that was started elsewhere: it may start no process
            for start in missing:
                _render_chunk(self.split, start, self._path(start))
        elif missing:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(workers, len(missing)), context) as pool:
                futures = [pool.submit(_render_chunk, self.split, start, self._path(start)) for start in missing]
                try:
                    for future in as_completed(futures):
                        future.result()
                        done += CHUNK
                        if progress is not None:
                            progress(min(done, self.size), self.size)
                finally:
                    pool.shutdown(cancel_futures=True)

    @property
    def groups(self) -> list[str]:
        """Rooms are not grouped."""
        return []

    @property
    def skipped(self) -> list[str]:
        """No rendered image is broken."""
        return []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        record = self.record(range(self.size)[index])
        depth = record["depth"].astype(np.float32) / np.float32(DEPTH_UNITS)
        return Sample(record["rgb"].astype(np.float32) / np.float32(255), depth[None])

    def record(self, index: int) -> np.void:
        """The stored :data:`RECORD` of one image."""
        value: np.void = self.chunks[index // CHUNK][index % CHUNK]
        return value

    def label(self, index: int) -> str:
        """The image's index in its split."""
        return f"{index:05d}"

    @cached_property
    def chunks(self) -> list[NDArray[np.void]]:
        """The memory-mapped files, 16 images each; the last may hold more images than the split has."""
        self.prepare()
        return [open_records(self._path(start)) for start in range(0, self.size, CHUNK)]

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:06d}.npy"


def open_records(path: Path) -> NDArray[np.void]:
    """A memory-mapped file of :data:`RECORD`; ``ValueError`` names a damaged one."""
    try:
        records: NDArray[np.void] = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise ValueError(f"{path}: damaged cache file, delete it ({error})") from None
    return records


def _render_chunk(split: str, start: int, path: Path) -> None:
    import torch

    from depthbench.suites.data.rooms import render

    torch.set_num_threads(1)
    records = np.empty(CHUNK, RECORD)
    for first in range(0, CHUNK, _RENDER_BATCH):
        indices = range(start + first, start + first + _RENDER_BATCH)
        rgb, depth = render(SEED, split, indices, height=HEIGHT, width=WIDTH)
        part = records[first : first + _RENDER_BATCH]
        part["rgb"] = rgb.numpy()
        part["depth"] = (depth[:, 0] * DEPTH_UNITS).round().numpy()  # (B, H, W)
    buffer = io.BytesIO()
    np.save(buffer, records)
    write_atomic(path, buffer.getvalue())
