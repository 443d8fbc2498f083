"""The table that a run ends with: a row per model, recipe and input size, its latency on every target side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from depthbench.reports.payoff import Notes

if TYPE_CHECKING:
    from rich.table import Table

MISSING = "–"


def data_names(table: pd.DataFrame) -> str:
    """The data sets and protocols that the accuracies of a table are of: ``rooms (native)``, several joined by ``and``."""
    return " and ".join((table["dataset"] + " (" + table["protocol"] + ")").drop_duplicates())


def summary_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The summary as text, from the tidy table: a row per model × recipe × input size × data set that ran anywhere.

    Columns: ``model``, ``recipe``, ``size`` and ``dataset`` (each of the two only where the run has several; see
    :func:`data_names`), ``RMSE [m]``,
    ``δ1``, a latency in ms per target that ran anything (``~`` marks a prediction; a trailing triangle a form that is slower or
    hardly faster than its uncompressed parent, with the number of its reason among :func:`summary_notes`), ``GMAC``, ``MB``.
    Where the forms deployed on different targets differ, a range is given.
    """
    notes = Notes(table)
    done = table[table["status"] == "ok"]
    targets = list(done["target"].drop_duplicates())
    keys = ["model", "recipe", "height", "width", "dataset", "protocol"]
    rows = []
    for (model, recipe, height, width, dataset, protocol), cells in done.groupby(keys, sort=False):
        row = {
            "model": model,
            "recipe": recipe,
            "size": f"{height}×{width}",
            "dataset": f"{dataset} ({protocol})",
            "RMSE [m]": _range(cells["rmse_m"], 3),
            "δ1": _range(cells["delta1"], 3),
        }
        for target in targets:
            row[target] = _latency(cells[cells["target"] == target], notes)
        rows.append(row | {"GMAC": _range(cells["gmacs"], 3), "MB": _range(cells["size_mb"], 1)})
    columns = ["model", "recipe", "size", "dataset", "RMSE [m]", "δ1", *targets, "GMAC", "MB"]
    summary = pd.DataFrame(rows, columns=columns)
    return summary.drop(columns=[name for name in ("size", "dataset") if summary[name].nunique() < 2])


def summary_notes(table: pd.DataFrame) -> list[str]:
    """What the marks of the summary mean, the reasons by their numbers; empty when every form paid."""
    return Notes(table).lines()


def _range(values: pd.Series, digits: int) -> str:
    texts = [f"{value:.{digits}f}" for value in sorted(values.dropna())]
    return "–".join(dict.fromkeys((texts[0], texts[-1]))) if texts else MISSING


def _latency(cells: pd.DataFrame, notes: Notes) -> str:
    cells = cells[cells["latency_ms"].notna()]
    if cells.empty:
        return MISSING
    cell = cells.iloc[0]
    sign = "~" if cell["latency_kind"] == "predicted" else ""
    return f"{sign}{significant(cell['latency_ms'])}{notes.mark(cell)}"


def significant(value: float) -> str:
    """Three significant digits without an exponent: 0.123, 1.23, 12.3, 123, 1234."""
    digits = next((2 - power for power in range(-1, 3) if abs(value) < 10 ** (power + 1)), 0)
    return f"{value:.{max(digits, 0)}f}"


def summary_table(table: pd.DataFrame) -> Table:
    """The summary for a terminal."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    summary = summary_rows(table)
    notes = []
    if (table["latency_kind"] == "predicted").any():
        notes.append("~ predicted, not measured")
    notes += summary_notes(table)
    caption = Text("\n".join(notes), justify="left") if notes else None
    title = "Latency in ms, batch 1"
    done = table[table["status"] == "ok"]
    if "dataset" not in summary and len(done):
        title += f"; accuracy on {data_names(done)}"
    shown = Table(title=title, caption=caption, box=None, pad_edge=False)
    shown.collapse_padding = True
    for name in summary.columns:
        text = name in {"model", "recipe", "size", "dataset"}
        header = Text(name if text else name.removeprefix("jetson-").replace("-", "\n").replace(" ", "\n"))
        whole = 0 if name == "dataset" else max((cell_len(str(value)) for value in summary[name]), default=0)
        shown.add_column(header, justify="left" if text else "right", no_wrap=name != "dataset", min_width=whole)
    previous = None
    for row in summary.itertuples(index=False, name=None):
        shown.add_row("" if row[0] == previous else row[0], *row[1:])
        previous = row[0]
    return shown
