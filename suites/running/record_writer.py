"""Writing the records of a run: what was measured at once, what the store can give again several together."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from depthbench.suites.results import Record, RunFolder
from depthbench.suites.running.shared_evaluation import stored_evaluation
from depthbench.suites.storage.disk import writing_to

_TOGETHER_S = 1.0
"""How long a record that costs nothing to make again may wait for others: each waits for the disk, all together once."""


class RecordWriter:
    """Writes records into a run folder, with what they refer to. A crash leaves whole files; those in :attr:`waiting` are lost.

    Used as a context, it has written everything when it is left, however that happens.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._place = folder.root / f".writing-{os.getpid()}"
        self.waiting: list[Record] = []
        self._kept: set[str] = set()
        self._written = time.monotonic()
        for place in folder.root.glob(".writing-*"):
            if not psutil.pid_exists(int(place.name.partition("-")[2])):
                shutil.rmtree(place)  # of a process that was killed

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def write(self, record: Record) -> None:
        """Write a record, soon."""
        self.waiting.append(record)
        if record.timings is not None or time.monotonic() - self._written >= _TOGETHER_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self.waiting:
            return
        with writing_to(self._folder.root):
            self._place.mkdir(exist_ok=True)
            try:
                moves = []
                for number, (path, data) in enumerate(self._files()):
                    there = self._place / str(number)
                    there.write_bytes(data)
                    moves.append((there, path))
                os.sync()
                for there, path in moves:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    there.replace(path)
            finally:
                shutil.rmtree(self._place)
        self._kept |= {record.evaluation for record in self.waiting if record.evaluation is not None}
        self.waiting.clear()
        self._written = time.monotonic()

    def _files(self) -> Iterator[tuple[Path, bytes]]:
        """What is written, records after what they refer to."""
        for digest in dict.fromkeys(record.evaluation for record in self.waiting):
            if digest is not None and digest not in self._kept and not self._folder.samples_path(digest).is_file():
                stored = stored_evaluation(digest)
                yield self._folder.evaluation_path(digest), stored.metrics.read_bytes()
                yield self._folder.samples_path(digest), stored.samples.read_bytes()
        for record in self.waiting:
            text = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
            yield self._folder.record_path(record.id), text.encode()
