"""A run folder read as one tidy table: a row per cell, every statistic derived here from raw samples.

Its columns are those of :data:`depthbench.reports.columns.COLUMNS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from depthbench.reports import payoff, stats
from depthbench.reports.columns import COLUMNS, FLAG, INTEGER, METRICS, PLACES, TEXT
from depthbench.reports.pareto import fronts
from depthbench.reports.uncertainty import AMBIGUOUS, Draws, front_probability, latency_draws, mean_draws
from depthbench.suites.results import Latency, Record, RunFolder, read_json

__all__ = ["COLUMNS", "METRICS", "PARENT_RECIPES", "Run", "cell_table", "image_values", "load_run"]

PARENT_RECIPES = ("fp32", "fp16")
"""The uncompressed forms; the first that ran on a target is the parent that its compressed forms are compared with."""

Evaluations = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A run as read from disk.

    ``cells`` is the tidy table (``COLUMNS``); ``pending`` the planned cells that have no record yet;
    ``missing_evaluations`` digests of accuracy files that records name and that are not there; ``evaluations`` the others by
    digest; ``draws`` the bootstrap draws behind ``front_probability``, a row per cell.
    """

    folder: RunFolder
    manifest: dict[str, Any]
    records: tuple[Record, ...]
    cells: pd.DataFrame
    pending: tuple[str, ...] = ()
    missing_evaluations: tuple[str, ...] = ()
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    draws: Draws | None = field(default=None, repr=False)

    def evaluation(self, record: Record) -> Mapping[str, Any]:
        """The per-image metrics of a record; empty when it has none."""
        return self.evaluations.get(record.evaluation or "", {})


def load_run(run: Path) -> Run:
    """Read the run folder ``run``; ``ValueError`` when it holds no run or a file in it cannot be read."""
    folder = RunFolder(Path(run))
    manifest = folder.read_manifest()
    records = list(folder.records())
    evaluations, missing = _evaluations(folder, records)
    known = {record.id for record in records}
    draws = bootstrap_draws(records, evaluations)
    return Run(
        folder=folder,
        manifest=manifest,
        records=tuple(records),
        cells=cell_table(records, evaluations, draws),
        pending=tuple(cell for cell in manifest["cells"] if cell not in known),
        missing_evaluations=missing,
        evaluations=evaluations,
        draws=draws,
    )


def _place(record: Record) -> tuple[Any, ...]:
    return (record.model, record.recipe, record.size, record.target, record.dataset, record.protocol)


def _evaluations(folder: RunFolder, records: list[Record]) -> tuple[Evaluations, tuple[str, ...]]:
    digests = dict.fromkeys(record.evaluation for record in records if record.evaluation)
    present = {digest: folder.evaluation_path(digest) for digest in digests}
    missing = tuple(digest for digest, path in present.items() if not path.is_file())
    return {digest: read_json(path) for digest, path in present.items() if digest not in missing}, missing


def bootstrap_draws(records: list[Record], evaluations: Evaluations) -> Draws:
    """What latency and RMSE of each record would be in other samples; cells with the same evaluation share its draws."""
    rmse = {name: mean_draws(image_values(evaluation, "rmse_m")) for name, evaluation in evaluations.items()}
    shape = (len(records), stats.RESAMPLES)
    draws = Draws(np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32))
    for i, record in enumerate(records):
        draws.latency_ms[i] = latency_draws(record.latency, record.id)
        if record.evaluation in rmse:
            draws.rmse_m[i] = rmse[record.evaluation]
    return draws


def cell_table(records: list[Record], evaluations: Evaluations, draws: Draws) -> pd.DataFrame:
    """The tidy table of ``records``: exactly ``COLUMNS``, also when there are none. ``draws`` has a row per record."""
    accuracy = {name: _accuracy_columns(evaluation) for name, evaluation in evaluations.items()}
    rows = [_row(record, accuracy, draws.latency_ms[i]) for i, record in enumerate(records)]
    _compare_with_parents(rows, records, evaluations)
    _find_origins(rows, records)
    for row in rows:
        row["flags"] = "; ".join(row["flags"])
    table = pd.DataFrame(
        {name: _column(kind, [row.get(name) for row in rows]) for name, (kind, _, _) in COLUMNS.items()}
    )
    _judge_fronts(table, draws)
    return table


def _column(kind: str, values: list[Any]) -> pd.Series:
    if kind == TEXT:
        return pd.Series([value or "" for value in values], dtype=object)
    if kind == INTEGER:
        return pd.Series([int(value or 0) for value in values], dtype="int64")
    if kind == FLAG:
        return pd.Series([bool(value) for value in values], dtype=bool)
    return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")


def _judge_fronts(table: pd.DataFrame, draws: Draws) -> None:
    """Fill ``on_front``, ``front_probability`` and ``ambiguous`` of ``table`` in place; its index is 0, 1, ..."""
    for front in fronts(table):
        here = front.cells.index
        table.loc[here, "on_front"] = front.cells["on_front"]
        table.loc[here, "front_probability"] = front_probability(draws.latency_ms[here], draws.rmse_m[here])
    table["ambiguous"] = table["front_probability"].between(*AMBIGUOUS, inclusive="neither")


def _row(record: Record, accuracy: Mapping[str, dict[str, Any]], draws: NDArray[np.float32]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(record, name)
        for name in (
            "id",
            "status",
            "reason",
            "model",
            "family",
            "recipe",
            "target",
            "target_kind",
            "dataset",
            "protocol",
        )
    }
    row["precision"] = record.precision
    row["n_left_out"] = record.left_out
    row["height"], row["width"] = record.size
    row["flags"] = []
    row |= _profile_columns(record.profile)
    if record.latency is not None:
        row |= _latency_columns(record.latency, draws)
    if record.evaluation and record.evaluation in accuracy:
        row |= accuracy[record.evaluation]
    elif record.evaluation:
        row["flags"].append("accuracy file missing")
    return row


def _profile_columns(profile: Mapping[str, Any]) -> dict[str, Any]:
    counters = profile.get("gmacs") or {}
    disagreement = profile.get("gmacs_disagreement") or {}
    counts = {f"gmacs_{name}": counters.get(name) for name in ("onnx", "fvcore", "ptflops")}
    return {
        **{name: profile.get(name) for name in ("params_m", "params_applied_m", "size_mb", "peak_activation_mb")},
        **counts,
        "gmacs": next((count for count in counts.values() if count is not None), None),
        "gmacs_spread": disagreement.get("relative"),
        "gmacs_verdict": disagreement.get("verdict"),
        "n_nodes": sum((profile.get("nodes") or {}).values()),
        "n_quantized_nodes": profile.get("quantized_nodes"),
    }


def _latency_columns(latency: Latency, draws: NDArray[np.float32]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "latency_kind": latency.kind,
        "threads": latency.threads,
        "bound": latency.bound,
        "flags": list(latency.flags),
        **{name: latency.details.get(name) for name in ("peak_mem_mb", "energy_mj", "power_w")},
    }
    row |= _throughput_columns(latency.details.get("throughput") or [])
    if latency.kind == "predicted":
        row["latency_ms"] = latency.latency_ms
        row["latency_lo_ms"], row["latency_hi_ms"] = latency.interval_ms or (None, None)
    elif latency.samples_ms:
        samples = np.asarray(latency.samples_ms)
        row["latency_ms"] = float(np.median(samples))
        if len(samples) >= stats.MIN_FOR_INTERVAL:
            row["latency_lo_ms"], row["latency_hi_ms"] = stats.interval(draws.astype(np.float64))
        row["iqr_ms"] = float(np.subtract(*np.percentile(samples, (75, 25))))
        row["p90_ms"], row["p99_ms"] = stats.percentile(samples, 90), stats.percentile(samples, 99)
        row["n_latency"] = len(samples)
    else:
        row["flags"].append("no timing samples")
    if row.get("latency_ms"):
        row["fps"] = 1000 / row["latency_ms"]
    return row


def _throughput_columns(rates: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Images a second from the raw times of each batch size."""
    found = {r["batch"]: 1e3 * r["batch"] / float(np.median(r["samples_ms"])) for r in rates if r.get("samples_ms")}
    said = [
        f"{r['batch']}: {found[r['batch']]:.4g}" if r["batch"] in found else f"{r['batch']}: {r['reason']}"
        for r in rates
    ]
    row: dict[str, Any] = {"throughput": "; ".join(said)}
    if found:
        row["images_per_s_batch"] = best = max(found, key=found.__getitem__)
        row["images_per_s"] = found[best]
    return row


def image_values(evaluation: Mapping[str, Any], metric: str) -> NDArray[np.float64]:
    """Per-image values (n,) of ``metric``; nan for an image without one."""
    return np.array([math.nan if v is None else v for v in evaluation["metrics"].get(metric, [])], dtype=np.float64)


def _accuracy_columns(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for metric in (*METRICS, *PLACES, "obstacles_too_far"):
        values = image_values(evaluation, metric)
        values = values[~np.isnan(values)]
        if len(values):
            row[metric] = float(values.mean())
            if metric == "rmse_m":
                row["rmse_lo_m"], row["rmse_hi_m"] = stats.mean_interval(values)
                row["n_images"] = len(values)
    return row


def _compare_with_parents(rows: list[dict[str, Any]], records: list[Record], evaluations: Evaluations) -> None:
    """Fill the parent columns of ``rows`` in place."""
    index = {_place(record): i for i, record in enumerate(records) if record.status == "ok"}
    for row, record in zip(rows, records, strict=True):
        places = [(record.model, recipe, *_place(record)[2:]) for recipe in PARENT_RECIPES]
        parent = next((index[place] for place in places if place in index), None)
        if parent is None or record.status != "ok" or records[parent] is record:
            continue
        row["parent_recipe"] = records[parent].recipe
        row.update(_speedup(row, rows[parent], record, records[parent]))
        mine, theirs = (evaluations.get(r.evaluation or "") for r in (record, records[parent]))
        if mine and theirs:
            row.update(_rmse_change(mine, theirs))
        if row.get("speedup") is not None and row["speedup"] < payoff.PAYS:
            row |= {"not_faster": True, "why_not_faster": payoff.reason(record, records[parent])}
            within_noise = row.get("speedup_hi") is not None and row["speedup_hi"] >= 1
            slower = "slower than parent" + (" (within noise)" if within_noise else "")
            row["flags"].append(slower if row["speedup"] < 1 else "hardly faster than parent")


def _speedup(row: dict[str, Any], parent_row: dict[str, Any], record: Record, parent: Record) -> dict[str, Any]:
    mine, theirs = row.get("latency_ms"), parent_row.get("latency_ms")
    if not mine or not theirs or row["latency_kind"] != parent_row["latency_kind"]:
        return {}
    columns = {"speedup": theirs / mine}
    if record.latency and parent.latency and record.latency.kind == "measured":
        low, high = stats.median_ratio_interval(parent.latency.samples_ms, record.latency.samples_ms)
        if not math.isnan(low):
            columns |= {"speedup_lo": low, "speedup_hi": high}
    return columns


def _rmse_change(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Mean difference over the images that both were evaluated on."""
    other = dict(zip(theirs["images"], image_values(theirs, "rmse_m"), strict=False))
    pairs = zip(mine["images"], image_values(mine, "rmse_m"), strict=False)
    change = np.array([value - other[image] for image, value in pairs if image in other])
    change = change[~np.isnan(change)]
    if not len(change):
        return {}
    low, high = stats.mean_interval(change)
    return {"rmse_change_m": float(change.mean()), "rmse_change_lo_m": low, "rmse_change_hi_m": high}


def _find_origins(rows: list[dict[str, Any]], records: list[Record]) -> None:
    """Fill ``made_from`` of ``rows`` in place: INT8 of a pruned network comes from the pruned one, all else from the parent."""
    full = {
        (*_place(record)[2:], *_weights(record)): i
        for i, record in reversed(list(enumerate(records)))
        if record.status == "ok" and not (record.precision or "").startswith("int8")
    }
    for i, (row, record) in enumerate(zip(rows, records, strict=True)):
        if record.status != "ok" or not record.lineage:
            continue
        before = [_weights(record)]
        before += [before[0][:-1]] if len(before[0]) > 1 else []
        found = [full[place] for weights in before if (place := (*_place(record)[2:], *weights)) in full]
        origin = next((j for j in found if j != i), None)
        row["made_from"] = records[origin].id if origin is not None else None


def _weights(record: Record) -> tuple[str, ...]:
    """Digests of the network before it was exported: of its weights, and of what compression made of them."""
    return tuple(link.digest for link in record.lineage if link.stage in {"weights", "compressed"})
