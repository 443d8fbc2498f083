"""How commands talk: data on stdout (a table, or one JSON document), everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


def _console(**options: Any) -> Console:
    """Prints what it is given: names and paths may hold brackets and colons, which rich would read as markup."""
    return Console(markup=False, emoji=False, highlight=False, **options)


out = _console(soft_wrap=True)
err = _console(stderr=True, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table; the first row's keys are the columns."""
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    _console().print(table)


def print_wide(table: Table) -> None:
    """A table that gets 110 columns at least, and more where its words need them: no word of it is cut short."""
    wide = _console(width=1000)
    words = Measurement.get(wide, wide.options, table).minimum
    _console(width=max(out.width, 110, words)).print(table)


class Stages:
    """A progress bar a stage, made when the stage is first heard of; plain lines when stderr is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, Any] = {}
        self._told: dict[str, float] = {}

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Stage ``stage`` has done ``done`` of ``total``."""
        if not err.is_terminal:
            share = done / total if total else 1.0
            if share >= self._told.get(stage, -1.0) + 0.1 or (share >= 1 and self._told.get(stage, 0.0) < 1):
                self._told[stage] = share
                err.print(f"{stage}: {share:.0%}")
            return
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._bars[stage], completed=done, total=total)


@contextmanager
def stages() -> Iterator[Stages]:
    """Progress bars on stderr for the length of a command."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(
        *columns,
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    ) as progress:
        yield Stages(progress)
