"""Where a run was made: every known fact of its machines and programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from depthbench.reports.load import Run


def environment_rows(run: Run) -> list[tuple[str, str, bool]]:
    """(name, value, whether it differs between cells) of everything known about where the run was made."""
    manifest = [run.manifest.get(part) or {} for part in ("environment", "libraries")]
    found: dict[str, dict[str, None]] = {}
    for source in (*manifest, *(record.environment for record in run.records)):
        for name, value in _flat(source):
            found.setdefault(name, {})[value] = None
    return [(name, "; ".join(values), len(values) > 1) for name, values in found.items()]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list):
        yield prefix, ", ".join(str(inner) for inner in value)
    else:
        yield prefix, str(value)
