"""Measuring on a machine shares it with nothing else of any run; boards are measured one cell at a time."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from depthbench.suites.running.exclusion import MACHINE, held, locks_dir, measuring
from depthbench.suites.running.execution import Call, Done, perform
from depthbench.suites.targets import TARGETS

HERE = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPTHBENCH_LOCKS", str(tmp_path / "locks"))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("cluster_jobs")


def test_others_wait_for_a_measurement_and_it_for_them(jobs: ModuleType, tmp_path: Path) -> None:
    """Other processes; what each of them noted."""
    log = tmp_path / "log"
    kinds: list[tuple[str, str | None]] = (
        [("work", None)] * 3 + [("measure", MACHINE)] * 2 + [("board", "board:nano")] * 2
    )
    calls = [Call(name, jobs.stay, (log, f"{name}{i}", 0.1), resource=what) for i, (name, what) in enumerate(kinds)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=perform, args=(call,)) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    times = {name: (float(begun), float(ended)) for name, begun, ended in (line.split() for line in jobs.lines(log))}
    assert len(times) == 7
    for name, (begun, ended) in times.items():
        together = [other for other, (b, e) in times.items() if other != name and b < ended and begun < e]
        if name.startswith("measure"):
            assert together == []
        if name.startswith("board"):
            assert [other for other in together if other.startswith("board")] == []


def test_who_waits_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def measure() -> None:
        with held(MACHINE):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=measure)
    thread.start()
    entered.wait()
    done: list[Done] = []
    other = threading.Thread(
        target=lambda: done.append(perform(Call("a", lambda: 1), waiting=lambda: said.append("waits")))
    )
    other.start()
    while not said:
        time.sleep(0.01)
    assert done == []
    leave.set()
    thread.join()
    other.join()
    assert [one.value for one in done] == [1]
    assert said == ["waits"]
    assert locks_dir() == tmp_path / "locks"


def _hold(ready: Any) -> None:
    with held(MACHINE):
        ready.set()
        time.sleep(60)


def test_a_process_that_is_killed_gives_the_machine_up() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(ready,))
    process.start()
    ready.wait()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(MACHINE):
        pass


@pytest.mark.parametrize(("name", "said"), [("desktop-cpu", 1), ("jetson-nano", 0)])
def test_a_command_that_measures_waits_and_says_so(name: str, said: int) -> None:
    told: list[tuple[str, float, float]] = []
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with held(None):
            entered.set()
            leave.wait()

    def measure() -> None:
        with measuring(TARGETS[name], lambda *words: told.append(words)):
            pass

    threads = [threading.Thread(target=one) for one in (work, measure)]
    threads[0].start()
    entered.wait()
    threads[1].start()
    while said and not told:
        time.sleep(0.01)
    assert threads[1].is_alive() or not said
    leave.set()
    for thread in threads:
        thread.join()
    assert told == [("waiting for other work on this machine", 0.0, 1.0)] * said
