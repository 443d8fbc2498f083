"""The report of a run: tables, fronts, pictures, an executed notebook and one page that shows them all."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd

from depthbench.reports.load import COLUMNS, TEXT, Run, load_run
from depthbench.reports.pareto import fronts
from depthbench.suites.results import write_atomic

Progress = Callable[[str], None]


def build_report(
    run: Path, out: Path | None = None, progress: Progress | None = None, *, notebook: bool = True
) -> Path:
    """Write the report of the run folder ``run`` and return the path of ``report.html``.

    ``out`` is the folder to write to (default: ``run/report``); ``progress`` is told each stage as one line;
    ``notebook`` also executes the overview notebook, which takes longer than all the rest. Every file is written
    atomically. A run that is empty, unfinished or failed has a report too. ``ValueError`` when ``run`` holds no run.
    """
    tell = progress or _silent
    run = Path(run).resolve()  # executing the notebook changes the working folder of the whole process
    out = Path(out).resolve() if out is not None else run / "report"
    tell("reading the records")
    loaded = load_run(run)
    write_tables(loaded.cells, out)
    with ThreadPoolExecutor(1) as beside:
        execution = beside.submit(_write_notebook, run, out) if notebook else None
        page = _write_page(loaded, out, tell, notebook=notebook)
        if execution is not None:
            tell("executing the notebook")
            execution.result()
    return page


def _silent(line: str) -> None:
    """The progress that nobody listens to."""


def write_tables(cells: pd.DataFrame, out: Path) -> None:
    """Write the tidy table as ``cells.csv`` and ``cells.parquet``; an absent value is an empty field."""
    write_atomic(out / "cells.csv", cells.to_csv(index=False, lineterminator="\n").encode())
    buffer = io.BytesIO()
    texts = [name for name, (kind, _, _) in COLUMNS.items() if kind == TEXT]
    cells.astype(dict.fromkeys(texts, "string")).to_parquet(buffer, index=False, engine="pyarrow")
    write_atomic(out / "cells.parquet", buffer.getvalue())


def _write_notebook(run: Path, out: Path) -> None:
    from jupyter_core.utils import ensure_event_loop

    from depthbench.reports.notebook import write_notebook

    with closing(ensure_event_loop()):  # Jupyter makes one for this thread and would leave it open
        write_notebook(run, out)


def _write_page(loaded: Run, out: Path, tell: Progress, *, notebook: bool) -> Path:
    from depthbench.reports import pictures, plots
    from depthbench.reports.page import Figure, Figures, render_page
    from depthbench.reports.theme import DARK, LIGHT, png

    names = list(loaded.cells["family"])
    drawn = {}
    for front in fronts(loaded.cells):
        tell(f"drawing the front of {front.slug}")
        light, dark = (png(plots.draw_front(front, theme=theme, families=names)) for theme in (LIGHT, DARK))
        alt = f"RMSE against {front.latency_kind} latency on {front.target}: {len(front.members)} cells on the front"
        drawn[front.slug] = Figure(light, dark, alt)
        write_atomic(out / f"pareto_{front.slug}.png", light)
    panel = pictures.panel(loaded)
    shown = None
    if panel is not None:
        tell("drawing the pictures")
        light, dark = (png(pictures.draw_panel(panel, theme=theme)[0, 0], dpi=110) for theme in (LIGHT, DARK))
        shown = Figure(light, dark, "input, ground truth, prediction and error of every model on the same images")
        write_atomic(out / "pictures.png", light)
    tell("writing the page")
    figures = Figures(drawn, shown, panel.left_out if panel else ())
    files = ["cells.csv", "cells.parquet", *(["overview.html", "overview.ipynb"] if notebook else [])]
    page = out / "report.html"
    write_atomic(page, render_page(loaded, figures, files).encode())
    return page
