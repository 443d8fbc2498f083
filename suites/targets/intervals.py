"""What is read out of raw timings: medians, ratios of networks measured together, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NOISY_RSE = 0.005
"""Relative standard error of the median above which a record is flagged ``noisy``."""

CLAIM = 0.999
"""Confidence of the interval that must exclude 1 before a difference is declared."""

TAILS = {"p90_ms": (0.90, 64), "p95_ms": (0.95, 130), "p99_ms": (0.99, 662), "p999_ms": (0.999, 6636)}
"""Percentiles and the samples that support each at a confidence of .99 (MLPerf's early stopping)."""


@dataclass(frozen=True)
class Timings:
    """Times in ms of single inferences, the round (``blocks``) of each, and the process that each round had.

    ``processes``: by round, counted from 0; empty: all rounds had the same one.
    """

    samples_ms: list[float]
    blocks: list[int]
    processes: list[int] = field(default_factory=list)


def median_interval(samples_ms: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Bootstrap percentile interval of the median, in ms (1,000 seeded resamples)."""
    values = np.asarray(samples_ms)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, size=(1000, min(len(values), 2000))), axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def median_rse(samples_ms: Sequence[float]) -> float:
    """Standard error of the median over the median, from the width of its 95 % interval."""
    low, high = median_interval(samples_ms)
    return (high - low) / (2 * 1.96) / float(np.median(samples_ms))


def tails(samples_ms: Sequence[float]) -> dict[str, float]:
    """The percentiles in ms that the number of samples supports; the others are left out."""
    values = np.asarray(samples_ms)
    return {name: float(np.quantile(values, share)) for name, (share, n) in TAILS.items() if len(values) >= n}


def round_ratios(first: Timings, second: Timings) -> dict[int, float]:
    """First over second by round: the ratio of the medians of what each did in its A B B A blocks."""
    ours, theirs = (_by_round(one) for one in (first, second))
    return {
        number: float(np.median(ours[number]) / np.median(theirs[number]))
        for number in sorted(ours.keys() & theirs.keys())
    }


def _by_round(timings: Timings) -> dict[int, NDArray[np.float64]]:
    samples, blocks = np.asarray(timings.samples_ms), np.asarray(timings.blocks)
    return {int(number): samples[blocks == number] for number in np.unique(blocks)}


def paired_ratio(first: Timings, second: Timings, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Ratio of the latencies of two networks measured together (first over second), with a bootstrap interval over rounds.

    The figure is the median of the rounds' ratios. The interval knows nothing of what differs from process to process.
    """
    ratios = np.array(list(round_ratios(first, second).values()))
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, size=(2000, len(ratios))), axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(ratios)), (float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """Two networks measured together: the ratio of their latencies (first over second) with intervals.

    ``control``: the ratio of the first network to itself, None without a control arm. ``different``: the 99.9 % interval
    excludes 1.
    """

    ratio: float
    interval95: tuple[float, float]
    interval999: tuple[float, float]
    control: float | None

    @property
    def different(self) -> bool:
        """Whether a difference is declared."""
        return not self.interval999[0] <= 1 <= self.interval999[1]


def compare(first: Timings, second: Timings, control: Timings | None = None) -> Comparison:
    """The comparison of two networks measured together; ``control``: timings of the first one's second process.

    With a control and several processes of each, the interval is Student's, from what the processes differ among each
    other (:func:`_by_processes`). With one process each it is the bootstrap's over rounds, widened by as much as the first
    network differs from itself. Without a control it is Student's over the processes (on a board: engines), with one of
    them over the rounds; a single one decides nothing, and its interval is (0, ∞).
    """
    if control is None:
        return _without_control(first, second)
    if len(set(first.processes)) > 1:
        return _by_processes(first, second, control)
    ratio, interval95 = paired_ratio(first, second)
    _, interval999 = paired_ratio(first, second, CLAIM)
    itself, _ = paired_ratio(first, control)
    widen = max(itself, 1 / itself)
    low, high = (interval95[0] / widen, interval95[1] * widen)
    return Comparison(ratio, (low, high), (interval999[0] / widen, interval999[1] * widen), itself)


def _without_control(first: Timings, second: Timings) -> Comparison:
    """Student's interval of the mean logarithm of the ratios, over processes if there are several, else over rounds."""
    from scipy.stats import t

    ratios = round_ratios(first, second)
    several = len(set(first.processes)) > 1
    logs = _log_by_process(ratios, first.processes) if several else np.log(list(ratios.values()))
    ratio = float(np.exp(logs.mean()))

    def interval(level: float) -> tuple[float, float]:
        if len(logs) < 2:
            return 0.0, float("inf")
        half = float(np.exp(t.ppf((1 + level) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))))
        return ratio / half, ratio * half

    return Comparison(ratio, interval(0.95), interval(CLAIM), None)


def _by_processes(first: Timings, second: Timings, control: Timings) -> Comparison:
    """Intervals from K generations of processes: one of the first network, one of the control, one of the second.

    A process has luck of its own, with a variance s² of its log latency; a few in a hundred are slower by 2 to 12 % all their
    life. By generation, c = log(control / first) has the variance 2 s² and the mean 0; e = log(first / second) + c / 2
    compares the second network with the mean of the first one's two processes, has the variance 3/2 s², and is independent
    of c. The figure is the mean of the e that are left when the g lowest and the g highest are trimmed, g = :func:`_trimmed`
    of K. Its interval is Yuen's (Biometrika 61, 1974): from the sums of squares of e and c with those g replaced by their
    neighbours, error² = (S(e) + 3/4 S(c)) / (h (2 h - 1)) with h = K - 2 g, and Student's distribution with 2 h - 1 degrees
    of freedom. Without trimming that is the pooled t-interval of normal e and c.
    """
    from scipy.stats import t

    against = _log_by_process(round_ratios(first, second), first.processes)
    itself = _log_by_process(round_ratios(control, first), first.processes)
    e = np.sort(against + itself / 2)
    g = _trimmed(len(e))
    left = len(e) - 2 * g
    e_kept, c_kept = (np.clip(one, np.sort(one)[g], np.sort(one)[-1 - g]) for one in (e, itself))
    freedom = 2 * left - 1
    error = np.sqrt((np.sum((e_kept - e_kept.mean()) ** 2) + 0.75 * np.sum(c_kept**2)) / (left * freedom))
    middle = float(e[g : len(e) - g].mean())

    def interval(level: float) -> tuple[float, float]:
        half = float(t.ppf((1 + level) / 2, freedom) * error)
        return float(np.exp(middle - half)), float(np.exp(middle + half))

    return Comparison(float(np.exp(middle)), interval(0.95), interval(CLAIM), float(np.exp(-np.median(itself))))


def _trimmed(processes: int) -> int:
    """How many of so many processes are trimmed at either end: a quarter, none of fewer than six."""
    return processes // 4 if processes >= 6 else 0


def _log_by_process(ratios: dict[int, float], processes: Sequence[int]) -> NDArray[np.float64]:
    """By process, the median of its rounds' logarithms."""
    values: dict[int, list[float]] = {}
    for number, ratio in ratios.items():
        values.setdefault(processes[number], []).append(float(np.log(ratio)))
    return np.array([np.median(values[process]) for process in sorted(values)])
