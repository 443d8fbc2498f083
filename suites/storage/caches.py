"""What lies in the cache folder: how much of what, since when unused, what of it is damaged, and what may go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthbench.suites.results import read_json
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.store import META, Store

STORES = {
    "artefacts": "deployed ONNX files",
    "checked": "which images of a data set are broken",
    "evaluations": "accuracy of a file on a data set",
    "gate": "files that commits build",
    "gate-scores": "accuracy of files that a gate compared",
    "networks": "compressed networks",
    "trained": "weights that suites trained",
}
"""The stores that every version has; others are found by their entries."""

PLAIN = {
    "rooms": "rendered images",
    "decoded": "decoded training images",
    "trainings": "checkpoints of unfinished trainings",
    "gate/environments": "environments of other revisions",
    "calibration": "latency models fitted on this machine",
}
"""Folders that are no stores, whose files have no digests."""

_ONE_EACH = {"decoded", "trainings", "gate/environments", "calibration"}
"""Of these, those whose items are the direct children; the images of ``rooms`` are one item a split."""

KEPT = {"calibration"}
"""What is never cleaned: predictions would change."""

RECENT_S = 24 * 3600.0
"""What was used in this time is not removed to save space: a run may be at work with it."""


@dataclass(frozen=True)
class Item:
    """Something in the cache that can be removed by itself.

    ``used``: when it was last used, in seconds since 1970. ``seconds``: how long it took to make, where that is known.
    """

    area: str
    name: str
    path: Path
    size_bytes: int
    used: float
    seconds: float | None = None
    about: str = ""


def contents() -> list[Item]:
    """Everything in the cache, by area and name."""
    root = cache_dir()
    found: list[Item] = []
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        if folder.name not in PLAIN:
            found += _entries(Store(folder.name))
    for area in PLAIN:
        if (root / area).is_dir():
            found += _plain(area, root / area)
    return sorted(found, key=lambda item: (item.area, item.name))


def _entries(store: Store) -> Iterator[Item]:
    for key in store:
        folder = store.root / key
        try:
            stored: Any = read_json(folder / META)
            used = folder.stat().st_mtime
        except (ValueError, FileNotFoundError):  # damaged, which verify says; or removed meanwhile
            stored, used = {}, 0.0
        stored = stored if isinstance(stored, dict) else {}
        yield Item(store.kind, key, folder, _size(folder), used, stored.get("seconds"), _about(stored.get("meta")))


def _about(meta: Any) -> str:
    """A few words on an entry, from its description."""
    if not isinstance(meta, dict):
        return ""
    if meta.get("lineage"):
        first = meta["lineage"][0]
        options: dict[str, Any] = {}
        for link in meta["lineage"]:
            options |= link["options"]
        name = options.get("model") or options.get("file") or first["stage"]
        size = "x".join(map(str, options.get("size", [])))
        return " ".join(filter(None, [str(name), size, meta["lineage"][-1]["stage"]]))
    return f"{meta['n']} images" if "n" in meta else ""


def _plain(area: str, root: Path) -> Iterator[Item]:
    if area in _ONE_EACH:
        paths = [path for path in root.glob("[!.]*") if path.suffix != ".lock"]
    else:
        paths = [path for path in root.glob("*/*") if path.is_dir()]
    for path in sorted(paths):
        stats = [file.lstat() for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path.lstat()]
        # Images are read through memory maps: the time of reading is what the file system keeps, often to the day only.
        used = max((max(stat.st_atime, stat.st_mtime) for stat in stats), default=path.lstat().st_mtime)
        yield Item(area, path.relative_to(root).as_posix(), path, _size(path), used)


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder (links not followed)."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def chosen(
    items: Sequence[Item],
    *,
    older_than_s: float | None = None,
    max_bytes: float | None = None,
    now: float | None = None,
) -> list[Item]:
    """What is to go, the longest unused first: all that was not used for ``older_than_s``, then until ``max_bytes`` remain.

    What ``KEPT`` names stays, and to save space nothing goes that was used within ``RECENT_S``.
    """
    now = time.time() if now is None else now
    free = sorted((item for item in items if item.area not in KEPT), key=lambda item: (item.used, item.area, item.name))
    going = [item for item in free if older_than_s is not None and item.used <= now - older_than_s]
    left = sum(item.size_bytes for item in items) - sum(item.size_bytes for item in going)
    for item in free[len(going) :]:
        if max_bytes is None or left <= max_bytes or item.used > now - RECENT_S:
            break
        going.append(item)
        left -= item.size_bytes
    return going


def remove(item: Item) -> None:
    """Remove one item; a store's entry under its lock."""
    if item.area not in PLAIN:
        Store(item.area).remove(item.name)
    elif item.path.is_dir():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)


def tidy() -> int:
    """Remove what killed processes left half-made; how many entries and files that were."""
    stores = [path for path in cache_dir().glob("[!.]*") if path.is_dir() and path.name not in PLAIN]
    removed = sum(len(Store(path.name).tidy()) for path in stores)
    for area in PLAIN:
        for path in (cache_dir() / area).rglob(".*.tmp"):
            if path.stat().st_mtime < time.time() - RECENT_S:  # nobody is still writing it
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def faults(items: Sequence[Item], progress: Callable[[int, int], None]) -> list[tuple[Item, str]]:
    """The damaged items, each with what is wrong: every byte of the stores' entries is read and compared with its digest.

    Files outside the stores have none: of these only what cannot be read at all is found.
    """
    done, total = 0, sum(item.size_bytes for item in items)
    found = []
    for item in items:
        fault = Store(item.area).fault(item.name) if item.area not in PLAIN else _unreadable(item)
        if fault is not None:
            found.append((item, fault))
        done += item.size_bytes
        progress(done, total)
    return found


def _unreadable(item: Item) -> str | None:
    import numpy as np
    from safetensors import SafetensorError, safe_open

    if item.area == "gate/environments":
        return None if (item.path / ".complete").is_file() else ".complete is missing"
    files = sorted(item.path.rglob("*")) if item.path.is_dir() else [item.path]
    for path in files:
        try:
            if path.suffix == ".npy":
                np.load(path, mmap_mode="r")
            elif path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="numpy") as file:
                    file.keys()
        except (ValueError, SafetensorError):
            return f"{path.name} cannot be read"
    return None
