from __future__ import annotations

import math

import pytest

from depthbench.reports import pareto
from depthbench.reports.load import Run
from depthbench.reports.payoff import Notes
from depthbench.reports.readable import decisions, fastest, gains, interval, number, percent, picks, shares, signed


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(12.345), "12.3"),
        (number(12.345, 2), "12.35"),
        (number(math.nan), "–"),
        (number(None), "–"),
        (signed(0.0126), "+0.013"),
        (signed(-0.0126), "−0.013"),
        (signed(-0.0001), "0.000"),
        (signed(math.nan), "–"),
        (percent(0.876), "88%"),
        (interval(1.2, 1.3, 2), " (1.20 to 1.30)"),
        (interval(-0.01, 0.02, sign=True), " (−0.010 to +0.020)"),
        (interval(math.nan, 1.0), ""),
    ],
)
def test_numbers_have_as_many_digits_as_mean_something(shown: str, text: str) -> None:
    assert shown == text


def test_tables_are_short_and_hold_the_right_cells(run: Run) -> None:
    notes, fronts = Notes(run.cells), pareto.fronts(run.cells)
    on_cpu = run.cells[(run.cells["target"] == "cpu") & run.cells["speedup"].notna()]
    gained = gains(on_cpu, notes)
    assert len(gained) == len(on_cpu)
    assert gained["speed-up"].iloc[-1].startswith("0.80 (")
    assert gained["speed-up"].iloc[-1].endswith("▼¹")
    assert set(gained["images"]) == {"rooms (native)"}
    quick = fastest(run.cells, notes).set_index("network")
    assert quick.loc["tst-t", "cpu"] == "2.40 prune30-int8"
    assert quick.loc["tst-s", "jetson-nano"].startswith("≈ 10.6 prune30")
    for short in (picks(fronts, notes), shares(run, fronts, notes)):
        assert len(short) == 3 * len(fronts)
        assert set(short["images"]) == {"rooms (native)"}
    table = decisions(run, notes, fps=30, confidence=0.9).set_index("target")
    assert table.loc["cpu", "take"] == "mobilevit-xxs fp32 224×224"
    assert table.loc["cpu", "latency [ms]"] == "17.0"
    assert set(decisions(run, notes, fps=1e6, confidence=0.9)["take"]) == {"nothing fits"}
