"""Metrics against values worked out by hand, and against scikit-learn and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sk

from depthbench.suites.metrics import ALL_METRICS, METRICS, Truth, edge_band, image_metrics, valid_mask


def _row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_values_by_hand() -> None:
    got = image_metrics(_row(1.0, 3.0, 5.0), _row(2.0, 2.0, 5.0))
    logs = [math.log(0.5), math.log(1.5), 0.0]
    assert {name: got[name] for name in METRICS} == pytest.approx(
        {
            "rmse_m": math.sqrt(2 / 3),
            "abs_rel": (0.5 + 0.5 + 0) / 3,
            "sq_rel": (0.5 + 0.5 + 0) / 3,
            "rmse_log": math.sqrt(sum(e * e for e in logs) / 3),
            "log10": (math.log10(2) + math.log10(1.5)) / 3,
            "silog": 100 * math.sqrt(sum(e * e for e in logs) / 3 - (sum(logs) / 3) ** 2),
            "delta1": 1 / 3,
            "delta2": 2 / 3,  # 1.5 < 1.5625
            "delta3": 2 / 3,  # 2 > 1.953
        },
        rel=1e-6,
    )
    assert tuple(got) == ALL_METRICS


def test_perfect_prediction() -> None:
    depth = np.random.default_rng(0).uniform(0.5, 9, (7, 5)).astype(np.float32)
    got = image_metrics(depth, depth)
    assert [got[name] for name in METRICS] == [0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_constant_factor_leaves_silog_at_zero_and_delta_strict() -> None:
    depth = np.random.default_rng(0).uniform(0.5, 7, (7, 5)).astype(np.float32)
    got = image_metrics(depth * np.float32(1.25), depth)
    assert got["silog"] == pytest.approx(0, abs=1e-3)
    assert got["abs_rel"] == pytest.approx(0.25)
    assert image_metrics(_row(2.5), _row(2.0))["delta1"] == 0  # the ratio is 1.25 exactly


def test_missing_depth_is_no_divisor_whatever_is_predicted_there() -> None:
    got = image_metrics(_row(2.0, math.nan, 7.0, 3.0), _row(2.0, 0.0, 11.0, 3.0), min_depth=1e-3, max_depth=10)
    assert got["rmse_m"] == 0
    assert got["abs_rel"] == 0


def test_range_is_open_at_both_ends() -> None:
    mask = valid_mask(_row(0.0, 0.5, 0.6, 9.9, 10.0), min_depth=0.5, max_depth=10)
    assert mask.tolist() == [[False, False, True, True, False]]


def test_prediction_is_floored_at_one_centimetre() -> None:
    assert image_metrics(_row(-1.0), _row(1.0)) == pytest.approx(image_metrics(_row(0.01), _row(1.0)), nan_ok=True)


def test_nothing_valid_gives_nan() -> None:
    assert all(math.isnan(value) for value in image_metrics(_row(1.0), _row(0.0)).values())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^prediction is 1x2, ground truth is 1x1$"):
        image_metrics(_row(1, 2), _row(1))
    with pytest.raises(ValueError, match=r"^the prediction is not finite at 2 of 3 pixels$"):
        image_metrics(_row(math.nan, math.inf, 1), _row(1, 1, 1))


def test_details_by_hand() -> None:
    gt = _row(0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 0.0)
    pred = _row(0.5, 1.5, 2.0, 3.3, 6.0, 8.0, 9.9)
    got = image_metrics(pred, gt)
    expected = {
        "rmse_m_0_1m": math.sqrt(0.25 / 2),  # 1 m belongs to the range that ends there
        "abs_rel_0_1m": 0.5 / 2,
        "delta1_0_1m": 1 / 2,
        "rmse_m_1_3m": math.sqrt(0.09 / 2),
        "abs_rel_1_3m": 0.1 / 2,
        "delta1_1_3m": 1,
        "rmse_m_over_3m": math.sqrt(4 / 2),
        "abs_rel_over_3m": 0.5 / 2,
        "delta1_over_3m": 1 / 2,
        "obstacles_too_far": 1 / 4,  # of 0.5, 1, 2 and 3 m, only 1 m is seen more than 25 % too far
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_nearer_than_it_is_is_not_too_far() -> None:
    assert image_metrics(_row(0.2, 1.25), _row(1.0, 1.0))["obstacles_too_far"] == 0  # 1.25 exactly is within the margin
    assert math.isnan(image_metrics(_row(5.0), _row(4.0))["obstacles_too_far"])


def test_edge_metrics_by_hand() -> None:
    gt = np.full((6, 10), 2.0, np.float32)
    gt[:, 5:] = 4.0  # a wall behind a wall; the band is columns 3 to 6: each side of the step, and one more
    pred = gt.copy()
    pred[:, 5] = 2.0  # blurred
    got = image_metrics(pred, gt)
    assert got["rmse_m_edge"] == pytest.approx(math.sqrt(4 / 4))
    assert got["abs_rel_edge"] == pytest.approx(0.5 / 4)
    assert got["delta1_edge"] == pytest.approx(3 / 4)
    assert got["rmse_m"] == pytest.approx(math.sqrt(4 / 10))


def test_a_slope_and_a_gap_are_no_edge() -> None:
    slope = np.tile(1.09 ** np.arange(12, dtype=np.float32), (8, 1))
    assert not edge_band(slope).any()
    gap = np.full((8, 12), 2.0, np.float32)
    gap[:, 4:6] = 0.0
    assert not edge_band(gap).any()
    assert math.isnan(image_metrics(slope, slope)["rmse_m_edge"])


@pytest.mark.parametrize("shape", [(40, 60), (480, 70)])
def test_edge_band_agrees_with_scipy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    gt = ndimage.gaussian_filter(rng.uniform(0, 10, shape), 4).astype(np.float32)
    gt[shape[0] // 4 : shape[0] // 2 : 9, 20:40] *= 3
    gt[rng.random(shape) < 0.1] = 0
    edges = np.zeros(shape, bool)
    for footprint in ([[1, 1, 0]], [[0, 1, 1]], [[1], [1], [0]], [[0], [1], [1]]):
        mask = np.array(footprint)
        size = {"footprint": mask, "mode": "nearest"}
        near, far = ndimage.minimum_filter(gt, **size), ndimage.maximum_filter(gt, **size)
        edges |= (near > 0) & (far > near * np.float32(1.1))
    reach = 2 if shape[0] == 480 else 1
    band = ndimage.binary_dilation(edges, np.ones((2 * reach + 1, 2 * reach + 1)))
    assert 0.02 < band.mean() < 0.9
    assert np.array_equal(edge_band(gt), band)


def test_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    gt = rng.uniform(0.2, 12, (90, 130)).astype(np.float32)
    pred = (gt * rng.lognormal(0.05, 0.3, gt.shape)).astype(np.float32)
    gt[rng.random(gt.shape) < 0.3] = 0
    got = image_metrics(pred, gt, min_depth=1e-3, max_depth=10)

    def check(chosen: np.ndarray, ending: str, names: tuple[str, ...]) -> None:
        p, g = pred[chosen].astype(np.float64), gt[chosen].astype(np.float64)
        ratio = np.maximum(p / g, g / p)
        error = np.log(p) - np.log(g)
        expected = {
            "rmse_m": sk.root_mean_squared_error(g, p),
            "abs_rel": sk.mean_absolute_percentage_error(g, p),
            "sq_rel": sk.mean_squared_error(g, p, sample_weight=1 / g) * np.mean(1 / g),
            "rmse_log": sk.root_mean_squared_error(np.log(g), np.log(p)),
            "log10": sk.mean_absolute_error(np.log10(g), np.log10(p)),
            "silog": 100 * np.std(error),
            **{f"delta{k}": sk.accuracy_score(np.ones(len(g), bool), ratio < 1.25**k) for k in (1, 2, 3)},
        }
        assert {name: got[name + ending] for name in names} == pytest.approx(
            {name: expected[name] for name in names}, rel=1e-9
        )

    valid = (gt > 0) & (gt < 10)
    check(valid, "", METRICS)
    check(valid & (gt <= 1), "_0_1m", ("rmse_m", "abs_rel", "delta1"))
    check(valid & (gt > 1) & (gt <= 3), "_1_3m", ("rmse_m", "abs_rel", "delta1"))
    check(valid & (gt > 3), "_over_3m", ("rmse_m", "abs_rel", "delta1"))
    check(valid & edge_band(gt), "_edge", ("rmse_m", "abs_rel", "delta1"))
    reach = valid & (gt <= 3)
    far = 1 - sk.accuracy_score(np.ones(reach.sum(), bool), pred[reach].astype(np.float64) <= 1.25 * gt[reach])
    assert got["obstacles_too_far"] == pytest.approx(far, rel=1e-9)


def test_truth_laid_out_once_scores_any_number_of_predictions() -> None:
    rng = np.random.default_rng(1)
    gt = rng.uniform(0, 9, (50, 70)).astype(np.float32)
    truth = Truth(gt, valid_mask(gt, max_depth=8))
    for _ in range(3):
        pred = rng.uniform(0, 9, gt.shape).astype(np.float32)
        assert truth.score(pred) == image_metrics(pred, gt, max_depth=8)
    assert truth.n == np.count_nonzero((gt > 0) & (gt < 8))


def test_median_ratio() -> None:
    gt = _row(1.0, 2.0, 4.0, 9.0)
    truth = Truth(gt, gt < 5)
    assert truth.median_ratio(_row(0.5, 1.0, 1.5, 70.0)) == 2.0
    assert truth.median_ratio(_row(-3.0, -2.0, -1.0, 70.0)) == pytest.approx(200)  # floored at 1 cm
    assert Truth(gt, gt > 99).median_ratio(gt) == 1.0
