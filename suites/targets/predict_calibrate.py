"""From latencies to a calibration: parameters, intervals, errors with networks left out, and where it all came from.

An interval is conformal (Vovk et al., "Algorithmic Learning in a Random World", 2005): the quantiles of
ln(published / predicted) over points whose network the fit had not seen. Errors are told for whole families left out,
beside two simple models under the same rule: a line through MACs, and a plain roofline with one factor.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.targets.predict_fit import (
    BOARD_PRIORS,
    CPU_PRIORS,
    Tables,
    device,
    fit,
    leave_out,
    predicted_ms,
)
from depthbench.suites.targets.predict_model import CPU, KINDS, Floats, Parameters, kernel_times, workload
from depthbench.suites.targets.predict_points import Point, packaged, published_points, published_tables

FORMAT = 1
LEVEL = 0.8
CPU_SPREAD = 0.1
"""The scatter expected of one machine's own measurements; published ones scatter more."""
SEEN_SHARE = 0.1
"""A family has seen a class of kernels when it spends this share of its time there."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Calibration:
    """A fitted model of devices.

    ``intervals``: factors on a prediction, by ``stated`` (a power mode was named) and ``unknown``. ``seen``: by class, how
    many families of networks spent time there. ``errors`` and ``provenance`` are for people.
    """

    parameters: Parameters
    intervals: Mapping[str, tuple[float, float]]
    seen: Mapping[str, int]
    errors: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The calibration as JSON-ready values."""
        return {
            "format": FORMAT,
            "parameters": {name: float(f"{value:.5g}") for name, value in self.parameters.items()},
            "intervals": {name: [round(low, 4), round(high, 4)] for name, (low, high) in self.intervals.items()},
            "seen": dict(self.seen),
            "errors": dict(self.errors),
            "provenance": dict(self.provenance),
        }


def read_calibration(path: Path | None = None) -> Calibration:
    """A calibration from a file, or the one that ships; ``ValueError`` when the file is not one."""
    return _shipped() if path is None else _parse(path.read_bytes(), str(path))


@lru_cache(maxsize=1)
def _shipped() -> Calibration:
    return _parse(packaged("calibration.json"), "calibration.json")


def _parse(text: str | bytes, name: str) -> Calibration:
    try:
        value = json.loads(text)
        if value["format"] != FORMAT:
            raise ValueError(f"{name}: calibration format {value['format']} is not readable here (this reads {FORMAT})")
        intervals = {key: (low, high) for key, (low, high) in value["intervals"].items()}
        return Calibration(value["parameters"], intervals, value["seen"], value["errors"], value["provenance"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise ValueError(f"{name}: not a calibration (depthbench calibrate --out writes one)") from None


def calibrate_boards(
    extra: Sequence[Point] = (), tables: Tables | None = None, *, progress: Progress = lambda _name, _share: None
) -> Calibration:
    """Fit all boards to the published points and ``extra`` ones, whose kernels are in ``tables``."""
    known = {**published_tables(), **(tables or {})}
    points = [*(point for point in published_points() if point.role == "fit"), *extra]
    checked = [point for point in published_points() if point.role == "check"]
    p = fit(points, known, BOARD_PRIORS)

    def left_out(what: str, key: Callable[[Point], str]) -> dict[str, Parameters]:
        return leave_out(points, known, BOARD_PRIORS, key, start=p, progress=lambda share: progress(what, share))

    by_family = left_out("families left out", lambda point: point.family)
    by_network = left_out("networks left out", lambda point: point.name)
    scores = {
        "stated": _scores(points, [by_network[point.name] for point in points], known, None),
        "unknown": _scores(points, [by_network[point.name] for point in points], known, "unknown"),
    }
    errors = _board_errors(points, p, by_family, known, scores["stated"], checked)
    return Calibration(
        parameters=p,
        intervals={name: interval(values) for name, values in scores.items()},
        seen=_seen(points, p, known),
        errors=errors,
        provenance={
            **_provenance(),
            "points": f"{len(points)} latencies ({len(extra)} of them measured by the user) of "
            f"{len({point.name for point in points})} networks in {len(by_family)} families on "
            f"{len({point.board for point in points})} boards",
            "data": {
                name: hashlib.sha256(packaged(name).encode()).hexdigest() for name in ("points.csv", "kernels.csv")
            },
        },
    )


def calibrate_cpu(
    points: Sequence[Point], tables: Tables, *, progress: Progress = lambda _name, _share: None
) -> Calibration:
    """Fit this CPU to latencies measured here; half of the networks, alternating by latency, check the other half."""
    ordered = sorted(points, key=lambda point: point.latency_ms)
    halves = (ordered[::2], ordered[1::2])
    rows = []
    for i, fitted in enumerate(halves):
        values = predicted_ms(fit(fitted, tables, CPU_PRIORS, spread=CPU_SPREAD), halves[1 - i], tables)
        rows += [_row(point, value, left_out=True) for point, value in zip(halves[1 - i], values, strict=True)]
        progress("halves", (i + 1) / 2)
    crossed = np.array([abs(row["predicted_ms"] / row["published_ms"] - 1) for row in rows])
    p = fit(points, tables, CPU_PRIORS, spread=CPU_SPREAD)
    fits = leave_out(
        points,
        tables,
        CPU_PRIORS,
        lambda point: point.name,
        start=p,
        spread=CPU_SPREAD,
        progress=lambda share: progress("networks left out", share),
    )
    scores = _scores(points, [fits[point.name] for point in points], tables, None)
    return Calibration(
        parameters=p,
        intervals={"stated": interval(scores), "unknown": interval(scores)},
        seen=_seen(points, p, tables),
        errors={
            "boards": [_error_row(CPU.board, "fp32", np.abs(np.exp(-scores) - 1))],
            "other_half": round(float(np.median(crossed)), 3),
            "rows": rows,
        },
        provenance={**_provenance(), "points": f"{len(points)} networks measured on this machine, one thread"},
    )


def interval(scores: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Factors below and above a prediction between which ``level`` of new points lie; ``scores``: ln(true / predicted)."""
    ordered = np.sort(scores)
    n, tail = len(ordered), (1 - level) / 2
    low = max(int(np.floor(round((n + 1) * tail, 9))), 1) - 1
    high = min(int(np.ceil(round((n + 1) * (1 - tail), 9))), n) - 1
    return float(np.exp(ordered[low])), float(np.exp(ordered[high]))


def _scores(points: Sequence[Point], fits: Sequence[Parameters], tables: Tables, clocks: str | None) -> Floats:
    return np.array(
        [
            np.log(point.latency_ms / predicted_ms(p, [point], tables, clocks=clocks)[0])
            for point, p in zip(points, fits, strict=True)
        ]
    )


def _errors(predicted: Floats, points: Sequence[Point]) -> Floats:
    """Absolute errors relative to the published latencies."""
    errors: Floats = np.abs(predicted / np.array([point.latency_ms for point in points]) - 1)
    return errors


def _error_row(board: str, precision: str, errors: Floats) -> dict[str, Any]:
    return {
        "board": board,
        "precision": precision,
        "points": len(errors),
        "median_error": round(float(np.median(errors)), 3),
    }


def _row(point: Point, predicted: float, *, left_out: bool) -> dict[str, Any]:
    """A latency beside its prediction, by a fit without its family (or half), or by one that never saw such points."""
    return {
        "network": point.network,
        "board": point.board,
        "precision": point.precision,
        "runtime": point.runtime,
        "published_ms": round(point.latency_ms, 4),
        "predicted_ms": round(float(predicted), 4),
        "left_out": left_out,
    }


def _board_errors(
    points: Sequence[Point],
    p: Parameters,
    by_family: Mapping[str, Parameters],
    tables: Tables,
    scores: Floats,
    checked: Sequence[Point],
) -> dict[str, Any]:
    from depthbench.suites.targets.predict_baselines import macs_only, roofline

    models = {
        "calibrated": np.concatenate([predicted_ms(by_family[point.family], [point], tables) for point in points]),
        "macs_only": macs_only(points, tables),
        "roofline": roofline(points, tables),
    }
    errors = {name: _errors(values, points) for name, values in models.items()}
    in_fit = _errors(predicted_ms(p, points, tables), points)
    groups = np.array([point.group for point in points])
    families = np.array([point.family for point in points])
    counted = groups != "detector"

    def medians(which: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
        row = {name: round(float(np.median(values[which])), 3) for name, values in errors.items()}
        return {"points": int(which.sum()), **row, "in_fit": round(float(np.median(in_fit[which])), 3)}

    by_board: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for i, point in enumerate(points):
        by_board[point.board, point.precision].append(i)
    inside = []
    for i, point in enumerate(points):
        low, high = interval(scores[families != point.family])
        inside.append(low <= point.latency_ms / models["calibrated"][i] <= high)
    rows = [_row(point, value, left_out=True) for point, value in zip(points, models["calibrated"], strict=True)]
    outside = predicted_ms(p, checked, tables)
    rows += [_row(point, value, left_out=False) for point, value in zip(checked, outside, strict=True)]
    return {
        "groups": {
            "pooled": medians(counted),
            "classifier": medians(groups == "classifier"),
            "hybrid": medians(groups == "hybrid"),
        },
        "families": {family: medians(families == family) for family in sorted({point.family for point in points})},
        "boards": [
            _error_row(board, precision, errors["calibrated"][found])
            for (board, precision), found in sorted(by_board.items())
        ],
        "coverage": round(float(np.mean(np.array(inside)[counted])), 3),
        "rows": rows,
    }


def _seen(points: Sequence[Point], p: Parameters, tables: Tables) -> dict[str, int]:
    """By class: how many families spend at least ``SEEN_SHARE`` of a network's time there."""
    families: defaultdict[str, set[str]] = defaultdict(set)
    for point in points:
        load = workload([(tables[point.network], device(point.board), point.precision, None)])
        launch, arithmetic, memory = kernel_times(p, load)
        taken = load.count * (launch + np.maximum(arithmetic, memory))
        shares = np.bincount(load.kind, taken, len(KINDS)) / taken.sum()
        for kind, share in zip(KINDS, shares, strict=True):
            if share >= SEEN_SHARE:
                families[kind].add(point.family)
    return {kind: len(families[kind]) for kind in KINDS}


def _provenance() -> dict[str, Any]:
    import scipy

    from depthbench.suites.environment import environment

    about = environment()
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "method": "predict_fit.py: Huber loss of log errors around log-normal priors, scipy least_squares",
        "scipy": scipy.__version__,
        "machine": about["cpu"],
    }
