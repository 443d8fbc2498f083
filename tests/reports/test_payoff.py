"""No form that is hardly faster than its parent is shown without the flag and the reason, whatever table or figure shows it."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from rich.console import Console
from rich.table import Table

import depthbench.reports
from depthbench.reports import (
    compare,
    damage,
    decide,
    effects,
    page,
    pareto,
    payoff,
    plots,
    readable,
    report,
    summary,
    tables,
)
from depthbench.reports.load import Run, load_run
from depthbench.suites.cli.deciding import decision_lines
from depthbench.suites.results import Record

TOLD = "62% of the INT8 time goes into 14 Reorder nodes around the Resize nodes: quantize Resize."


def slowed(record: Record) -> Record:
    """INT8 of the CPU does not pay for three networks: explained, told by counts, and neither."""
    if record.latency is None or record.recipe not in ("int8", "int8-trt"):
        return record
    factor = {"mobilevit-xxs": 1.3, "tst-s": 1.5, "fastdepth": 2.0}.get(record.model, 1.0)
    if record.latency.kind == "predicted":
        assert record.latency.latency_ms is not None
        return replace(record, latency=replace(record.latency, latency_ms=record.latency.latency_ms * 1.9))
    latency = replace(record.latency, samples_ms=[ms * factor for ms in record.latency.samples_ms])
    latency = replace(latency, details={"share_by_class": {"pointwise": 1.0}})
    record = replace(record, latency=latency)
    if record.model == "mobilevit-xxs":
        return replace(record, explanation={"sentences": [TOLD, "Another."]})
    return replace(record, profile=record.profile | {"quantized_nodes": 12}) if record.model == "tst-s" else record


@pytest.fixture(scope="module")
def slow_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("synthetic_run", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return load_run(made.write_run(tmp_path_factory.mktemp("slow") / "run", slowed))


REASONS = {
    ("mobilevit-xxs", "int8"): "62% of the INT8 time goes into 14 Reorder nodes around the Resize nodes",
    ("tst-s", "int8"): "only 12 of 50 convolutions and matrix products are in INT8",
    (
        "fastdepth",
        "int8",
    ): "reason unknown: run depthbench explain fastdepth:fp32 fastdepth:int8 --target cpu --size 224x224",
}


def test_each_reason_comes_from_the_best_source(slow_run: Run) -> None:
    cells = slow_run.cells
    on_cpu = cells[(cells["target"] == "cpu") & cells["not_faster"]].set_index(["model", "recipe"])
    assert set(on_cpu.index) == set(REASONS)
    assert on_cpu.loc[("mobilevit-xxs", "int8"), "why_not_faster"] == TOLD
    for form, why in REASONS.items():
        assert payoff.fact(str(on_cpu.loc[form, "why_not_faster"])) == why
    boards = cells[(cells["target"] == "jetson-orin-nano-super") & cells["not_faster"]]
    assert set(boards["recipe"]) == {"int8-trt"}
    assert set(boards["why_not_faster"]) == {"predicted to be bound by memory, not arithmetic"}
    assert (cells["not_faster"] == (cells["speedup"] < payoff.PAYS)).all()
    assert (cells["why_not_faster"].ne("") == cells["not_faster"]).all()


def test_a_form_with_the_macs_of_its_parent_says_so(make_run: Callable[..., Path]) -> None:
    def unpruned(record: Record) -> Record:
        if (record.model, record.recipe, record.target) != ("tst-s", "prune30", "cpu"):
            return record
        assert record.latency is not None
        samples = [ms * 1.2 for ms in record.latency.samples_ms]
        gmacs = {"onnx": 0.239}
        return replace(
            record, latency=replace(record.latency, samples_ms=samples), profile=record.profile | {"gmacs": gmacs}
        )

    cells = load_run(make_run(unpruned)).cells.set_index("id")
    cell = cells.loc["tst-s.prune30.224x224.cpu"]
    assert cell["flags"] == "hardly faster than parent"
    assert cell["why_not_faster"] == "it executes 100% of its parent's multiply-accumulates"


def front(run: Run, target: str = "cpu") -> pareto.Front:
    return next(one for one in pareto.fronts(run.cells) if one.target == target)


def decision(run: Run) -> str:
    cells = run.cells[(run.cells["recipe"] == "int8") & (run.cells["target"] == "cpu")]
    records = tuple(record for record in run.records if record.id in set(cells["id"]))
    draws = decide.choose_cell(replace(run, cells=cells, records=records), decide.Wish("cpu"))
    return "\n".join(decision_lines(draws)) + str(decide.decision_json(draws))


def by_place(run: Run) -> Run:
    """The same run with errors by distance."""
    metrics = {
        name: {**one["metrics"], "rmse_m_0_1m": one["metrics"]["rmse_m"]} for name, one in run.evaluations.items()
    }
    return replace(
        run, evaluations={name: {**run.evaluations[name], "metrics": found} for name, found in metrics.items()}
    )


def smallest(run: Run, recipe: str) -> pd.DataFrame:
    """The forms by one recipe on the CPU."""
    return run.cells[(run.cells["target"] == "cpu") & (run.cells["recipe"] == recipe)]


def noted(table: Callable[[pd.DataFrame, payoff.Notes], pd.DataFrame], cells: pd.DataFrame) -> str:
    """A table of texts and the reasons below it."""
    notes = payoff.Notes(cells)
    return "\n".join([table(cells, notes).to_csv(), *notes.lines()])


PRODUCERS: dict[str, Callable[[Run], object]] = {
    "compare.compare_runs": lambda run: compare.compare_runs(run, run).cells.query("target == 'cpu'"),
    "damage.damage": lambda run: damage.damage(by_place(run)),
    "damage.draw_damage": lambda run: damage.draw_damage(by_place(run)),
    "decide.choose_cell": decision,
    "effects.class_cells": lambda run: effects.class_cells(run, "cpu"),
    "effects.draw_classes": lambda run: effects.draw_classes(run, "cpu"),
    "effects.draw_latencies": lambda run: effects.draw_latencies(run, "cpu"),
    "effects.draw_speedups": lambda run: effects.draw_speedups(run.cells, "cpu"),
    "effects.latency_samples": lambda run: effects.latency_samples(run, "cpu"),
    "effects.speedup_cells": lambda run: effects.speedup_cells(run.cells, "cpu"),
    "load.load_run": lambda run: run.cells[run.cells["target"] == "cpu"],
    "page.page_content": lambda run: page.render_page(run, figures(run), []),
    "pareto.families": lambda run: pareto.families(front(run)),
    "pareto.fronts": lambda run: front(run).cells,
    "plots.draw_front": lambda run: plots.draw_front(front(run)),
    "readable.fastest": lambda run: noted(readable.fastest, smallest(run, "int8")),
    "readable.gains": lambda run: noted(readable.gains, smallest(run, "int8")),
    "readable.lost": lambda run: noted(readable.lost, damage.damage(by_place(run)).query("recipe == 'int8'")),
    "summary.summary_table": lambda run: summary.summary_table(run.cells),
    "tables.latex": lambda run: tables.latex(run.cells[run.cells["target"] == "cpu"]),
    "tables.markdown": lambda run: tables.markdown(run.cells[run.cells["target"] == "cpu"]),
}
"""What shows compressed forms beside their latency or accuracy."""

GROUPED = {
    "damage.draw_damage",
    "effects.draw_classes",
    "effects.draw_latencies",
    "effects.draw_speedups",
    "plots.draw_front",
    "summary.summary_table",
    "tables.latex",
    "tables.markdown",
    *(f"readable.{name}" for name in ("fastest", "gains", "lost")),
}
"""What tells a reason once for all the forms that it holds for."""

EXEMPT = {
    "ablation.shown": "variants of one training, none of them compressed",
    "ablation.csv": "variants of one training, none of them compressed",
    "damage.draw_sensitivities": "a scan of layers, no deployed file",
    "damage.hardest_images": "each network's least compressed form",
    "damage.sensitivities": "a scan of layers, no deployed file",
    "decide.json_value": "one value",
    "effects.class_times": "its rows are marked, class_cells has the reasons",
    "effects.marked_grid": "marked, with the numbers of the notes that it is given; draw_speedups writes both",
    "effects.nothing": "axes without any form",
    "effects.speedup_grid": "numbers alone, speedup_cells has the reasons",
    "gate_output.markdown": "the same form before and after a change",
    "gate_output.table": "the same form before and after a change",
    "history.draw_history": "one form over time",
    "history.load_history": "one form over time",
    "load.cell_table": "what load_run returns",
    "pareto.hypervolumes": "families of networks, no forms",
    "damage.damage_grid": "marked, with the notes beside it; draw_damage writes both",
    "effects.measured_cells": "rows of the tidy table",
    "readable.decisions": "marked, with the numbers of the notes that it is given; a notebook shows both",
    "readable.picks": "marked, with the numbers of the notes that it is given; a notebook shows both",
    "readable.shares": "marked, with the numbers of the notes that it is given; a notebook shows both",
    "readable.smallest_input": "rows of the tidy table",
    "strips.draw_differences": "pictures",
    "summary.summary_rows": "marked, with the numbers of summary_notes; summary_table shows both",
    "surroundings.draw_legend": "no forms",
    "tables.paper_table": "marked, with the numbers of the lines below it; markdown and latex write both",
    "theme.figure_of": "no forms",
    "theme.new_axes": "no forms",
}
"""What makes a table or a figure and needs no flags, and why."""

KINDS = ("DataFrame", "Axes", "Table", "Comparison", "Decision", "list[Front]")
TEXTS = {
    "page.page_content",
    "load.load_run",
    "tables.latex",
    "tables.markdown",
    "ablation.csv",
    "gate_output.markdown",
}


def figures(run: Run) -> page.Figures:
    return page.Figures({one.slug: (("latency", "<svg></svg>"),) for one in pareto.fronts(run.cells)})


def text_of(shown: object) -> str:
    """All words of a table or a figure."""
    if isinstance(shown, pd.DataFrame):
        shown = shown.to_csv()
    elif isinstance(shown, Axes):
        figure = shown.get_figure(root=True)
        assert figure is not None
        shown = "\n".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[union-attr]
    elif isinstance(shown, Table):
        written = io.StringIO()
        Console(width=200, file=written).print(shown)
        shown = written.getvalue()
    assert isinstance(shown, str)
    return " ".join(shown.replace(r"\_", "_").replace(r"\%", "%").split())


@pytest.mark.parametrize("name", PRODUCERS)
def test_every_table_and_figure_flags_what_did_not_pay_and_says_why(name: str, slow_run: Run) -> None:
    text = text_of(PRODUCERS[name](slow_run))
    shown = [why for (model, recipe), why in REASONS.items() if model in text and recipe in text]
    assert shown
    for why in shown:
        if name == "pareto.families" and why not in text:  # a family's best form may be another one
            continue
        if name == "decide.choose_cell" and why != REASONS["mobilevit-xxs", "int8"]:  # only the best two are described
            continue
        said = why in text or (name in GROUPED and payoff.general(why) in text)
        assert said, f"{name} does not say: {why}"
    marks = ("▼", "▽", "blacktriangledown", "not_faster", "only 0")
    assert any(mark in text for mark in marks)


def test_every_producer_is_known() -> None:
    found = set(TEXTS)
    for info in pkgutil.iter_modules(depthbench.reports.__path__):
        if info.ispkg:
            continue
        module = importlib.import_module(f"depthbench.reports.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            returned = str(function.__annotations__.get("return", ""))
            if (
                function.__module__ == module.__name__
                and not name.startswith("_")
                and any(k in returned for k in KINDS)
            ):
                found.add(f"{info.name}.{name}")
    assert found <= PRODUCERS.keys() | EXEMPT.keys(), sorted(found - PRODUCERS.keys() - EXEMPT.keys())


def test_the_front_shows_the_mark_beside_every_flagged_cell(slow_run: Run) -> None:
    on_cpu = front(slow_run)
    ax = plots.draw_front(on_cpu)
    written = [text.get_text() for text in ax.texts if not text.get_text().startswith(payoff.LEGEND)]
    assert sum("▼" in text for text in written) == (on_cpu.cells["speedup"] < 1).sum() == 3


def test_files_of_the_report_carry_flag_and_reason(slow_run: Run, tmp_path: Path) -> None:
    report.write_tables(slow_run.cells, tmp_path)
    for name in ("cells.md", "cells.csv"):
        text = text_of((tmp_path / name).read_text("utf-8"))
        assert all(why in text for why in REASONS.values())
    kept = pd.read_parquet(tmp_path / "cells.parquet")
    assert kept.loc[kept["id"] == "tst-s.int8.224x224.cpu", "not_faster"].tolist() == [True]
    assert set(kept.loc[kept["speedup"] < payoff.PAYS, "why_not_faster"]) >= {TOLD}
    assert not np.isnan(kept.loc[kept["not_faster"], "speedup"]).any()


def test_notebooks_show_them_too() -> None:
    """Every notebook that shows single forms marks them and writes the reasons below."""
    folder = Path(depthbench.reports.__file__).parent / "notebooks"
    for name in ("overview", "boards", "compression"):
        text = (folder / f"{name}.py").read_text("utf-8")
        marked = text.count("notes)") + text.count("notes, ")
        assert marked
        assert "print(*notes.lines()" in text
    assert "print(*summary_notes(small)" in (folder / "overview.py").read_text("utf-8")


def test_reasons_that_differ_in_their_numbers_alone_are_told_once() -> None:
    whys = [
        "only 86% of its multiply-accumulates are executed in INT8",
        "30% of the time goes into 18 kernels (the parent's: 51%), most of it in /decoder.4/conv_1: leave it.",
        "only 52% of its multiply-accumulates are executed in INT8",
        "29% of the time goes into 18 kernels (the parent's: 5%), most of it in /decoder.4/conv_1: leave it.",
        "29% of the time goes into 18 kernels (the parent's: 5%), most of it in /decoder.5/conv_1: leave it.",
    ]
    cells = pd.DataFrame({"not_faster": True, "why_not_faster": whys, "speedup": [1.1, 0.9, 1.1, 1.1, 1.1]})
    notes = payoff.Notes(cells)
    assert [notes.mark(cell) for _, cell in cells.iterrows()] == ["▽¹", "▼²", "▽¹", "▽²", "▽³"]
    assert notes.reasons() == [
        "¹ only 52–86% of its multiply-accumulates are executed in INT8",
        "² 29–30% of the time goes into 18 kernels (the parent's: 5–51%), most of it in /decoder.4/conv_1: leave it.",
        "³ 29% of the time goes into 18 kernels (the parent's: 5%), most of it in /decoder.5/conv_1: leave it.",
    ]
