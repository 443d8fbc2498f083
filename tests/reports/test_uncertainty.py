from __future__ import annotations

import numpy as np
import pytest

from depthbench.reports import stats
from depthbench.reports.pareto import pareto_mask
from depthbench.reports.uncertainty import (
    front_masks,
    front_probability,
    hypervolume,
    latency_draws,
    mean_draws,
)
from depthbench.suites.results import Latency


@pytest.mark.parametrize("seed", range(5))
def test_masks_agree_with_the_front_of_each_draw(seed: int) -> None:
    cost, error = np.random.default_rng(seed).integers(0, 7, (2, 25, 40))  # small integers: many ties
    masks = front_masks(cost, error)
    for draw in range(40):
        assert masks[:, draw].tolist() == pareto_mask(cost[:, draw], error[:, draw]).tolist()


def test_nothing_has_no_probability() -> None:
    assert front_probability(np.zeros((0, 5)), np.zeros((0, 5))).shape == (0,)


def test_the_probability_of_being_on_the_front_is_calibrated() -> None:
    """1,000 worlds from a wide prior: of the cells said to be on the front with probability p, a share p truly is."""
    rng = np.random.default_rng(20)
    said, true = [], []
    for world in range(1000):
        cells, images, timings = int(rng.integers(4, 12)), 40, 60
        error, cost = rng.uniform(0.4, 0.9, cells), rng.uniform(3, 12, cells)
        hardness = rng.normal(0, 0.25, images)  # shared by all cells: the same images are hard for every network
        own = rng.normal(0, 0.15, (cells, images))
        rmse = error[:, None] + hardness + own
        times = cost[:, None] * (1 + rng.normal(0, 0.6, (cells, timings)))
        measured = [Latency("measured", samples_ms=list(row)) for row in times]
        drawn_cost = np.stack([latency_draws(latency, f"{world}/{i}") for i, latency in enumerate(measured)])
        said.append(front_probability(drawn_cost, np.stack([mean_draws(row) for row in rmse])))
        true.append(pareto_mask(cost, error))
    p, on = np.concatenate(said), np.concatenate(true)
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[bins == b].mean() - on[bins == b].mean()) * (bins == b).mean() for b in range(10)]
    assert ((p > 0.1) & (p < 0.9)).mean() > 0.2  # the question is not a trivial one
    assert sum(gaps) <= 0.05


def test_a_prediction_is_drawn_from_its_interval() -> None:
    draws = latency_draws(Latency("predicted", latency_ms=10.0, interval_ms=(5.0, 14.0)), "cell")
    assert np.median(draws) == pytest.approx(10, rel=0.05)
    assert ((draws > 5) & (draws < 14)).mean() == pytest.approx(0.8, abs=0.03)
    again, other = (latency_draws(Latency("predicted", latency_ms=10.0, interval_ms=(5.0, 14.0)), n) for n in "ab")
    assert not np.array_equal(again, other)


@pytest.mark.parametrize(
    ("latency", "value"),
    [
        (None, np.nan),
        (Latency("measured"), np.nan),
        (Latency("measured", samples_ms=[2.0, 3.0, 4.0]), 3.0),
        (Latency("predicted", latency_ms=7.0), 7.0),
    ],
)
def test_where_nothing_tells_how_sure_it_is_one_value_is_repeated(latency: Latency | None, value: float) -> None:
    draws = latency_draws(latency, "cell")
    assert draws.shape == (stats.RESAMPLES,)
    np.testing.assert_array_equal(draws, value)


def test_means_share_their_resamples_and_pass_over_missing_images() -> None:
    values = np.random.default_rng(0).normal(1, 0.2, 50)
    np.testing.assert_allclose(mean_draws(values + 0.5) - mean_draws(values), 0.5, atol=1e-5)
    gaps = values.copy()
    gaps[::2] = np.nan
    assert mean_draws(gaps).mean() == pytest.approx(np.nanmean(gaps), abs=0.01)
    assert mean_draws(gaps).std() > mean_draws(values).std()
    np.testing.assert_array_equal(mean_draws([1.0, 3.0]), 2.0)
    assert np.isnan(mean_draws([np.nan])).all()


def test_hypervolume_by_hand() -> None:
    column = np.array([[1.0], [10.0]])
    # cost counts by its logarithm: (1, 0.5) reaches all of it at half height, (10, 0) half of it at full height
    assert hypervolume(column, np.array([[0.5], [0.0]]), (100, 1), (1, 0)) == pytest.approx([0.75])
    assert hypervolume(column[:1], np.array([[0.0]]), (100, 1), (1, 0)) == pytest.approx([1.0])
    assert hypervolume(column[:1], np.array([[0.0]]), (1, 1), (1, 0)).tolist() == [0.0]
