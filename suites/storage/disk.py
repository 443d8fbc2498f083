"""A disk that is full, told from every other fault: one clear line instead of whatever a library makes of it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOTHING_LEFT = 1 << 16
"""Bytes free at which an error that does not say why is put down to the full disk."""


class FullDiskError(OSError):
    """No space is left in a folder that depthbench writes to; ends the command, is never the fault of a cell."""


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Within it, an error that a full disk caused is raised as :class:`FullDiskError` with the folder's name.

    Libraries wrap such an error or say it in their own words: the causes of an error count, and so does a disk that has
    nothing left at that moment, unless the error says itself what it is about.
    """
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        cause = _no_space(error)
        if cause is None and (_speaks(error) or _free(folder) >= _NOTHING_LEFT):
            raise
        name = getattr(cause, "filename", None)
        place = Path(name).parent if isinstance(name, str) else folder
        raise FullDiskError(
            f"{place}: no space left on its disk; what was finished is kept: make room (depthbench cache gc) and run the same "
            "command again to go on"
        ) from error


def writable(folder: Path) -> Path:
    """The folder, made when it is missing; ``ValueError`` says why nothing can be written there."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror})") from None
    return folder


def writable_file(path: Path) -> Path:
    """The file's path, its folder made when it is missing; ``ValueError`` says why it cannot be written."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not a file")
    try:
        writable(path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).partition(': ')[2]}") from None
    return path


def reserve(path: Path) -> None:
    """Have the disk keep room for all of a file; a write through a memory map cannot say that there is none, it kills."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _speaks(error: Exception) -> bool:
    """Whether an error is depthbench's own about its input, or the system's about something else than space."""
    return type(error) is ValueError or (isinstance(error, OSError) and error.errno is not None)


def _no_space(error: BaseException) -> OSError | None:
    """The error itself or the first of its causes that says that no space is left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _free(folder: Path) -> int:
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    usage = shutil.disk_usage(existing)
    return usage.free if usage.total else _NOTHING_LEFT  # /proc and its like have no size
