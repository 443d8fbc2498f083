"""How the calls that a run is made of are carried out, and what is known of each afterwards."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from depthbench.suites.results import Timings
from depthbench.suites.running.exclusion import held
from depthbench.suites.storage.disk import FullDiskError

Progress = Callable[[str, float, float], None]
"""Called with the name of a stage, how much of it is done, and how much there is."""

StoreKey = tuple[str, str]
"""The kind and the key of an entry of the store."""


@dataclass(frozen=True)
class Call:
    """A function and its arguments, which can be sent to another process; ``label`` says what it does.

    ``needs``, ``makes``: entries of the store that it reads and writes, which travel with it between machines. ``resource``:
    what it holds alone meanwhile (:mod:`.exclusion`). ``reports``: it takes ``report``, a function of the
    share that is done, as a keyword, where it is carried out in this process.
    """

    label: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[StoreKey, ...] = ()
    makes: tuple[StoreKey, ...] = ()
    resource: str | None = None
    reports: bool = False


@dataclass(frozen=True)
class Done:
    """What became of a call: its value, or the reason why it has none; when and where it ran, unless it did not have to."""

    value: Any = None
    reason: str | None = None
    timings: Timings | None = None

    @property
    def cached(self) -> bool:
        """Whether nothing had to be done for it."""
        return self.timings is None and self.reason is None


class Workers(Protocol):
    """Where calls are carried out. ``count``: how many at a time."""

    @property
    def count(self) -> int: ...

    def free(self, call: Call) -> bool:
        """Whether a call would be begun now if it were submitted."""

    def submit(self, key: str, call: Call) -> None:
        """Have a call carried out."""

    def ready(self) -> bool:
        """Whether :meth:`next` would answer at once."""

    def next(self) -> tuple[str, Done, bool]:
        """The next submitted call that is over, by its key; and whether trying it again makes sense."""


def perform(
    call: Call, report: Callable[[float], None] | None = None, waiting: Callable[[], None] = lambda: None
) -> Done:
    """Carry out a call in this process. Whatever it raises becomes a reason, but for a full disk."""
    with held(call.resource, waiting):
        started = time.time()
        done = Done()
        try:
            options = {"report": report} if call.reports and report else {}
            done = Done(call.function(*call.arguments, **options))
        except FullDiskError:
            raise
        except Exception as error:  # whatever a user's network or a library raises is recorded as the cells' reason
            done = Done(reason=described(error))
        return replace(done, timings=Timings(started, time.time(), socket.gethostname(), os.getpid()))


class InProcess:
    """One call after the other, in this process."""

    count = 1

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._waiting: deque[tuple[str, Call]] = deque()

    def free(self, call: Call) -> bool:
        """One at a time."""
        del call
        return not self._waiting

    def submit(self, key: str, call: Call) -> None:
        """It is carried out when its outcome is asked for."""
        self._waiting.append((key, call))

    def ready(self) -> bool:
        """Never: it takes its time."""
        return False

    def next(self) -> tuple[str, Done, bool]:
        """Carry out the call that was submitted."""
        key, call = self._waiting.popleft()
        return key, perform(call, *reporters(call, self._progress)), True


def reporters(call: Call, progress: Progress) -> tuple[Callable[[float], None], Callable[[], None]]:
    """What a call in this process tells: the share of it that is done, and that it waits for others."""
    return (
        lambda share: progress(call.label, share, 1.0),
        partial(progress, f"{call.label} (waits for other work on this machine)", 0.0, 1.0),
    )


def described(error: Exception) -> str:
    """An error as one line, as it stands in a record."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
