"""Where the tasks of a run are carried out: in this process, or in fresh ones."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any

Progress = Callable[[str, float, float], None]
"""Called with the name of a stage, how much of it is done, and how much there is."""


@contextmanager
def pool(workers: int, work: int) -> Iterator[Executor | None]:
    """``workers`` fresh processes with one thread each, or None: in this process."""
    if workers <= 1 or work < 2:
        yield None
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    processes = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield processes
    finally:
        processes.shutdown(cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def run_tasks(
    executor: Executor | None,
    tasks: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]],
    stage: str,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Results and failures of tasks by key; a task that fails is a failure of its cells, not of the run."""
    results: dict[str, Any] = {}
    failures: dict[str, str] = {}

    def settle(key: str, call: Callable[[], Any]) -> None:
        try:
            results[key] = call()
        except Exception as error:  # whatever a user's network or a library raises is recorded as the cells' reason
            failures[key] = f"{stage}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        progress(stage, len(results) + len(failures), len(tasks))

    if executor is None:
        for key, (function, arguments) in tasks.items():
            settle(key, partial(function, *arguments))
        return results, failures
    futures: dict[Future[Any], str] = {executor.submit(fn, *arguments): key for key, (fn, arguments) in tasks.items()}
    for future in as_completed(futures):
        settle(futures[future], future.result)
    return results, failures
