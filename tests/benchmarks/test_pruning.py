"""The pruning study of ``pruning.py``, small: the same networks and bounds on smaller images."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthbench.suites.source import DataSource
from tests.benchmarks import pruning

ROOMS = DataSource("rooms", "native")


@pytest.mark.parametrize(
    ("model", "ratios"),
    [("tst-s", (0.3, 0.5, 0.7)), ("fastdepth", (0.3, 0.7)), ("mobilevit-xxs", (0.7,))],  # the script asks for all
)
def test_pruned_networks_cost_what_was_asked_and_export_exactly(
    model: str, ratios: tuple[float, ...], tmp_path: Path
) -> None:
    results = list(pruning.study(model, ROOMS, 0, tmp_path, ratios=ratios, compared=(), size=(64, 64)))
    assert [result.ratio for result in results] == list(ratios)
    for result in results:
        assert result.holds, pruning.line(result)
        assert result.off_grid == {}, pruning.line(result)
