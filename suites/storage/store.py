"""Content-addressed store of what is costly to make: a folder per key, complete or not there at all.

A key is the digest of all inputs. An entry is built in a folder of its own, written to the disk in full and renamed into
its place, so a kill or a power cut at any moment leaves either nothing or the whole entry. Every file's digest, the entry's
own description included, is checked whenever it is read; what is damaged is made again, with a warning. Of several processes
that want the same entry one makes it while the others wait.

Below the folder of a kind lie the entries by key, ``.work`` with what is being built, and ``.locks``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from depthbench.suites.models import file_sha256
from depthbench.suites.results import plain_name, write_atomic
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.disk import writing_to

META = "meta.json"
_WORK, _LOCKS = ".work", ".locks"
_PATIENCE_S = 5.0
"""How long another process is waited for before this is said."""
_END = ',\n "sha256": "{}"\n}}\n'
"""How a description ends: with the digest of all that stands before."""

log = logging.getLogger(__name__)

Builder = Callable[[Path], dict[str, Any]]
"""Writes an entry's files into the folder that it is given, and returns the entry's JSON value."""


@dataclass(frozen=True)
class Entry:
    """A complete entry: its folder, the JSON value that its builder returned, and how long that took.

    ``seconds`` is None for an entry of an earlier version.
    """

    folder: Path
    meta: dict[str, Any]
    seconds: float | None = None


class Store:
    """The entries of one kind (``"artefacts"``, ``"evaluations"``, ``"networks"``) below the cache folder."""

    def __init__(self, kind: str) -> None:
        self.kind = plain_name(kind)
        self.root = cache_dir() / kind

    def get(self, key: str) -> Entry | None:
        """The entry of a key, every byte of it checked, or None. A damaged one is removed with a warning.

        An entry that is read counts as used now (:mod:`depthbench.suites.storage.caches`).
        """
        if not self.holds(key):
            return None
        entry, fault = self._read(key)
        if fault is not None:
            with self._locked([key]):  # another process may be removing it, or have made it again
                if not self.holds(key):
                    return None
                entry, fault = self._read(key)
                if fault is not None:
                    log.warning("%s %s is damaged (%s): made again", _one(self.kind), _short(key), fault)
                    self._discard(self.root / key)
        if entry is not None:
            _touch(entry.folder)
        return entry

    def fault(self, key: str) -> str | None:
        """What is wrong with an entry ("model.onnx differs"), or None; reads every byte of it."""
        return self._read(plain_name(key))[1]

    def _read(self, key: str) -> tuple[Entry | None, str | None]:
        folder = self.root / key
        try:
            stored = _described((folder / META).read_bytes())
        except FileNotFoundError:
            return None, f"{META} is missing"
        if stored is None:
            return None, f"{META} differs"
        for name, sha in stored["files"].items():
            try:
                if file_sha256(folder / name) != sha:
                    return None, f"{name} differs"
            except FileNotFoundError:
                return None, f"{name} is missing"
        return Entry(folder, stored["meta"], stored.get("seconds")), None

    def holds(self, key: str) -> bool:
        """Whether there is an entry, without reading it."""
        return (self.root / plain_name(key) / META).is_file()

    def __iter__(self) -> Iterator[str]:
        """The keys of all entries, sorted."""
        return iter(sorted(meta.parent.name for meta in self.root.glob(f"[!.]*/{META}")))

    def described(self) -> Iterator[Entry]:
        """The entries whose description is whole; whether their files are is not looked at (:meth:`get` does that)."""
        for key in self:
            try:
                stored = _described((self.root / key / META).read_bytes())
            except FileNotFoundError:  # removed meanwhile
                continue
            if stored is not None:
                yield Entry(self.root / key, stored["meta"], stored.get("seconds"))

    def make(self, key: str, build: Builder) -> Entry:
        """The entry of a key; when there is none, ``build(folder)`` writes its files and returns its JSON value."""
        return self.make_all([key], lambda _: {key: build})[key]

    def make_all(self, keys: Sequence[str], plan: Callable[[Sequence[str]], Mapping[str, Builder]]) -> dict[str, Entry]:
        """The entries of several keys, the missing ones made together.

        ``plan`` is called once, if anything is missing, with the missing keys, and answers with a builder for each of those
        that can be made; the others are left out of the result.

        Raises:
            FullDiskError: there is no space for an entry; nothing of it remains.
        """
        found = {key: entry for key in dict.fromkeys(keys) if (entry := self.get(key)) is not None}
        missing = sorted(set(keys) - set(found))  # sorted: two processes never wait for each other
        if not missing:
            return found
        with self._locked(missing):
            found |= {key: entry for key in missing if self.holds(key) and (entry := self._read(key)[0]) is not None}
            missing = [key for key in missing if key not in found]
            started = time.perf_counter()
            builders = plan(missing) if missing else {}
            shared = (time.perf_counter() - started) / max(len(builders), 1)
            for key, build in builders.items():
                found[key] = self._build(key, build, shared)
        return found

    def remove(self, key: str) -> None:
        """Remove an entry; waits for a process that makes it."""
        with self._locked([plain_name(key)]):
            self._discard(self.root / key)

    def tidy(self) -> list[Path]:
        """Remove what processes that were killed left in ``.work``; the folders that were removed."""
        removed = []
        for place in sorted((self.root / _WORK).glob("*")):
            lock = self._lock(place.name.split("@")[0])
            try:
                with lock.acquire(timeout=0):
                    shutil.rmtree(place, ignore_errors=True)
                    removed.append(place)
            except Timeout:  # it is being worked on
                continue
        return removed

    def _build(self, key: str, build: Builder, before: float) -> Entry:
        """Make the entry of ``key``, whose lock is held; ``before``: seconds that went into it already."""
        place, work = self.root / key, self._work_folder(key)
        try:
            started = time.perf_counter()
            meta = build(work)
            seconds = round(before + time.perf_counter() - started, 3)
            files = sorted(path for path in work.rglob("*") if path.is_file())
            description = {
                "meta": meta,
                "files": {path.relative_to(work).as_posix(): file_sha256(path) for path in files},
                "seconds": seconds,
            }
            write_atomic(work / META, _description(description))
            for path in (*files, *{path.parent for path in files}, work):
                _to_disk(path)
            self._discard(place)
            work.rename(place)
            _to_disk(self.root)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Entry(place, json.loads(json.dumps(meta)), seconds)

    def _work_folder(self, key: str) -> Path:
        """A new folder to build ``key`` in, whose lock is held; those of processes that were killed at it are removed."""
        for stale in (self.root / _WORK).glob(f"{key}@*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = self.root / _WORK / f"{key}@{secrets.token_hex(4)}"
        work.mkdir(parents=True)
        return work

    def _discard(self, place: Path) -> None:
        """Remove the folder of a key, if there is one, whole in one moment for whoever looks at it."""
        if place.exists():
            away = self.root / _WORK / f"{place.name}@{secrets.token_hex(4)}"
            away.parent.mkdir(parents=True, exist_ok=True)
            place.rename(away)
            shutil.rmtree(away, ignore_errors=True)

    def _lock(self, key: str) -> FileLock:
        return FileLock(self.root / _LOCKS / f"{key}.lock")

    @contextmanager
    def _locked(self, keys: Sequence[str]) -> Iterator[None]:
        """Hold the locks of ``keys``, which are sorted."""
        with writing_to(self.root), ExitStack() as held:
            (self.root / _LOCKS).mkdir(parents=True, exist_ok=True)
            for key in keys:
                lock = self._lock(key)
                try:
                    lock.acquire(timeout=_PATIENCE_S)
                except Timeout:
                    log.warning("%s %s is being made by another process: waiting", _one(self.kind), _short(key))
                    lock.acquire()
                held.callback(lock.release)
            yield


def _description(value: dict[str, Any]) -> bytes:
    """A JSON object as text whose last member is the digest of everything before it."""
    body = json.dumps(value, indent=1, allow_nan=False).removesuffix("\n}").encode()
    return body + _END.format(hashlib.sha256(body).hexdigest()).encode()


def _described(text: bytes) -> dict[str, Any] | None:
    """The object in a description, or None when a byte of it is not what was written."""
    body = text[: -len(_END.format("0" * 64))]
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if set(value) == {"meta", "files"}:  # of an earlier version, without a digest of its own
        return value
    return value if text == body + _END.format(hashlib.sha256(body).hexdigest()).encode() else None


def _touch(folder: Path) -> None:
    """Note that an entry was used: the time stamp of its folder."""
    try:
        os.utime(folder)
    except PermissionError:  # a store that is only read, shared by several users
        log.debug("%s: the time of its use cannot be noted", folder)


def _to_disk(path: Path) -> None:
    """Have the system write a file or a folder's list of names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _one(kind: str) -> str:
    return kind.removesuffix("s").replace("-", " ")


def _short(key: str) -> str:
    return f"{key[:8]}…" if len(key) > 9 else key
