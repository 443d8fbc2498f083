"""Where a run stands: counted while it goes on, kept in its folder for ``depthbench status``."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from depthbench.suites.results import Record, RunFolder, read_json, write_json
from depthbench.suites.running.execution import Call, Done
from depthbench.suites.running.tasks import Task

State = Literal["running", "finished", "stopped", "failed"]

_WRITE_S = 1.0
"""Least time between two writings of the file while a run goes on."""


@dataclass
class Stage:
    """How many tasks of a stage there are, and what has become of them. ``seconds``: what the done ones took in all."""

    total: int = 0
    done: int = 0
    cached: int = 0
    failed: int = 0
    running: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Tasks that are not over."""
        return self.total - self.done - self.cached - self.failed


@dataclass(frozen=True)
class AtWork:
    """A task that a worker was given: its stage, what it does, and when that began."""

    stage: str
    what: str
    since: float


@dataclass
class Status:
    """The state of a run. ``cells`` counts by ``ok``, ``failed``, ``skipped``, and ``kept`` from an earlier call.

    ``running``: what is at work, by task.
    """

    total: int
    workers: int = 1
    state: State = "running"
    cells: Counter[str] = field(default_factory=Counter)
    stages: dict[str, Stage] = field(default_factory=dict)
    running: dict[str, AtWork] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    @property
    def over(self) -> int:
        """Cells that have a record."""
        return sum(self.cells.values())

    def eta_s(self) -> float | None:
        """Seconds until the run is over, from what its tasks have taken so far; None before the first is done.

        Measuring is counted as one after the other, all else as shared by the workers.
        """
        timed = [stage for stage in self.stages.values() if stage.done]
        if not timed:
            return None
        usual = sum(stage.seconds for stage in timed) / sum(stage.done for stage in timed)
        now, left = time.time(), 0.0
        for name, stage in self.stages.items():
            each = stage.seconds / stage.done if stage.done else usual
            begun = sum(min(each, now - one.since) for one in self.running.values() if one.stage == name)
            left += max(0.0, stage.left * each - begun) / (1 if name == "latency" else self.workers)
        return left

    def to_json(self) -> dict[str, Any]:
        """What the file holds."""
        eta = self.eta_s() if self.state == "running" else None
        return {
            "state": self.state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self.started,
            "updated": time.time(),
            "cells": {"total": self.total, **{key: self.cells[key] for key in ("ok", "failed", "skipped", "kept")}},
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            "running": [{"what": one.what, "since": one.since} for one in self.running.values()],
            "eta_s": None if eta is None else round(eta, 1),
        }


class Watch:
    """Keeps a run's status while it goes on: in the run's folder, and for whoever looks on."""

    def __init__(self, folder: RunFolder, total: int, look: Callable[[Status], None]) -> None:
        self.status = Status(total)
        self._file = status_path(folder)
        self._look = look
        self._written = 0.0

    def plan(self, tasks: Sequence[Task], workers: int) -> None:
        """These are the tasks of the run, and so many are carried out at a time."""
        self.status.workers = workers
        stages: dict[str, Stage] = defaultdict(Stage)
        for task in tasks:
            stages[task.stage].total += 1
        self.status.stages = dict(stages)
        self._tell()

    def begun(self, task: Task, call: Call) -> None:
        """A worker was given a task."""
        self.status.running[task.key] = AtWork(task.stage, call.label, time.time())
        self.status.stages[task.stage].running = self._running(task.stage)
        self._tell()

    def over(self, task: Task, done: Done) -> None:
        """A task is over."""
        stage = self.status.stages[task.stage]
        self.status.running.pop(task.key, None)
        stage.running = self._running(task.stage)
        if done.reason is not None:
            stage.failed += 1
        elif done.timings is None:
            stage.cached += 1
        else:
            stage.done += 1
            stage.seconds += done.timings.finished_s - done.timings.started_s
        self._tell()

    def cell(self, record: Record, *, kept: bool = False) -> None:
        """A cell has its record."""
        self.status.cells["kept" if kept else record.status] += 1
        self._tell()

    def end(self, state: State) -> None:
        """The run is over, or was stopped."""
        self.status.state = state
        self.status.running.clear()
        self._tell(now=True)

    def _running(self, stage: str) -> int:
        return sum(one.stage == stage for one in self.status.running.values())

    def _tell(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._written >= _WRITE_S:
            write_json(self._file, self.status.to_json())
            self._written = time.monotonic()
        self._look(self.status)


def status_path(folder: RunFolder) -> Path:
    """Where a run's status lies."""
    return folder.root / "status.json"


def read_status(folder: RunFolder) -> dict[str, Any]:
    """The status of a run, from any process: what its file says, checked against its records and its process.

    ``state`` is ``stopped`` when it says ``running`` but its process on this machine is gone, and ``unknown`` for a run of an
    earlier version, which kept none. ``ValueError`` when the folder holds no run.
    """
    cells = folder.read_manifest()["cells"]
    records = [record for cell in cells if (record := folder.read_record(cell)) is not None]
    counts = Counter(record.status for record in records)
    found: dict[str, Any] = read_json(status_path(folder)) if status_path(folder).is_file() else {"state": "unknown"}
    if found["state"] == "running" and found["host"] == socket.gethostname() and not _alive(found):
        found |= {"state": "stopped", "running": [], "eta_s": None}
    failures = [{"id": record.id, "reason": record.reason} for record in records if record.status == "failed"]
    by_status = {name: counts[name] for name in ("ok", "failed", "skipped")}
    return found | {
        "cells": {"total": len(cells), **by_status, "left": len(cells) - len(records)},
        "failures": failures,
    }


def _alive(found: dict[str, Any]) -> bool:
    """Whether the process that wrote a status is still there, and not another one by its number."""
    try:
        return bool(psutil.Process(found["pid"]).create_time() <= found["started"])
    except psutil.NoSuchProcess:
        return False
