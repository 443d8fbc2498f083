"""Content-addressed store of what is costly to make: a folder per key, complete or not there at all.

A key is the digest of all inputs. An entry is built in a temporary folder beside its place and renamed into it, so a kill
at any moment leaves either nothing or the whole entry. Its files' digests are checked on every read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthbench.suites.cache import cache_dir
from depthbench.suites.models import file_sha256
from depthbench.suites.results import read_json, write_json

META = "meta.json"


@dataclass(frozen=True)
class Entry:
    """A complete entry: its folder, and the JSON value that its builder returned."""

    folder: Path
    meta: dict[str, Any]


class Store:
    """The entries of one kind (``"artefacts"``, ``"evaluations"``, ``"networks"``) below the cache folder."""

    def __init__(self, kind: str) -> None:
        self.root = cache_dir() / kind

    def get(self, key: str) -> Entry | None:
        """The entry of a key, or None when there is none or its files are not what was written (it is then removed)."""
        folder = self.root / key
        if not (folder / META).is_file():
            return None
        stored = read_json(folder / META)
        if any(
            not (folder / name).is_file() or file_sha256(folder / name) != sha for name, sha in stored["files"].items()
        ):
            shutil.rmtree(folder)
            return None
        return Entry(folder, stored["meta"])

    def make(self, key: str, build: Callable[[Path], dict[str, Any]]) -> Entry:
        """The entry of a key; when there is none, ``build(folder)`` writes its files and returns its JSON value."""
        found = self.get(key)
        if found is not None:
            return found
        self.root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{key}."))
        try:
            meta = build(work)
            files = {path.name: file_sha256(path) for path in sorted(work.iterdir())}
            write_json(work / META, {"meta": meta, "files": files})
            try:
                work.rename(self.root / key)
            except OSError:
                if self.get(key) is None:  # not another process that was faster
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        entry = self.get(key)
        assert entry is not None
        return entry
