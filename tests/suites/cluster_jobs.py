"""What the tests of the workers have other processes do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def note(path: Path, text: str) -> None:
    """Add a line to a file that several processes write."""
    with path.open("a") as file:
        file.write(f"{text}\n")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def square(log: Path, number: int) -> int:
    note(log, f"{number} {os.getpid()}")
    return number**2


def fail(log: Path, times: int) -> str:
    """Fail so many times, then work."""
    note(log, "begun")
    if len(lines(log)) <= times:
        raise RuntimeError(f"attempt {len(lines(log))}\nwent wrong")
    return "worked"


def die(log: Path, times: int) -> str:
    """Take the process down so many times, then work."""
    note(log, "begun")
    if len(lines(log)) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def stay(log: Path, name: str, seconds: float) -> str:
    """Note when it began and ended."""
    begun = time.time()
    time.sleep(seconds)
    note(log, f"{name} {begun} {time.time()}")
    return name


def variables(*names: str) -> list[str | None]:
    """What the environment says."""
    return [os.environ.get(name) for name in names]
