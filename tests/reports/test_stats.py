from __future__ import annotations

import numpy as np
import pytest

from depthbench.reports import stats


@pytest.mark.parametrize("n", [5, 12, 101])
def test_bootstrap_medians_agree_with_resampling(n: int) -> None:
    rng = np.random.default_rng(3)
    samples = rng.lognormal(size=n)
    brute = np.median(samples[rng.integers(0, n, (20_000, n))], axis=1)
    direct = stats.bootstrap_medians(samples)
    np.testing.assert_allclose(np.quantile(direct, [0.1, 0.5, 0.9]), np.quantile(brute, [0.1, 0.5, 0.9]), rtol=0.06)
    assert abs(direct.mean() - brute.mean()) < 5 * brute.std() / np.sqrt(stats.RESAMPLES)


def test_bootstrap_medians_of_many_samples_are_cheap_and_narrow() -> None:
    samples = np.random.default_rng(0).normal(5, 0.1, 500_000)
    low, high = stats.median_interval(samples)
    assert low < np.median(samples) < high
    assert high - low == pytest.approx(2 * 1.96 * 1.2533 * 0.1 / np.sqrt(len(samples)), rel=0.1)


def test_bootstrap_medians_refuse_no_samples() -> None:
    with pytest.raises(ValueError, match=r"^no samples: a median needs at least one$"):
        stats.bootstrap_medians([])


def test_mean_interval_covers_the_mean_at_its_rate() -> None:
    rng = np.random.default_rng(1)
    intervals = [stats.mean_interval(rng.normal(2, 1, 50)) for _ in range(300)]
    covered = np.mean([low < 2 < high for low, high in intervals])
    assert 0.90 < covered < 0.98


def test_few_values_have_no_interval() -> None:
    assert np.isnan(stats.mean_interval(np.ones(stats.MIN_FOR_INTERVAL - 1))).all()
    assert np.isnan(stats.median_interval(np.ones(stats.MIN_FOR_INTERVAL - 1))).all()
    assert np.isnan(stats.median_ratio_interval(np.ones(100), np.ones(3))).all()
    assert stats.mean_interval(np.ones(stats.MIN_FOR_INTERVAL)) == pytest.approx((1, 1))


def test_median_ratio_interval_covers_the_ratio() -> None:
    rng = np.random.default_rng(2)
    low, high = stats.median_ratio_interval(rng.normal(6, 0.1, 200), rng.normal(3, 0.05, 200))
    assert 1.98 < low < 2 < high < 2.02


@pytest.mark.parametrize(("q", "needed"), [(90, 64), (99, 662)])
def test_percentiles_need_their_samples(q: int, needed: int) -> None:
    assert np.isnan(stats.percentile(np.arange(needed - 1), q))
    assert stats.percentile(np.arange(needed), q) == pytest.approx(q / 100 * (needed - 1))


def test_paired_difference_keeps_what_is_hard_for_both_out_of_the_interval() -> None:
    rng = np.random.default_rng(4)
    hard = rng.lognormal(0, 1, 200)
    ours, theirs = hard + 0.05 + rng.normal(0, 0.02, 200), hard
    mean, (low, high), n = stats.paired_difference(ours, theirs)
    assert (mean, n) == (pytest.approx((ours - theirs).mean()), 200)
    assert low < 0.05 < high
    assert high - low == pytest.approx(2 * 1.96 * (ours - theirs).std() / np.sqrt(200), rel=0.15)
    assert stats.paired_difference(theirs, ours)[1] == pytest.approx((-high, -low))


def test_paired_difference_leaves_out_pairs_that_lack_a_value() -> None:
    ours, theirs = np.arange(12.0), np.zeros(12)
    ours[0], theirs[1] = np.nan, np.nan
    mean, interval, n = stats.paired_difference(ours, theirs)
    assert (mean, n) == (np.arange(2, 12).mean(), 10)
    assert interval[0] < mean < interval[1]
    mean, interval, n = stats.paired_difference(ours[:4], theirs[:4])
    assert (mean, n) == (2.5, 2)
    assert np.isnan(interval).all()
    assert np.isnan(stats.paired_difference([np.nan], [1.0])[0])


def test_pairs_need_as_many_of_each() -> None:
    with pytest.raises(ValueError, match=r"^3 values against 2: pairs need as many of each$"):
        stats.paired_difference([1, 2, 3], [1, 2])
