from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthbench.reports.load import Run, load_run
from depthbench.reports.pareto import cell_name, choose, families, fronts, pareto_mask

MakeRun = Callable[..., Path]


def brute_force(x: np.ndarray, y: np.ndarray) -> list[bool]:
    return [
        not any(x[j] <= x[i] and y[j] <= y[i] and (x[j] < x[i] or y[j] < y[i]) for j in range(len(x)))
        for i in range(len(x))
    ]


def test_mask_by_hand() -> None:
    #                    front, same latency but worse, dominated, front, equal to the one before
    x, y = [1, 1, 2, 3, 3], [5, 6, 5, 2, 2]
    assert pareto_mask(x, y).tolist() == [True, False, False, True, True]
    assert pareto_mask([], []).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_mask_agrees_with_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 8, (2, 30))  # small integers: many ties
    assert pareto_mask(x, y).tolist() == brute_force(x, y)


def test_a_front_per_target_never_mixing_measured_with_predicted(run: Run) -> None:
    cells = run.cells
    found = fronts(cells)
    assert [(front.target, front.latency_kind) for front in found] == [
        ("cpu", "measured"),
        ("jetson-nano", "predicted"),
        ("jetson-tx2", "predicted"),
        ("jetson-xavier-nx", "predicted"),
        ("jetson-orin-nano-super", "predicted"),
    ]
    for front in found:
        assert set(front.cells["latency_kind"]) == {front.latency_kind}
        assert front.cells["on_front"].tolist() == brute_force(
            front.cells["latency_ms"].to_numpy(), front.cells["rmse_m"].to_numpy()
        )
        assert front.cells["latency_ms"].is_monotonic_increasing
    assert set(cells.loc[cells["on_front"], "id"]) == {i for front in found for i in front.members["id"]}


def test_measured_and_predicted_cells_of_one_target_get_two_fronts(make_run: MakeRun) -> None:
    run = load_run(
        make_run(lambda r: replace(r, target="cpu") if r.target == "jetson-tx2" and r.recipe == "fp16" else r)
    )
    on_cpu = [front for front in fronts(run.cells) if front.target == "cpu"]
    assert sorted(front.slug for front in on_cpu) == ["cpu_rooms_native_measured", "cpu_rooms_native_predicted"]


def test_cells_without_a_number_are_counted(make_run: MakeRun) -> None:
    run = load_run(make_run(lambda r: replace(r, evaluation=None) if r.recipe == "int8" else r))
    front = fronts(run.cells)[0]
    assert (front.target, front.left_out) == ("cpu", 6)
    assert "int8" not in set(front.cells["recipe"])


def test_choices(run: Run) -> None:
    front = fronts(run.cells)[0]
    choice = choose(front)
    assert choice.most_accurate["id"] == "mobilevit-xxs.fp32.224x224.cpu"  # RMSE 0.470, 17 ms
    assert choice.best["id"] == "mobilevit-xxs.prune30.224x224.cpu"  # RMSE 0.484, 13.6 ms
    assert choice.fastest["id"] == "tst-t.prune30-int8.224x224.cpu"  # 2.4 ms


def test_families(run: Run) -> None:
    table = families(fronts(run.cells)[0]).set_index("family")
    assert list(table.index) == ["tst", "fastdepth", "mobilevit"]
    assert table["cells"].to_dict() == {"tst": 12, "fastdepth": 7, "mobilevit": 4}
    assert table.loc["tst", "best"] == "tst-b.int8.224x224.cpu"
    assert table.loc["tst", "rmse_m"] == pytest.approx(0.52)


def test_names_tell_an_unusual_size(two_sizes: Run) -> None:
    front = fronts(two_sizes.cells)[0]
    assert front.usual_size == (224, 224)
    by_id = front.cells.set_index("id")
    assert cell_name(by_id.loc["tst-s.fp32.224x224.cpu"], usual_size=(224, 224)) == "tst-s fp32"
    assert cell_name(by_id.loc["tst-s.fp32.480x640.cpu"], usual_size=(224, 224)) == "tst-s fp32 480×640"
    assert cell_name(by_id.loc["tst-s.fp32.224x224.cpu"]) == "tst-s fp32 224×224"
