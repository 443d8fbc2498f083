"""Which cell to deploy on one device, under constraints, and how sure that is. Pure computation on a loaded run.

A cell fits when each constraint holds with at least the confidence asked for: in that share of the bootstrap draws of
:mod:`depthbench.reports.uncertainty`. What was not measured is not taken for granted: such a cell is excluded and named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from depthbench.reports import stats
from depthbench.reports.columns import METRICS
from depthbench.reports.load import Run, image_values
from depthbench.reports.pareto import cell_name
from depthbench.reports.uncertainty import mean_draws

HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3"})
MISSES = 3


@dataclass(frozen=True)
class Wish:
    """What is asked for: a target of the run, limits (None: none), the metric to be best in, and the confidence of each limit.

    ``fps`` images a second at least, ``watts`` mean power at most, ``mem_mb`` peak memory at most, ``min_delta1`` δ1 at least;
    ``dataset``: a data set's name, or ``name (protocol)``, for targets that have cells of several.
    """

    board: str
    fps: float | None = None
    watts: float | None = None
    mem_mb: float | None = None
    metric: str = "rmse_m"
    min_delta1: float | None = None
    confidence: float = 0.9
    dataset: str | None = None


@dataclass(frozen=True)
class Check:
    """One constraint on one cell: ``probability`` that it holds (None: cannot be judged), and in words how it stands.

    ``excess``: how far off, relatively, at the confidence asked for (0 or less: it holds; infinite: cannot be judged).
    """

    constraint: str
    probability: float | None
    excess: float
    text: str

    @property
    def holds(self) -> bool:
        """Whether the cell passes."""
        return self.excess <= 0


@dataclass(frozen=True)
class Candidate:
    """A cell of the device with its checks; ``row`` is its row of the tidy table, ``draws`` its metric in each draw."""

    name: str
    row: Mapping[str, Any]
    checks: tuple[Check, ...]
    draws: NDArray[np.float32]

    @property
    def fits(self) -> bool:
        """Whether it passes every check."""
        return all(check.holds for check in self.checks)

    @property
    def excess(self) -> float:
        """The worst of its checks; see :class:`Check`."""
        return max((check.excess for check in self.checks), default=0.0)


@dataclass(frozen=True)
class Difference:
    """Metric of the runner-up minus that of the best cell, paired per image.

    ``low`` and ``high`` are the bootstrap 95 % interval (nan from too few images); ``probability`` that the best cell is truly
    at least as good.
    """

    mean: float
    low: float
    high: float
    probability: float
    images: int


@dataclass(frozen=True)
class Decision:
    """The answer: ``best`` and ``runner_up`` (None where there is none), how they differ, and what was excluded by what.

    ``sure``: share of draws in which the best cell fits and no other cell that fits is better. ``excluded``: by constraint, the
    cells that it excluded. ``misses``: when nothing fits, the cells that come nearest. ``notes``: what to bear in mind.
    """

    wish: Wish
    best: Candidate | None
    runner_up: Candidate | None
    difference: Difference | None
    sure: float
    fitting: int
    excluded: Mapping[str, tuple[Candidate, ...]]
    misses: tuple[Candidate, ...]
    notes: tuple[str, ...] = field(default=())


def choose_cell(run: Run, wish: Wish) -> Decision:
    """The cell of ``run`` that is best in ``wish.metric`` among those that fit; of equals the fastest, then the smallest.

    ``ValueError`` when the target has cells of several data sets or protocols and ``wish.dataset`` does not settle it, or when
    the run has no cell on that target.
    """
    cells, notes = _cells_of(run, wish)
    records = {record.id: record for record in run.records}
    candidates: list[Candidate] = []
    unusable: list[Candidate] = []
    for index, row in cells.iterrows():
        evaluation = run.evaluation(records[str(row["id"])])
        candidate = _candidate(run, int(str(index)), row, evaluation, wish)
        (candidates if candidate.checks[0].holds else unusable).append(candidate)
    sign = -1 if wish.metric in HIGHER_IS_BETTER else 1
    fitting = sorted((c for c in candidates if c.fits), key=lambda c: _rank(c, wish.metric, sign))
    best, runner_up = (*fitting[:2], None, None)[:2]
    excluded: dict[str, list[Candidate]] = {}
    for candidate in (*unusable, *candidates):
        for check in candidate.checks:
            if not check.holds:
                excluded.setdefault(check.constraint, []).append(candidate)
    misses = sorted((c for c in candidates if not c.fits), key=lambda c: (c.excess, _rank(c, wish.metric, sign)))
    return Decision(
        wish=wish,
        best=best,
        runner_up=runner_up,
        difference=_difference(run, best, runner_up, wish.metric, sign) if best and runner_up else None,
        sure=_sure(best, fitting, sign) if best else 0.0,
        fitting=len(fitting),
        excluded={name: tuple(found) for name, found in excluded.items()},
        misses=() if best else tuple(misses[:MISSES]),
        notes=tuple(notes),
    )


def _cells_of(run: Run, wish: Wish) -> tuple[pd.DataFrame, list[str]]:
    here = run.cells[run.cells["target"] == wish.board]
    if wish.dataset is not None:
        label = here["dataset"] + " (" + here["protocol"] + ")"
        here = here[(here["dataset"] == wish.dataset) | (label == wish.dataset)]
    if here.empty:
        on = f" of {wish.dataset}" if wish.dataset else ""
        raise ValueError(f"{run.folder.root}: no cell{on} on {wish.board}")
    done = here[here["status"] == "ok"]
    kinds = [f"{data} ({protocol})" for data, protocol in done[["dataset", "protocol"]].drop_duplicates().to_numpy()]
    if len(kinds) > 1:
        raise ValueError(f"{wish.board}: cells of {' and '.join(kinds)}; choose one, for example --data '{kinds[0]}'")
    notes = [
        f"{count} cell{'' if count == 1 else 's'} {status}"
        for status in ("skipped", "failed")
        if (count := int((here["status"] == status).sum()))
    ]
    latencies = set(done["latency_kind"]) - {""}
    if latencies == {"measured", "predicted"}:
        notes.append("measured cells only: predicted latencies of the same device were left out")
        done = done[done["latency_kind"] != "predicted"]
    elif latencies == {"predicted"}:
        notes.append(f"latencies of {wish.board} are predicted, not measured: measure the choice before you rely on it")
    return done, notes


def _candidate(run: Run, index: int, row: pd.Series, evaluation: Mapping[str, Any], wish: Wish) -> Candidate:
    assert run.draws is not None
    values = image_values(evaluation, wish.metric) if evaluation else np.empty(0)
    draws = mean_draws(values)
    known = not np.isnan(draws).all()
    checks = [Check("accuracy", None, 0.0 if known else math.inf, "" if known else f"no {wish.metric}")]
    if wish.fps is not None:
        checks.append(_at_most("fps", run.draws.latency_ms[index], 1000 / wish.fps, wish.confidence, "ms", "latency"))
    if wish.watts is not None:
        power = row["power_w"] if pd.notna(row["power_w"]) else row["energy_mj"] / row["latency_ms"]  # mJ / ms = W
        checks.append(_at_most("watts", np.array([power]), wish.watts, wish.confidence, "W", "power"))
    if wish.mem_mb is not None:
        checks.append(
            _at_most("mem", np.array([row["peak_mem_mb"]]), wish.mem_mb, wish.confidence, "MB", "peak memory")
        )
    if wish.min_delta1 is not None:
        share = mean_draws(image_values(evaluation, "delta1")) if evaluation else np.array([np.nan])
        checks.append(_at_least("delta1", share, wish.min_delta1, wish.confidence))
    return Candidate(cell_name(row), {str(k): v for k, v in row.items()}, tuple(checks), draws)


def _at_most(name: str, draws: NDArray[Any], limit: float, confidence: float, unit: str, what: str) -> Check:
    if np.isnan(draws).all():
        return Check(name, None, math.inf, f"no {what} was measured or predicted")
    probability, bound = float((draws <= limit).mean()), float(np.quantile(draws, confidence))
    excess = 0.0 if probability >= confidence else max(bound / limit - 1, 1e-9)
    text = f"{what} {bound:.3g} {unit} at {confidence:.0%} confidence, wanted ≤ {limit:.3g} {unit}"
    return Check(name, probability, excess, text)


def _at_least(name: str, draws: NDArray[Any], limit: float, confidence: float) -> Check:
    if np.isnan(draws).all():
        return Check(name, None, math.inf, "no δ1")
    probability, bound = float((draws >= limit).mean()), float(np.quantile(draws, 1 - confidence))
    excess = 0.0 if probability >= confidence else max(limit / max(bound, 1e-9) - 1, 1e-9)
    return Check(name, probability, excess, f"δ1 {bound:.3f} at {confidence:.0%} confidence, wanted ≥ {limit:.3g}")


def _rank(candidate: Candidate, metric: str, sign: int) -> tuple[float, float, float, str]:
    """Order of preference; what has no latency or size comes after its equals that have one."""
    costs = (candidate.row[name] for name in ("latency_ms", "size_mb"))
    latency, size = (math.inf if math.isnan(cost) else float(cost) for cost in costs)
    return sign * float(candidate.row[metric]), latency, size, candidate.name


def _difference(run: Run, best: Candidate, other: Candidate, metric: str, sign: int) -> Difference:
    by_id = {record.id: record for record in run.records}
    mine, theirs = (run.evaluation(by_id[c.row["id"]]) for c in (best, other))
    return paired_difference(mine, theirs, metric, sign)


def paired_difference(mine: Mapping[str, Any], theirs: Mapping[str, Any], metric: str, sign: int = 1) -> Difference:
    """``theirs`` minus ``mine`` over the images that both have; ``sign`` -1 where a higher metric is better."""
    known = dict(zip(mine.get("images", ()), image_values(mine, metric), strict=False)) if mine else {}
    values = zip(theirs.get("images", ()), image_values(theirs, metric), strict=False) if theirs else ()
    change = np.array([value - known[image] for image, value in values if image in known])
    change = change[~np.isnan(change)]
    if not len(change):
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    low, high = stats.mean_interval(change)
    draws = sign * mean_draws(change)
    return Difference(float(change.mean()), low, high, float((draws >= 0).mean()), len(change))


def _sure(best: Candidate, fitting: list[Candidate], sign: int) -> float:
    """Constraints are taken as independent of each other and of the metric."""
    metrics = sign * np.stack([candidate.draws for candidate in fitting])  # (fitting, draws), lower is better
    wins = float((metrics[fitting.index(best)] <= metrics.min(axis=0)).mean())
    return wins * math.prod(check.probability for check in best.checks if check.probability is not None)


def decision_json(decision: Decision) -> dict[str, Any]:
    """The decision as JSON-ready values; what is unknown is None."""

    def plain(candidate: Candidate | None) -> dict[str, Any] | None:
        if candidate is None:
            return None
        names: tuple[str, ...] = (
            "id",
            "model",
            "recipe",
            "height",
            "width",
            "target",
            "dataset",
            "protocol",
            "precision",
            "latency_kind",
            "latency_ms",
        )
        names += ("parent_recipe", "speedup", "not_faster", "why_not_faster")
        names += ("latency_lo_ms", "latency_hi_ms", *METRICS, "power_w", "peak_mem_mb", "size_mb", "gmacs", "params_m")
        checks = [
            {"constraint": c.constraint, "probability": c.probability, "holds": c.holds, "text": c.text}
            for c in candidate.checks
            if c.text
        ]
        return {name: json_value(candidate.row[name]) for name in names} | {"name": candidate.name, "checks": checks}

    difference = decision.difference
    return {
        "board": decision.wish.board,
        "metric": decision.wish.metric,
        "confidence": decision.wish.confidence,
        "best": plain(decision.best),
        "runner_up": plain(decision.runner_up),
        "difference": {k: json_value(v) for k, v in vars(difference).items()} if difference else None,
        "sure": decision.sure,
        "fitting": decision.fitting,
        "excluded": {name: [c.name for c in found] for name, found in decision.excluded.items()},
        "misses": [plain(candidate) for candidate in decision.misses],
        "notes": list(decision.notes),
    }


def json_value(value: Any) -> Any:
    """A value of the tidy table for JSON: numpy's scalars as Python's, nan and infinity as None."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
