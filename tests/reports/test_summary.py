from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from depthbench.reports.load import Run, load_run
from depthbench.reports.summary import data_names, significant, summary_rows, summary_table
from depthbench.suites.cli.output import print_wide
from depthbench.suites.results import Record

MakeRun = Callable[..., Path]


def test_a_row_per_model_and_recipe_with_every_target_beside_it(run: Run) -> None:
    rows = summary_rows(run.cells)
    boards = ["jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-orin-nano-super"]
    assert list(rows.columns) == ["model", "recipe", "RMSE [m]", "δ1", "cpu", *boards, "GMAC", "MB"]
    assert len(rows) == 36
    by_key = rows.set_index(["model", "recipe"])
    assert by_key.loc[("tst-s", "fp32")].tolist() == ["0.550", "0.780", "6.00", *"––––", "0.240", "4.6"]
    assert by_key.loc[("tst-s", "fp16"), "jetson-nano"] == "~13.2"
    assert by_key.loc[("mobilevit-xxs", "int8"), "cpu"] == "21.2▼¹"
    assert by_key.loc[("tst-s", "int8-trt"), "jetson-nano"] == "–"


def test_sizes_are_told_apart_where_there_are_several(two_sizes: Run) -> None:
    rows = summary_rows(two_sizes.cells)
    assert set(rows["size"]) == {"224×224", "480×640"}
    assert not rows.duplicated(["model", "recipe", "size"]).any()


def test_the_data_are_named_beside_the_accuracy(make_run: MakeRun) -> None:
    def on_cpu(record: Record) -> Record | None:
        return record if record.target == "cpu" and record.model == "tst-t" else None

    def on_two(record: Record) -> Record | None:
        other = record.recipe == "int8"
        return on_cpu(replace(record, dataset="nyu-labeled", protocol="nyu-eigen")) if other else on_cpu(record)

    one, two = load_run(make_run(on_cpu, "one")).cells, load_run(make_run(on_two, "two")).cells
    assert summary_table(one).title == "Latency in ms, batch 1; accuracy on rooms (native)"
    assert summary_table(two).title == "Latency in ms, batch 1"
    assert summary_rows(two)["dataset"].tolist() == [
        "rooms (native)",
        "nyu-labeled (nyu-eigen)",
        *["rooms (native)"] * 2,
    ]
    assert data_names(two) == "rooms (native) and nyu-labeled (nyu-eigen)"


def test_terminal_table_is_whole_at_a_hundred_columns(run: Run) -> None:
    written = io.StringIO()
    Console(width=100, file=written).print(summary_table(run.cells))
    text = written.getvalue()
    assert "…" not in text
    assert "RMSE" in text
    assert "[m]" in text
    assert "~ predicted, not measured" in text
    assert "▼ slower than its uncompressed form, ▽ less than 1.2 times as fast:" in " ".join(text.split())
    assert "reason unknown: run depthbench explain mobilevit-xxs:fp32 mobilevit-xxs:int8" in " ".join(text.split())


def test_names_with_blanks_cost_no_number(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    def renamed(record: Record) -> Record:
        return replace(record, model=f"{record.model} of a user with a long name")

    cells = load_run(make_run(renamed)).cells
    print_wide(summary_table(cells))
    text = capsys.readouterr().out
    assert "…" not in text
    assert all(model in text for model in cells["model"])


def test_empty_run_has_an_empty_table(make_run: MakeRun) -> None:
    cells = load_run(make_run(lambda _: None)).cells
    assert summary_rows(cells).empty
    assert summary_table(cells).row_count == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (0.123, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1234")],
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text
