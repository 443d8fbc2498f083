from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthbench.reports.decide import Decision, Wish, choose_cell, decision_json, paired_difference
from depthbench.reports.load import load_run
from depthbench.suites.results import Record

MakeRun = Callable[..., Path]
Choose = Callable[..., Decision]


@pytest.fixture
def choose(make_run: MakeRun) -> Choose:
    """Choose from the run as edited: ``choose(edit, board="cpu", ...)``."""

    def call(edit: Callable[[Record], Record | None] = lambda record: record, **wish: object) -> Decision:
        board = str(wish.pop("board", "cpu"))
        root = make_run(lambda record: edit(record) if record.target == board else None)
        return choose_cell(load_run(root), Wish(board, **wish))  # type: ignore[arg-type]

    return call


def with_details(record: Record, **details: float) -> Record:
    return replace(record, latency=replace(record.latency, details=details)) if record.latency else record


def test_without_limits_the_most_accurate_is_best(choose: Choose) -> None:
    decision = choose()
    assert decision.best is not None
    assert decision.runner_up is not None
    assert decision.best.row["id"] == "mobilevit-xxs.fp32.224x224.cpu"  # RMSE 0.470
    assert decision.runner_up.row["id"] == "mobilevit-xxs.prune30.224x224.cpu"  # RMSE 0.484
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(0.47 * 0.03)
    assert 0 < decision.difference.low < decision.difference.mean < decision.difference.high
    assert decision.difference.images == 40
    assert decision.fitting == 23
    assert decision.sure > 0.95
    assert decision.notes == ("1 cell failed",)


def test_frames_per_second(choose: Choose) -> None:
    decision = choose(fps=200)  # 5 ms
    assert decision.best is not None
    assert decision.best.row["latency_ms"] <= 5
    assert decision.best.row["id"] == "tst-s.prune30.224x224.cpu"  # 4.8 ms, RMSE 0.5665
    excluded = {candidate.row["id"] for candidate in decision.excluded["fps"]}
    assert "mobilevit-xxs.fp32.224x224.cpu" in excluded
    assert len(excluded) + decision.fitting == 23
    [check] = [check for check in decision.best.checks if check.constraint == "fps"]
    assert check.probability == 1.0
    assert check.text.startswith("latency 4.8")


def test_a_limit_on_the_median_is_kept_with_the_confidence_asked_for(choose: Choose) -> None:
    """A latency whose median is just within the limit keeps it in half of the draws only."""
    edit = lambda r: r if (r.model, r.recipe) == ("tst-s", "fp32") else None  # noqa: E731
    assert choose(edit, fps=1000 / 6.0, confidence=0.95).best is None
    assert choose(edit, fps=1000 / 6.0, confidence=0.5).best is not None


def test_power_and_memory(choose: Choose) -> None:
    draw = {"tst-t": (3.0, 100.0), "tst-s": (4.5, 100.0), "tst-b": (4.0, 900.0)}

    def edit(record: Record) -> Record | None:
        if record.model not in draw or record.recipe != "fp32":
            return None
        watts, mem = draw[record.model]
        return with_details(record, power_w=watts, peak_mem_mb=mem)

    assert (best := choose(edit).best) is not None
    assert best.row["model"] == "tst-b"
    decision = choose(edit, watts=4.2, mem_mb=500)
    assert decision.best is not None
    assert decision.best.row["model"] == "tst-t"
    assert {k: [c.row["model"] for c in v] for k, v in decision.excluded.items()} == {
        "watts": ["tst-s"],
        "mem": ["tst-b"],
    }
    assert decision.runner_up is None
    assert decision.difference is None


def test_power_from_energy_and_latency(choose: Choose) -> None:
    edit = lambda r: with_details(r, energy_mj=12.0) if (r.model, r.recipe) == ("tst-s", "fp32") else None  # noqa: E731
    assert choose(edit, watts=2.1).best is not None  # 12 mJ in 6 ms: 2 W
    assert choose(edit, watts=1.9).best is None


def test_min_delta1(choose: Choose) -> None:
    decision = choose(min_delta1=0.8, confidence=0.6)  # δ1 = 1 - 0.4 · RMSE per image
    assert {c.row["model"] for c in (decision.best, decision.runner_up) if c} == {"mobilevit-xxs"}
    assert decision.fitting == 3
    assert all(candidate.row["delta1"] < 0.81 for candidate in decision.excluded["delta1"])


def test_a_metric_of_which_more_is_better(choose: Choose) -> None:
    decision = choose(metric="delta1")
    assert decision.best is not None
    assert decision.best.row["id"] == "mobilevit-xxs.fp32.224x224.cpu"
    assert decision.difference is not None
    assert decision.difference.mean < 0  # the runner-up has less of it
    assert decision.difference.probability > 0.95


def test_of_equals_the_faster_is_best(choose: Choose) -> None:
    def edit(record: Record) -> Record | None:
        if record.model != "tst-s" or record.recipe not in {"fp32", "prune30"}:
            return None
        return replace(record, evaluation="tst-s-fp32-224-fp32")

    decision = choose(edit)
    assert decision.best is not None
    assert decision.best.row["recipe"] == "prune30"
    assert decision.difference is not None
    assert (decision.difference.mean, decision.difference.probability) == (0.0, 1.0)


def test_nothing_fits_names_the_nearest(choose: Choose) -> None:
    decision = choose(fps=1000)
    assert decision.best is None
    assert decision.sure == 0
    assert [candidate.row["id"] for candidate in decision.misses[:2]] == [
        "tst-t.prune30-int8.224x224.cpu",  # 2.4 ms
        "fastdepth-pruned.prune30-int8.224x224.cpu",  # 2.64 ms
    ]
    assert len(decision.misses) == 3
    assert decision.misses[0].excess == pytest.approx(1.4, abs=0.05)


def test_what_was_not_measured_is_not_taken_for_granted(choose: Choose) -> None:
    decision = choose(mem_mb=4000)
    assert decision.best is None
    assert len(decision.excluded["mem"]) == 23
    assert {c.checks[1].text for c in decision.excluded["mem"]} == {"no peak memory was measured or predicted"}
    assert all(np.isinf(candidate.excess) for candidate in decision.misses)


def test_missing_accuracy_and_latency_are_excluded_by_name(choose: Choose) -> None:
    def edit(record: Record) -> Record | None:
        if record.model == "tst-t":
            return replace(record, evaluation=None)
        return replace(record, latency=None) if record.model == "tst-s" else record

    decision = choose(edit, fps=20)
    assert {c.row["model"] for c in decision.excluded["accuracy"]} == {"tst-t"}
    assert {c.row["model"] for c in decision.excluded["fps"]} == {"tst-s"}
    assert decision.best is not None


def test_a_board_that_is_only_predicted_says_so(choose: Choose) -> None:
    decision = choose(board="jetson-nano", fps=30)
    assert decision.best is not None
    assert decision.best.row["latency_kind"] == "predicted"
    assert decision.notes == (
        "12 cells skipped",
        "latencies of jetson-nano are predicted, not measured: measure the choice before you rely on it",
    )


def test_predicted_cells_are_left_out_where_there_are_measured_ones(make_run: MakeRun) -> None:
    def edit(record: Record) -> Record | None:
        if record.target == "jetson-tx2" and record.model == "mobilevit-xxs":
            return replace(record, target="cpu")
        return record if record.target == "cpu" and record.model == "tst-t" else None

    decision = choose_cell(load_run(make_run(edit)), Wish("cpu"))
    assert decision.best is not None
    assert decision.best.row["latency_kind"] == "measured"
    assert "measured cells only: predicted latencies of the same device were left out" in decision.notes


def test_several_data_sets_must_be_told_apart(make_run: MakeRun) -> None:
    def edit(record: Record) -> Record | None:
        if record.target != "cpu":
            return None
        return replace(record, dataset="nyu", protocol="nyu-eigen") if record.model == "tst-t" else record

    run = load_run(make_run(edit))
    message = (
        r"^cpu: cells of nyu \(nyu-eigen\) and rooms \(native\); choose one, for example --data 'nyu \(nyu-eigen\)'$"
    )
    with pytest.raises(ValueError, match=message):
        choose_cell(run, Wish("cpu"))
    for data in ("nyu", "nyu (nyu-eigen)"):
        best = choose_cell(run, Wish("cpu", dataset=data)).best
        assert best is not None
        assert best.row["model"] == "tst-t"


def test_only_failures_and_no_cell_at_all(make_run: MakeRun) -> None:
    root = make_run(lambda r: replace(r, status="failed", latency=None, evaluation=None) if r.target == "cpu" else None)
    run = load_run(root)
    decision = choose_cell(run, Wish("cpu", fps=10))
    assert (decision.best, decision.misses, decision.excluded) == (None, (), {})
    assert decision.notes == ("24 cells failed",)
    with pytest.raises(ValueError, match=r"run: no cell on gpu$"):
        choose_cell(run, Wish("gpu"))


def test_json_has_no_nan(choose: Choose) -> None:
    import json

    for decision in (choose(fps=200), choose(mem_mb=1)):
        value = json.loads(json.dumps(decision_json(decision), allow_nan=False))
        assert set(value) >= {"best", "runner_up", "difference", "sure", "excluded", "misses", "notes"}
        break


def test_images_are_paired_by_name() -> None:
    a = {"images": ["x", "y", "z"], "metrics": {"rmse_m": [1.0, 2.0, None]}}
    b = {"images": ["z", "y", "x"], "metrics": {"rmse_m": [5.0, 2.5, 1.5]}}
    assert paired_difference(a, b, "rmse_m").mean == 0.5
    assert paired_difference(a, b, "rmse_m").images == 2
    assert paired_difference(a, {"images": ["w"], "metrics": {"rmse_m": [1.0]}}, "rmse_m").images == 0
