"""Trends and change points over stored runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from depthbench.reports.history import (
    COLUMNS,
    artefact_series,
    change_points,
    draw_history,
    load_history,
    trends,
)
from depthbench.reports.theme import png
from depthbench.suites.results import Record


def series(values: list[float], metric: str = "latency_ms") -> pd.DataFrame:
    place = ("net--fp32--64x64", "cpu", "rooms", "native", metric)
    rows = [(f"run-{i}", f"2026-01-{i + 1:02d}", *place, value) for i, value in enumerate(values)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_a_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(0)
    for at in (5, 10, 15):
        values = 10 * (1 + rng.normal(0, 0.01, 20))
        values[at:] *= 1.1
        assert change_points(values) == [at]


def test_noise_has_few_change_points() -> None:
    rng = np.random.default_rng(0)
    found = [change_points(10 * (1 + rng.normal(0, 0.02, 20))) for _ in range(200)]
    assert sum(bool(one) for one in found) <= 20


@pytest.mark.parametrize("values", [[1.0] * 3, [0.7] * 30, [1.0] * 10 + [1.001] * 10])
def test_nothing_to_tell(values: list[float]) -> None:
    assert change_points(np.array(values)) == []


def test_one_odd_run_is_no_change() -> None:
    rng = np.random.default_rng(1)
    values = 10 * (1 + rng.normal(0, 0.01, 20))
    values[7] *= 1.3
    assert change_points(values) == []


def test_a_trend_has_its_slope() -> None:
    [found] = trends(series([100.0, 101.0, 102.0, 103.0, 104.0]))
    assert found.slope == pytest.approx(1 / 102)
    assert found.slope_interval is not None
    assert found.slope_interval[0] <= found.slope <= found.slope_interval[1]
    assert (found.first, found.last, found.n) == (100.0, 104.0, 5)
    [short] = trends(series([1.0, 2.0]))
    assert short.slope is None


def test_a_change_names_the_first_run_of_the_new_level() -> None:
    [found] = trends(series([5.0] * 6 + [6.0] * 6))
    [change] = found.changes
    assert (change.source, change.when, change.before, change.after) == ("run-6", "2026-01-07", 5.0, 6.0)
    assert found.row()["changes"] == "5 → 6 at run-6"


def test_metrics_are_chosen() -> None:
    table = pd.concat([series([1.0] * 3), series([2.0] * 3, "rmse_m")])
    assert [one.metric for one in trends(table)] == ["latency_ms", "rmse_m"]
    assert [one.metric for one in trends(table, ["rmse_m"])] == ["rmse_m"]


def test_runs_are_read(make_run: Callable[..., Path]) -> None:
    root = make_run(lambda record: record if record.model == "tst-t" else None)
    table = load_history([root.parent])
    assert list(table.columns) == list(COLUMNS)
    assert set(table["source"]) == {"run"}
    chosen = table[(table["artefact"] == "tst-t--fp32--224x224") & (table["target"] == "cpu")]
    values = dict(zip(chosen["metric"], chosen["value"], strict=True))
    assert values["latency_ms"] == pytest.approx(4.0)
    assert values["rmse_m"] == pytest.approx(0.60)
    assert values["params_m"] == pytest.approx(0.62)


def test_data_sets_and_protocols_are_series_of_their_own(make_run: Callable[..., Path]) -> None:
    """Cells that differ in their data alone, in every run: no series alternates between them."""
    data = {"fp32": ("rooms", "native"), "prune30": ("rooms", "other"), "int8": ("nyu-labeled", "native")}

    def edit(record: Record) -> Record | None:
        if record.target != "cpu" or record.model != "tst-t" or record.recipe not in data:
            return None
        dataset, protocol = data[record.recipe]
        return replace(record, recipe="fp32", dataset=dataset, protocol=protocol)

    runs = [make_run(edit, f"run-{i}") for i in range(6)]
    found = trends(load_history(runs), ["rmse_m"])
    assert {one.data for one in found} == {"rooms (native)", "rooms (other)", "nyu-labeled (native)"}
    assert all(one.n == 6 and one.first == one.last and not one.changes for one in found)
    assert {one.row()["data"] for one in found} == {one.data for one in found}
    assert (found[0].to_json()["dataset"], found[0].to_json()["protocol"]) == ("rooms", "native")
    assert artefact_series(runs[0].parent)["tst-t--fp32--224x224", "rmse_m"] == [pytest.approx(0.60)] * 6
    lines = {line.get_label() for line in draw_history(load_history(runs), found).get_lines()}
    assert "tst-t--fp32--224x224 rmse_m (cpu, rooms (other))" in lines


def test_skipped_cells_are_left_out(make_run: Callable[..., Path]) -> None:
    root = make_run(lambda record: replace(record, status="skipped", reason="none", latency=None, profile={}))
    with pytest.raises(ValueError, match="no run with finished cells and no gate"):
        load_history([root])


def test_sparklines_prefer_gates(make_run: Callable[..., Path], tmp_path: Path) -> None:
    root = make_run(lambda record: record if record.model == "tst-t" else None)
    assert artefact_series(root)["tst-t--fp32--224x224", "latency"] == [pytest.approx(4.0)]
    values = {"net": {"params": 2_000_000, "latency_ms": 3.5, "accuracy": {"rmse_m": 0.4}}}
    for i in range(2):
        document = {"kind": "gate", "finished": f"2026-01-0{i + 1}", "values": values}
        (tmp_path / f"gate-{i}.json").write_text(json.dumps(document))
    found = artefact_series(tmp_path)
    assert found["net", "params"] == [2.0, 2.0]
    assert found["net", "latency"] == [3.5, 3.5]
    assert found["net", "rmse_m"] == [0.4, 0.4]
    assert all(name == "net" for name, _ in found)


def test_the_plot_draws_every_series() -> None:
    table = pd.concat([series([1.0] * 6 + [1.2] * 6), series([2.0] * 12, "rmse_m")])
    axes = draw_history(table, trends(table))
    lines = {line.get_label() for line in axes.get_lines() if len(line.get_xdata()) == 12}
    assert lines == {f"net--fp32--64x64 {metric} (cpu, rooms (native))" for metric in ("latency_ms", "rmse_m")}
    assert png(axes).startswith(b"\x89PNG")


def test_a_place_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"^nowhere: no such file or folder$"):
        load_history([Path("nowhere")])
