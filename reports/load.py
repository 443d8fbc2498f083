"""A run folder read as one tidy table: a row per cell, every statistic derived here from raw samples.

``COLUMNS`` documents each column with its unit; ``cells.csv`` and ``cells.parquet`` have exactly these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from depthbench.reports import stats
from depthbench.reports.pareto import fronts
from depthbench.suites.results import Latency, Record, RunFolder, read_json

METRICS = ("rmse_m", "abs_rel", "sq_rel", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
PARENT_RECIPES = ("fp32", "fp16")
"""The uncompressed forms; the first that ran on a target is the parent that its compressed forms are compared with."""

IDENTITY = (
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
    "precision",
)
TEXT, INTEGER, NUMBER, FLAG = "text", "integer", "number", "flag"

COLUMNS: Mapping[str, tuple[str, str, str]] = {
    # name: (kind, unit, meaning)
    "id": (TEXT, "", "content hash of the cell"),
    "status": (TEXT, "", "ok, skipped or failed"),
    "reason": (TEXT, "", "why the cell was skipped or how it failed"),
    "model": (TEXT, "", "network"),
    "family": (TEXT, "", "kind of network"),
    "recipe": (TEXT, "", "how it was compressed"),
    "height": (INTEGER, "px", "height of the network's input"),
    "width": (INTEGER, "px", "width of the network's input"),
    "target": (TEXT, "", "device"),
    "target_kind": (TEXT, "", "kind of device"),
    "dataset": (TEXT, "", "images that the accuracy is of"),
    "protocol": (TEXT, "", "how predictions are compared with the ground truth"),
    "precision": (TEXT, "", "number format of the deployed file"),
    "latency_kind": (TEXT, "", "measured (wall time on the device) or predicted (by a model of the device)"),
    "latency_ms": (NUMBER, "ms", "one inference, batch 1: median of the samples, or the prediction"),
    "latency_lo_ms": (NUMBER, "ms", "lower end: bootstrap 95 % interval of the median, or the prediction's interval"),
    "latency_hi_ms": (NUMBER, "ms", "upper end of the same interval"),
    "iqr_ms": (NUMBER, "ms", "interquartile range of the samples"),
    "p90_ms": (NUMBER, "ms", "90th percentile, given from 64 samples"),
    "p99_ms": (NUMBER, "ms", "99th percentile, given from 662 samples"),
    "n_latency": (INTEGER, "", "timed inferences, warm-up apart; 0 for a prediction"),
    "threads": (INTEGER, "", "threads that the measurement was given; 0 where not said"),
    "bound": (TEXT, "", "what limits the latency, where known"),
    "fps": (NUMBER, "1/s", "1000 / latency_ms"),
    "n_images": (INTEGER, "", "images that the accuracy is of"),
    "rmse_m": (NUMBER, "m", "root mean square error per image, averaged over images"),
    "rmse_lo_m": (NUMBER, "m", "lower end: bootstrap 95 % interval over images"),
    "rmse_hi_m": (NUMBER, "m", "upper end of the same interval"),
    "abs_rel": (NUMBER, "", "|error| / depth"),
    "sq_rel": (NUMBER, "m", "error² / depth"),
    "rmse_log": (NUMBER, "", "root mean square error of the natural logarithm"),
    "log10": (NUMBER, "", "|error| of the decimal logarithm"),
    "silog": (NUMBER, "", "100 × standard deviation of the error of the natural logarithm"),
    "delta1": (NUMBER, "", "share of pixels within a factor 1.25"),
    "delta2": (NUMBER, "", "share of pixels within a factor 1.25²"),
    "delta3": (NUMBER, "", "share of pixels within a factor 1.25³"),
    "params_m": (NUMBER, "1e6", "parameters, shared ones counted once"),
    "params_applied_m": (NUMBER, "1e6", "parameters, shared ones counted at each use"),
    "gmacs": (
        NUMBER,
        "1e9",
        "multiply-accumulates (1 MAC = 2 FLOPs) by the first of the next three counters",
    ),
    "gmacs_onnx": (NUMBER, "1e9", "multiply-accumulates counted on the ONNX graph"),
    "gmacs_fvcore": (NUMBER, "1e9", "multiply-accumulates counted by fvcore"),
    "gmacs_ptflops": (NUMBER, "1e9", "multiply-accumulates counted by ptflops"),
    "gmacs_spread": (NUMBER, "", "(largest - smallest) / largest of the three counts"),
    "gmacs_verdict": (TEXT, "", "whether the counters agree within 1 %, or the operators that explain it are named"),
    "size_mb": (NUMBER, "MB", "size of the deployed file"),
    "n_nodes": (INTEGER, "", "operators in the deployed graph"),
    "n_quantized_nodes": (INTEGER, "", "of these, quantized"),
    "peak_activation_mb": (NUMBER, "MB", "largest sum of live activations"),
    "parent_recipe": (TEXT, "", "uncompressed form that the next columns compare with, same target and input size"),
    "speedup": (NUMBER, "×", "latency of the parent / latency of this cell; below 1 is slower"),
    "speedup_lo": (NUMBER, "×", "lower end: bootstrap 95 % interval, measured cells only"),
    "speedup_hi": (NUMBER, "×", "upper end of the same interval"),
    "rmse_change_m": (NUMBER, "m", "rmse_m minus the parent's on the same images; above 0 is worse"),
    "rmse_change_lo_m": (NUMBER, "m", "lower end: bootstrap 95 % interval, paired per image"),
    "rmse_change_hi_m": (NUMBER, "m", "upper end of the same interval"),
    "on_front": (FLAG, "", "no other cell of the same target and data is both faster and more accurate"),
    "flags": (TEXT, "", "remarks, separated by '; '"),
}

Evaluations = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A run as read from disk.

    ``cells`` is the tidy table (``COLUMNS``); ``pending`` the planned cells that have no record yet;
    ``missing_evaluations`` digests of accuracy files that records name and that are not there.
    """

    folder: RunFolder
    manifest: dict[str, Any]
    records: tuple[Record, ...]
    cells: pd.DataFrame
    pending: tuple[str, ...] = ()
    missing_evaluations: tuple[str, ...] = ()


def load_run(run: Path) -> Run:
    """Read the run folder ``run``; ``ValueError`` when it holds no run or a file in it cannot be read."""
    folder = RunFolder(Path(run))
    manifest = folder.read_manifest()
    records = list(folder.records())
    evaluations, missing = _evaluations(folder, records)
    known = {record.id for record in records}
    return Run(
        folder=folder,
        manifest=manifest,
        records=tuple(records),
        cells=cell_table(records, evaluations),
        pending=tuple(cell for cell in manifest["cells"] if cell not in known),
        missing_evaluations=missing,
    )


def _place(record: Record) -> tuple[Any, ...]:
    return (record.model, record.recipe, record.size, record.target, record.dataset, record.protocol)


def _evaluations(folder: RunFolder, records: list[Record]) -> tuple[Evaluations, tuple[str, ...]]:
    digests = dict.fromkeys(record.evaluation for record in records if record.evaluation)
    present = {digest: folder.evaluation_path(digest) for digest in digests}
    missing = tuple(digest for digest, path in present.items() if not path.is_file())
    return {digest: read_json(path) for digest, path in present.items() if digest not in missing}, missing


def cell_table(records: list[Record], evaluations: Evaluations) -> pd.DataFrame:
    """The tidy table of ``records``: exactly ``COLUMNS``, also when there are none."""
    rows = [_row(record, evaluations) for record in records]
    _compare_with_parents(rows, records, evaluations)
    for row in rows:
        row["flags"] = "; ".join(row["flags"])
    table = pd.DataFrame(
        {name: _column(kind, [row.get(name) for row in rows]) for name, (kind, _, _) in COLUMNS.items()}
    )
    table["on_front"] = _on_front(table)
    return table


def _column(kind: str, values: list[Any]) -> pd.Series:
    if kind == TEXT:
        return pd.Series([value or "" for value in values], dtype=object)
    if kind == INTEGER:
        return pd.Series([int(value or 0) for value in values], dtype="int64")
    if kind == FLAG:
        return pd.Series([bool(value) for value in values], dtype=bool)
    return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")


def _on_front(table: pd.DataFrame) -> pd.Series:
    members = {cell for front in fronts(table) for cell in front.members["id"]}
    return table["id"].isin(members)


def _row(record: Record, evaluations: Evaluations) -> dict[str, Any]:
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
    row["height"], row["width"] = record.size
    row["flags"] = []
    row |= _profile_columns(record.profile)
    if record.latency is not None:
        row |= _latency_columns(record.latency)
    if record.evaluation in evaluations:
        row |= _accuracy_columns(evaluations[record.evaluation])
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


def _latency_columns(latency: Latency) -> dict[str, Any]:
    row: dict[str, Any] = {
        "latency_kind": latency.kind,
        "threads": latency.threads,
        "bound": latency.bound,
        "flags": list(latency.flags),
    }
    if latency.kind == "predicted":
        row["latency_ms"] = latency.latency_ms
        row["latency_lo_ms"], row["latency_hi_ms"] = latency.interval_ms or (None, None)
    elif latency.samples_ms:
        samples = np.asarray(latency.samples_ms)
        row["latency_ms"] = float(np.median(samples))
        row["latency_lo_ms"], row["latency_hi_ms"] = stats.median_interval(samples)
        row["iqr_ms"] = float(np.subtract(*np.percentile(samples, (75, 25))))
        row["p90_ms"], row["p99_ms"] = stats.percentile(samples, 90), stats.percentile(samples, 99)
        row["n_latency"] = len(samples)
    else:
        row["flags"].append("no timing samples")
    if row.get("latency_ms"):
        row["fps"] = 1000 / row["latency_ms"]
    return row


def image_values(evaluation: Mapping[str, Any], metric: str) -> NDArray[np.float64]:
    """Per-image values (n,) of ``metric``; nan for an image without one."""
    return np.array([math.nan if v is None else v for v in evaluation["metrics"].get(metric, [])], dtype=np.float64)


def _accuracy_columns(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for metric in METRICS:
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
        if row.get("speedup") is not None and row["speedup"] < 1:
            within_noise = row.get("speedup_hi") is not None and row["speedup_hi"] >= 1
            row["flags"].append("slower than parent" + (" (within noise)" if within_noise else ""))


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
