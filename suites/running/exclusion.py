"""Who may work on this machine at the same time: measuring alone, everything else together.

Each piece of a run's work holds a lock on a file of the machine, shared; measuring on the machine's own processor holds it
alone. So a measurement waits until the last of the other work here is over, and new work waits for the measurement, whichever
processes or runs they belong to. The system gives a lock up when the process that holds it ends, however that happens.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from depthbench.suites.results import plain_name
from depthbench.suites.targets import Target

MACHINE = "measure"
"""What measuring on a machine's own processor or GPU holds."""


def resource_of(target: Target) -> str:
    """What measuring on a target holds alone: the machine, or a board."""
    return f"board:{target.name}" if target.kind == "board" else MACHINE


def locks_dir() -> Path:
    """Where the locks of this machine lie: ``$DEPTHBENCH_LOCKS``, else a folder of the user's among the temporary files."""
    value = os.environ.get("DEPTHBENCH_LOCKS")
    return Path(value) if value else Path(tempfile.gettempdir()) / f"depthbench-{os.getuid()}"


@contextmanager
def held(resource: str | None, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold what a piece of work needs while it lasts: the machine shared, or with ``MACHINE`` alone; a board alone.

    ``waiting`` is called when others have to be waited for.
    """
    with _locked("machine", resource == MACHINE, waiting):
        if resource is None or resource == MACHINE:
            yield
        else:
            with _locked(resource.replace(":", "-"), True, waiting):
                yield


def measuring(target: Target, tell: Callable[[str, float, float], None]) -> AbstractContextManager[None]:
    """:func:`held` for a command that measures on a target outside of a run; ``tell`` hears of it when it has to wait."""
    return held(resource_of(target), lambda: tell("waiting for other work on this machine", 0.0, 1.0))


@contextmanager
def _locked(name: str, alone: bool, waiting: Callable[[], None]) -> Iterator[None]:
    folder = locks_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / f"{plain_name(name)}.lock").open("ab") as file:
        _take(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, waiting)
        yield  # closing the file gives the lock up


def _take(file: IO[bytes], kind: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, kind)
