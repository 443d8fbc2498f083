"""Ctrl-C: the first stops what is at work and keeps what is finished, a second one ends the program at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from depthbench.suites.cli.output import err


@contextmanager
def stopping() -> Iterator[None]:
    """Within it, a first Ctrl-C raises ``KeyboardInterrupt`` and ends in exit code 130, a second one exits at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _first)
    try:
        yield
    except KeyboardInterrupt:
        err.print("depthbench: interrupted; what was finished is kept, run the same command again to go on")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, before)


def _first(*_: Any) -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    err.print("depthbench: stopping; once more to stop at once")
    raise KeyboardInterrupt
