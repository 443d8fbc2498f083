"""The report of a run: tables, fronts, pictures, an executed notebook and one page that shows them all."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from depthbench.reports.ablation import ablations
from depthbench.reports.ablation import csv as ablation_csv
from depthbench.reports.columns import COLUMNS, TEXT
from depthbench.reports.load import Run, load_run
from depthbench.reports.pareto import COSTS, file_name, fronts, judged
from depthbench.reports.tables import latex, markdown
from depthbench.suites.results import write_atomic

if TYPE_CHECKING:
    from depthbench.reports.page import Pictures
    from depthbench.reports.pictures import Panel, Worst
    from depthbench.reports.strips import Difference

Progress = Callable[[str], None]


def build_report(
    run: Path, out: Path | None = None, progress: Progress | None = None, *, notebook: bool = True
) -> Path:
    """Write the report of the run folder ``run`` and return the path of ``report.html``.

    ``out`` is the folder to write to (default: ``run/report``); ``progress`` is told each stage as one line;
    ``notebook`` also executes the notebooks, which take longer than all the rest. Every file is written
    atomically. A run that is empty, unfinished or failed has a report too. ``ValueError`` when ``run`` holds no run.
    """
    tell = progress or _silent
    run = Path(run).resolve()  # executing the notebook changes the working folder of the whole process
    out = Path(out).resolve() if out is not None else run / "report"
    tell("reading the records")
    loaded = load_run(run)
    if notebook:
        import IPython  # noqa: F401  (whole, before the notebooks' thread and matplotlib here import it at once)
    write_tables(loaded.cells, out)
    if table := ablation_csv(loaded):
        write_atomic(out / "ablation.csv", table.encode())
    with ThreadPoolExecutor(1) as beside:
        names = _notebooks(loaded) if notebook else []
        execution = beside.submit(_write_notebooks, run, out, names) if names else None
        page = _write_page(loaded, out, tell, names)
        if execution is not None:
            tell("executing the notebooks")
            execution.result()
    return page


def _silent(line: str) -> None:
    """The progress that nobody listens to."""


def write_tables(cells: pd.DataFrame, out: Path) -> None:
    """Write the tidy table as ``cells.csv`` and ``cells.parquet`` (an absent value is empty), ``cells.md``, ``cells.tex``."""
    write_atomic(out / "cells.csv", cells.to_csv(index=False, lineterminator="\n").encode())
    buffer = io.BytesIO()
    texts = [name for name, (kind, _, _) in COLUMNS.items() if kind == TEXT]
    cells.astype(dict.fromkeys(texts, "string")).to_parquet(buffer, index=False, engine="pyarrow")
    write_atomic(out / "cells.parquet", buffer.getvalue())
    write_atomic(out / "cells.md", markdown(cells).encode())
    write_atomic(out / "cells.tex", latex(cells).encode())


def _notebooks(loaded: Run) -> list[str]:
    """The notebooks that have something to say about a run."""
    names = ["overview"]
    if len(loaded.cells):
        names.append("boards")
    if loaded.cells["parent_recipe"].ne("").any():
        names.append("compression")
    return [*names, *(["ablation"] if ablations(loaded) else [])]


def _write_notebooks(run: Path, out: Path, names: list[str]) -> None:
    from jupyter_core.utils import ensure_event_loop

    from depthbench.reports.notebook import write_notebooks

    with closing(ensure_event_loop()):  # Jupyter makes one for this thread and would leave it open
        write_notebooks(run, out, names)


def _write_page(loaded: Run, out: Path, tell: Progress, notebooks: list[str]) -> Path:
    from depthbench.reports import pictures, plots, strips
    from depthbench.reports.page import Figures, render_page
    from depthbench.reports.theme import png, svg

    names = list(loaded.cells["family"])
    drawn: dict[str, list[tuple[str, str]]] = {}
    places = {(f.target, f.dataset, f.protocol, f.latency_kind): f.slug for f in fronts(loaded.cells)}
    for cost, (name, _) in COSTS.items():
        for front in fronts(loaded.cells, cost):
            place = places.get((front.target, front.dataset, front.protocol, front.latency_kind))
            if place is None:
                continue
            tell(f"drawing the front of {front.slug}")
            assert loaded.draws is not None
            ax = plots.draw_front(judged(front, loaded.draws), families=names)
            write_atomic(out / f"pareto_{front.slug}.png", png(ax))
            label = (
                f"RMSE against {name} on {front.target}: {len(front.members)} of {len(front.cells)} cells on the front"
            )
            drawn.setdefault(place, []).append((name, svg(ax, front.slug, label)))
    times = _time_figures(loaded, out, tell)
    _write_damage(loaded, out, tell)
    panel = pictures.panel(loaded)
    shown = None
    if panel is not None:
        tell("drawing the pictures")
        write_atomic(out / "pictures.png", png(pictures.draw_panel(panel)[0, 0], dpi=110))
        worst = pictures.worst_cases(loaded)
        if worst:
            write_atomic(out / "worst.png", png(pictures.draw_worst(worst)[0, 0], dpi=110))
        changed = strips.differences(loaded)
        figure = strips.draw_differences(changed)
        if figure is not None:
            write_atomic(out / "int8_differences.png", png(figure, dpi=110))
        shown = _pictures(loaded, panel, worst, changed)
    tell("writing the page")
    figures = Figures({place: tuple(figures) for place, figures in drawn.items()}, shown, times)
    files = ["cells.csv", "cells.parquet", "cells.md", "cells.tex", *(["ablation.csv"] if ablations(loaded) else [])]
    files += [f"{name}.{kind}" for name in notebooks for kind in ("html", "ipynb")]
    page = out / "report.html"
    write_atomic(page, render_page(loaded, figures, files).encode())
    return page


def _time_figures(loaded: Run, out: Path, tell: Progress) -> dict[str, tuple[tuple[str, str], ...]]:
    """Where the time goes on each target, and how its measurements spread: as PNG files, and (name, ``<svg>``) by target."""
    from depthbench.reports import effects
    from depthbench.reports.theme import png, svg

    kinds = (
        ("classes", "operator classes", effects.class_cells, effects.draw_classes),
        ("latencies", "timing samples", effects.measured_cells, effects.draw_latencies),
    )
    drawn: dict[str, tuple[tuple[str, str], ...]] = {}
    for target in dict.fromkeys(loaded.cells["target"]):
        for file, words, rows, draw in kinds:
            if rows(loaded, target).empty:
                continue
            tell(f"drawing the {words} of {target}")
            ax = draw(loaded, target)
            name = f"{file}_{file_name(target)}"
            write_atomic(out / f"{name}.png", png(ax))
            drawn[target] = (*drawn.get(target, ()), (words, svg(ax, name, f"{words} on {target}")))
    return drawn


def _write_damage(loaded: Run, out: Path, tell: Progress) -> None:
    """What compression cost, by distance and by layer group, as PNG files."""
    from depthbench.reports import damage
    from depthbench.reports.theme import png

    if len(damage.damage(loaded)):
        tell("drawing what compression cost")
        write_atomic(out / "damage.png", png(damage.draw_damage(loaded)))
    for model in damage.sensitivities(loaded)["model"].unique():
        write_atomic(out / f"sensitivity_{file_name(model)}.png", png(damage.draw_sensitivities(loaded, model)))


def _pictures(loaded: Run, panel: Panel, worst: list[Worst], changed: list[Difference]) -> Pictures:
    from depthbench.reports import damage, strips
    from depthbench.reports.page import ModelPictures, Pictures

    worst_of = {each.model: (each.rmse_m, strips.worst_strip(each, panel.limits)) for each in worst}
    models = tuple(
        ModelPictures(
            model=model,
            note=note,
            strip=strips.model_strip(panel, model),
            worst=worst_of.get(model),
            differences=tuple(
                (each.name, each.parent, each.rms_m, strips.difference_strip(each))
                for each in changed
                if each.model == model
            ),
        )
        for model, note in panel.notes.items()
    )
    return Pictures(
        header=strips.header_strip(panel),
        models=models,
        images=len(panel.rgb),
        hardest=panel.hardest,
        limits=panel.limits,
        left_out=panel.left_out,
        scales={name: strips.scale(name) for name in ("magma_r", "PuOr")},
        worst=damage.hardest_images(loaded),
    )
