"""What ``depthbench measure`` says of raw timings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from depthbench.suites.results import Latency
from depthbench.suites.targets.intervals import Timings, compare, median_interval, tails


def figures(latency: Latency) -> dict[str, Any]:
    """Median, intervals, tails that the samples support, and what was measured beside them; names bear their units."""
    samples, details = latency.samples_ms, latency.details
    shown = (
        *("clock", "load_ms", "first_ms", "peak_mem_mb", "peak_gpu_mb", "energy_mj", "energy_absent", "power_w"),
        *("engine_sha256", "engine_medians_ms", "engine_spread", "output_deviation"),
    )
    around = {name: details[name] for name in ("pre_ms", "post_ms") if name in details}
    return {
        "median_ms": float(np.median(samples)),
        "ci95_ms": list(median_interval(samples)),
        "iqr_ms": float(np.subtract(*np.quantile(samples, [0.75, 0.25]))),
        **tails(samples),
        "n": len(samples),
        "flags": latency.flags,
        **{key: details[key] for key in shown if key in details},
        **{key: {step: float(np.median(times)) for step, times in steps.items()} for key, steps in around.items()},
        **({"wall_median_ms": float(np.median(details["wall_ms"]))} if "wall_ms" in details else {}),
        **({"throughput": [_rate(one) for one in details["throughput"]]} if "throughput" in details else {}),
    }


def _rate(one: dict[str, Any]) -> dict[str, Any]:
    """Images a second at a batch size, or the reason why there is no such figure."""
    if "reason" in one:
        return one
    return {"batch": one["batch"], "images_per_s": float(1e3 * one["batch"] / np.median(one["samples_ms"]))}


def _bounds(interval: tuple[float, float]) -> list[float | None]:
    """Both ends; None for one that is not bounded."""
    return [value if math.isfinite(value) else None for value in interval]


def comparison(first: Latency, second: Latency) -> dict[str, Any]:
    """The ratio of two latencies measured together (first over second), with intervals.

    See :func:`depthbench.suites.targets.intervals.compare`.
    """

    lives = first.details.get("process_of_block") or first.details.get("engine_of_block") or []

    def timings(samples: Any, details: Any) -> Timings:
        return Timings(samples, details["blocks"], lives)

    again = first.details.get("control")
    found = compare(
        timings(first.samples_ms, first.details),
        timings(second.samples_ms, second.details),
        None if again is None else timings(again["samples_ms"], again),
    )
    return {
        "against_median_ms": float(np.median(second.samples_ms)),
        "against_flags": second.flags,
        "ratio": found.ratio,
        "ratio_ci95": _bounds(found.interval95),
        "ratio_ci999": _bounds(found.interval999),
        "different": found.different,
        "control_ratio": found.control,
    }
