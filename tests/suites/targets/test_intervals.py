"""What is read out of timings, on a simulated machine whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from depthbench.suites.targets.desktop_cpu import COMPARED
from depthbench.suites.targets.intervals import Comparison, Timings, compare

LUCK = 0.012
"""How far processes of the same file differ from each other (standard deviation)."""


def arm(
    scale: float,
    processes: int,
    rng: np.random.Generator,
    drift: list[float],
    luck: float = LUCK,
    slow: float = 0.0,
) -> Timings:
    """A file measured in several processes, each with its own luck; three rounds each, eight samples a round.

    ``slow``: share of the processes that are slower by 2 to 12 % all their life.
    """
    samples: list[float] = []
    blocks: list[int] = []
    lives = np.repeat(np.arange(processes), 3).tolist()
    lucks = rng.normal(0, luck, processes)
    if slow:
        lucks += (rng.random(processes) < slow) * rng.uniform(0.02, 0.12, processes)
    for number, life in enumerate(lives):
        spikes = rng.random(8) < 0.05
        times = scale * drift[number] * np.exp(lucks[life] + rng.normal(0, 0.015, 8)) * np.where(spikes, 2.0, 1.0)
        samples += times.tolist()
        blocks += [number] * 8
    return Timings(samples, blocks, lives)


def compared(seed: int, scale: float, processes: int = COMPARED, luck: float = LUCK, slow: float = 0.0) -> Comparison:
    rng = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(rng.normal(0, 0.04, 3 * processes))).tolist()
    first, second, control = (arm(one, processes, rng, drift, luck, slow) for one in (5 * scale, 5, 5 * scale))
    return compare(first, second, control)


@pytest.mark.parametrize("processes", [5, COMPARED])
def test_nothing_is_declared_of_a_file_and_itself(processes: int) -> None:
    declared = [compared(seed, 1.0, processes).different for seed in range(600)]
    assert sum(declared) <= 3  # one in a thousand is expected


@pytest.mark.parametrize(("luck", "slow"), [(LUCK, 0.0), (0.005, 0.05)], ids=["luck", "slow processes"])
def test_five_per_cent_is_declared(luck: float, slow: float) -> None:
    found = [compared(seed, 1.05, COMPARED, luck, slow) for seed in range(200)]
    assert sum(one.different for one in found) >= 0.85 * 200  # 34 of 40
    assert np.median([one.ratio for one in found]) == pytest.approx(1.05, abs=0.003)
    assert sum(compared(seed, 1.0, COMPARED, luck, slow).different for seed in range(200)) <= 2


def test_the_95_interval_holds_the_truth() -> None:
    held = [one.interval95[0] <= 1.05 <= one.interval95[1] for one in (compared(seed, 1.05) for seed in range(400))]
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("builds", [1, 3], ids=["rounds", "engines"])
def test_without_a_control_no_more_is_claimed_than_the_rounds_can_bear(builds: int) -> None:
    """As on a board: three rounds, of one engine or of one each, and no second arm of the first file."""

    def seen(seed: int, scale: float) -> Comparison:
        rng = np.random.default_rng(seed)
        drift = np.exp(np.cumsum(rng.normal(0, 0.01, 9))).tolist()
        first, second = (arm(one, 3, rng, drift, LUCK if builds == 3 else 0) for one in (5 * scale, 5))
        lives = first.processes if builds == 3 else []
        return compare(Timings(first.samples_ms, first.blocks, lives), second)

    assert sum(seen(seed, 1.0).different for seed in range(400)) <= 3
    assert sum(seen(seed, 2.0).different for seed in range(100)) >= 80
    held = [low <= 1.1 <= high for low, high in (seen(seed, 1.1).interval95 for seed in range(400))]
    assert np.mean(held) >= (0.92 if builds == 3 else 0.85)


def test_a_single_round_decides_nothing() -> None:
    once = Timings([5.0, 5.0], [0, 0])
    found = compare(once, Timings([1.0, 1.0], [0, 0]))
    assert (found.ratio, found.interval999, found.different) == (pytest.approx(5), (0, float("inf")), False)


def test_one_process_each_is_widened_by_the_control() -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(40), 10).tolist()

    def one(scale: float) -> Timings:
        return Timings((scale * rng.normal(1, 0.02, 400)).tolist(), blocks)

    assert not compare(one(5), one(5), one(5)).different
    assert compare(one(5), one(5.25), one(5)).different
    assert compare(one(5), one(5.25)).control is None
    # the file differs from itself as much as from the other one: nothing is declared
    assert not compare(one(5), one(5.25), one(5.25)).different
