"""Metrics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depthbench.suites.metrics import METRICS, image_metrics, valid_mask


def _row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_values_by_hand() -> None:
    got = image_metrics(_row(1.0, 3.0, 5.0), _row(2.0, 2.0, 5.0))
    logs = [math.log(0.5), math.log(1.5), 0.0]
    assert got == pytest.approx(
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
    assert tuple(got) == METRICS


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
    assert image_metrics(_row(-1.0), _row(1.0)) == image_metrics(_row(0.01), _row(1.0))


def test_nothing_valid_gives_nan() -> None:
    assert all(math.isnan(value) for value in image_metrics(_row(1.0), _row(0.0)).values())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^prediction is 1x2, ground truth is 1x1$"):
        image_metrics(_row(1, 2), _row(1))
    with pytest.raises(ValueError, match=r"^the prediction is not finite at 2 of 3 pixels$"):
        image_metrics(_row(math.nan, math.inf, 1), _row(1, 1, 1))
