"""Entries of the store on their way from one machine to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthbench.suites.running.execution import StoreKey
from depthbench.suites.storage.store import META, Store


@dataclass(frozen=True)
class Parcel:
    """An entry of the store with the content of its files."""

    kind: str
    key: str
    meta: dict[str, Any]
    files: dict[str, bytes]

    def unpack(self) -> None:
        """Put the entry into this machine's store, unless it is there."""
        Store(self.kind).make(self.key, self._write)

    def _write(self, folder: Path) -> dict[str, Any]:
        for name, content in self.files.items():
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{name!r} leads out of an entry of the store")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.meta


def pack(place: StoreKey) -> Parcel | None:
    """An entry of this machine's store, its files checked, or None when it has none."""
    kind, key = place
    entry = Store(kind).get(key)
    if entry is None:
        return None
    paths = (path for path in entry.folder.rglob("*") if path.is_file() and path != entry.folder / META)
    return Parcel(
        kind, key, entry.meta, {path.relative_to(entry.folder).as_posix(): path.read_bytes() for path in paths}
    )
