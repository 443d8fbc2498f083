"""Processes of their own, for real: what is done in them, what a failure and what a death means."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from dask.system import CPU_COUNT

from depthbench.suites.running.execution import Call, Done
from depthbench.suites.running.tasks import Task, carry_out
from depthbench.suites.running.workers import open_workers

HERE = Path(__file__).parents[1]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    return importlib.import_module("cluster_jobs")


def outcomes(workers: int, calls: Sequence[Call]) -> dict[str, Done]:
    tasks = [Task(call.label, "stage", lambda _, call=call: call) for call in calls]  # type: ignore[misc]
    with open_workers(workers, None, (), (), lambda *_: None) as chosen:
        return {task.key: done for task, done in carry_out(tasks, chosen)}


def test_two_processes_survive_failures_and_deaths(jobs: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    calls = [Call(f"square {i}", jobs.square, (log, i)) for i in range(6)]
    calls += [
        Call("failed once", jobs.fail, (tmp_path / "once", 1)),
        Call("failed always", jobs.fail, (tmp_path / "always", 9)),
        Call("died once", jobs.die, (tmp_path / "died", 1)),
        Call("died always", jobs.die, (tmp_path / "dies", 9)),
        Call("measured", jobs.square, (log, 10), resource="measure"),
    ]
    done = outcomes(2, calls)
    assert [done[f"square {i}"].value for i in range(6)] == [0, 1, 4, 9, 16, 25]
    assert done["failed once"].value == "worked"
    assert done["failed always"].reason == "stage: RuntimeError: attempt 2 went wrong"
    assert len(jobs.lines(tmp_path / "always")) == 2
    assert done["died once"].value == "survived"
    assert done["died always"].reason == "stage: the process that worked on it died (killed, out of memory or crashed)"
    assert len(jobs.lines(tmp_path / "dies")) == 2
    by_number = {int(number): int(pid) for number, pid in (line.split() for line in jobs.lines(log))}
    assert by_number.pop(10) == os.getpid()  # what measures is begun from here
    assert os.getpid() not in by_number.values()
    timings = done["square 1"].timings
    assert timings is not None
    assert timings.pid == by_number[1]


def test_no_process_is_started_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthbench.suites.running.workers.local_cluster", None)  # a call would fail
    with open_workers(4, None, (), (), lambda *_: None) as workers:
        assert [done.value for _, done in carry_out([Task("a", "s", lambda _: Done(1))], workers)] == [1]


def test_processes_share_the_cores_and_this_one_keeps_its_environment(
    jobs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Dask would set is inherited by processes that measure."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    done = outcomes(2, [Call("variables", jobs.variables, names)])
    assert done["variables"].value == [str(max(1, CPU_COUNT // 2)), "3", None]
    assert jobs.variables(*names) == [None, "3", None]
