"""What a run shows while it goes on: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from depthbench.suites.cli.output import err
from depthbench.suites.running.status import Status

_SHOWN = 6
"""Tasks at work that are named."""


class LiveRun:
    """Takes what a run tells of itself, and shows it."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._shares: dict[str, tuple[float, float]] = {}

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Something that takes long has done ``done`` of ``total``."""
        self._shares[stage] = (done, total)

    def look(self, status: Status) -> None:
        """The run's status has changed."""
        self._status = status

    def __rich__(self) -> RenderableType:
        """The table."""
        status = self._status
        parts: list[RenderableType] = []
        if status is not None:
            table = Table(box=None, pad_edge=False, header_style="dim")
            table.add_column("")
            for name in ("done", "running", "failed", "cached", "left"):
                table.add_column(name, justify="right")
            for name, stage in status.stages.items():
                counts = (stage.done, stage.running, stage.failed, stage.cached, stage.left)
                table.add_row(name, *(str(count) if count else "" for count in counts))
            parts += [Text(line(status)), table]
            parts += [Text(f"  {one.what}") for one in [*status.running.values()][:_SHOWN]]
        parts += [Text(f"  {name}: {_percent(*share)}") for name, share in self._shares.items() if share[0] < share[1]]
        return Group(*parts)


class PlainRun:
    """The same as lines: whenever another tenth of a stage, or of the cells, is done."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Something that takes long has done ``done`` of ``total``."""
        if self._worth(stage, done / total if total else 1.0):
            err.print(f"{stage}: {_percent(done, total)}")

    def look(self, status: Status) -> None:
        """The run's status has changed."""
        if self._worth("cells", status.over / status.total):
            err.print(line(status))

    def _worth(self, name: str, share: float) -> bool:
        before = self._told.get(name, -1.0)
        if share >= before + 0.1 or (share >= 1 > before):
            self._told[name] = share
            return True
        return False


@contextmanager
def shown() -> Iterator[LiveRun | PlainRun]:
    """A view of a run for the length of a command, on stderr."""
    if not err.is_terminal:
        yield PlainRun()
        return
    view = LiveRun()
    with Live(view, console=err, refresh_per_second=4, transient=True):
        yield view


def line(status: Status) -> str:
    """Where a run stands, in one line."""
    cells = status.cells
    done = cells["ok"] + cells["skipped"]
    words = [f"cells: {status.over} of {status.total}", f"{done} done", f"{cells['failed']} failed"]
    words += [f"{cells['kept']} from before"] if cells["kept"] else []
    if status.running:
        words += [f"{len(status.running)} at work", f"{duration(status.eta_s())} left"]
    return ", ".join(words)


def duration(seconds: float | None) -> str:
    """A time in words, or that it is not known."""
    if seconds is None:
        return "unknown time"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"


def _percent(done: float, total: float) -> str:
    return f"{done / total if total else 1.0:.0%}"
