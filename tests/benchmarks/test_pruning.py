"""The pruning study of ``pruning.py``, small: the same networks and bounds on smaller images."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from depthbench.suites.source import DataSource

ROOMS = DataSource("rooms", "native")


@pytest.fixture(scope="module")
def pruning() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pruning_study", Path(__file__).with_name("pruning.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", ["tst-s", "fastdepth", "mobilevit-xxs"])
def test_pruned_networks_cost_what_was_asked_and_export_exactly(
    model: str, pruning: ModuleType, tmp_path: Path
) -> None:
    results = list(pruning.study(model, ROOMS, 0, tmp_path, compared=(), size=(64, 64)))
    assert [result.ratio for result in results] == [0.3, 0.5, 0.7]
    for result in results:
        assert result.holds, pruning.line(result)
        assert result.off_grid == {}, pruning.line(result)
