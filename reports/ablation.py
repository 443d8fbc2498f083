"""What each part of a network buys: the models that a suite trained, one option changed at a time, beside the full one.

A variant is trained once per seed. Its RMSE is compared with the full model's on the same images and of the same seed; the
interval is over images, the range over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from depthbench.reports.load import Run, image_values
from depthbench.reports.readable import number
from depthbench.reports.stats import mean_interval
from depthbench.reports.summary import MISSING
from depthbench.suites.results import Record


@dataclass(frozen=True)
class Ablation:
    """The variants of one model at one input size, on the same images. ``table`` has a row per variant, the full one first.

    Columns: ``variant``, ``changed``, ``seeds``; ``rmse_m`` and ``delta1``, means over seeds, with ``_lo`` and ``_hi``, the
    least and the greatest of a seed; ``rmse_change_m`` with ``_lo`` and ``_hi`` (95 % bootstrap interval over images);
    ``agree``, whether every seed of the variant lies on the same side of every seed of the full model; ``params_m``,
    ``gmacs``; ``attention_params_m``, ``attention_gmacs`` of the attention alone (nan in records that do not tell them),
    ``transformer_params_m``, ``transformer_gmacs`` with its feed-forward and normalisation; ``latency_ms`` and
    ``latency_ratio`` (to the full model) of each of ``targets``, as ``latency_ms desktop-cpu``. What is unknown is nan.
    """

    model: str
    size: tuple[int, int]
    dataset: str
    protocol: str
    samples: int
    targets: tuple[tuple[str, str], ...]
    table: pd.DataFrame


def ablations(run: Run) -> list[Ablation]:
    """The ablations of a run, in the order of its cells; none when it trained nothing."""
    mine = [record for record in run.records if record.status == "ok" and _training(record)]

    def group(record: Record) -> tuple[Any, ...]:
        return _training(record)["model"], record.size, record.dataset, record.protocol

    return [_ablation(run, list(records)) for _, records in groupby(sorted(mine, key=group), key=group)]


def _training(record: Record) -> Mapping[str, Any]:
    """What the record's weights were trained by, of a model that the suite trained; else empty."""
    options = record.lineage[0].options if record.lineage else {}
    return options if "variant" in options else {}


def _ablation(run: Run, records: list[Record]) -> Ablation:
    order = {record.id: place for place, record in enumerate(run.records)}
    records = sorted(records, key=lambda record: order[record.id])
    first = records[0]
    cells = run.cells.set_index("id")
    kinds = {record.target: str(cells.at[record.id, "latency_kind"]) for record in records}
    names = list(dict.fromkeys(_training(record)["variant"] for record in records))
    groups = {name: [record for record in records if _training(record)["variant"] == name] for name in names}
    full = next((name for name in names if not _training(groups[name][0])["options"]), None)
    names.sort(key=lambda name: name != full)
    # Accuracy is that of the first recipe of the run; other recipes and targets only give latencies.
    scored = {
        name: {_training(r)["seed"]: r for r in reversed(groups[name]) if r.recipe == first.recipe} for name in names
    }
    rows: list[dict[str, Any]] = []
    for name in names:
        row: dict[str, Any] = {"variant": name, "changed": _changed(_training(groups[name][0])["options"])}
        row |= _accuracy(run, scored[name]) | _costs(scored[name]) | _latency(groups[name], cells, kinds)
        if full is not None and name != full:
            row |= _change(run, scored[name], scored[full])
            row |= _ratios(row, rows[0], kinds)
        rows.append(row)
    return Ablation(
        _training(first)["model"],
        first.size,
        first.dataset,
        first.protocol,
        _training(first)["samples"],
        tuple(kinds.items()),
        pd.DataFrame(rows),
    )


def _changed(options: Mapping[str, Any]) -> str:
    texts = {
        name: f"no {name.replace('_', ' ')}" if value is False else f"{name} {value}" for name, value in options.items()
    }
    return ", ".join(texts.values()) or MISSING


def _per_image(run: Run, record: Record, metric: str) -> NDArray[np.float64]:
    return image_values(run.evaluation(record), metric)


def _accuracy(run: Run, scored: Mapping[int, Record]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(scored)}
    for metric in ("rmse_m", "delta1"):
        values = [_mean(_per_image(run, record, metric)) for record in scored.values()]
        if values:
            row |= {metric: float(np.mean(values)), f"{metric}_lo": min(values), f"{metric}_hi": max(values)}
    return row


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _costs(scored: Mapping[int, Record]) -> dict[str, Any]:
    profile = next((record.profile for record in scored.values()), {})
    transformer = profile.get("transformer") or {}
    return {
        "params_m": profile.get("params_m"),
        "gmacs": next((count for count in (profile.get("gmacs") or {}).values() if count is not None), None),
        "attention_params_m": transformer.get("attention_params_m"),
        "attention_gmacs": transformer.get("attention_gmacs"),
        "transformer_params_m": transformer.get("params_m"),
        "transformer_gmacs": transformer.get("gmacs"),
    }


def _latency(records: list[Record], cells: pd.DataFrame, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Medians over seeds: the network is the same, only its weights differ."""
    here = {target: [record.id for record in records if record.target == target] for target in kinds}
    return {f"latency_ms {target}": float(cells.loc[ids, "latency_ms"].median()) for target, ids in here.items() if ids}


def _ratios(row: Mapping[str, Any], full: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    names = [(f"latency_ratio {target}", f"latency_ms {target}") for target in kinds]
    return {ratio: row[name] / full[name] for ratio, name in names if name in row and name in full}


def _change(run: Run, mine: Mapping[int, Record], full: Mapping[int, Record]) -> dict[str, Any]:
    """RMSE minus the full model's: paired by seed and image, averaged over the seeds that both have."""
    seeds = [seed for seed in mine if seed in full]
    differences = [
        _per_image(run, mine[seed], "rmse_m") - _per_image(run, full[seed], "rmse_m")
        for seed in seeds
        if run.evaluation(mine[seed]).get("images") == run.evaluation(full[seed]).get("images")
    ]
    if not differences:
        return {}
    per_image = np.mean(differences, axis=0)  # (n,)
    per_image = per_image[~np.isnan(per_image)]
    ours, theirs = ([_mean(_per_image(run, r, "rmse_m")) for r in side.values()] for side in (mine, full))
    low, high = mean_interval(per_image)
    return {
        "rmse_change_m": _mean(per_image),
        "rmse_change_lo_m": low,
        "rmse_change_hi_m": high,
        "agree": min(ours) > max(theirs) or max(ours) < min(theirs),
    }


def shown(ablation: Ablation) -> pd.DataFrame:
    """The table for people: ranges over seeds behind the means, the interval behind the change, ``≈`` for a prediction."""
    rows = []
    for row in ablation.table.to_dict("records"):
        text = {
            "variant": row["variant"],
            "changed": row["changed"],
            "seeds": str(row["seeds"]),
            "RMSE [m]": _ranged(row, "rmse_m"),
            "δ1": _ranged(row, "delta1"),
            "RMSE change [m]": _change_text(row),
            "params [1e6]": number(row["params_m"]),
            "GMAC": number(row["gmacs"]),
            "attention params [1e6]": number(row["attention_params_m"]),
            "attention GMAC": number(row["attention_gmacs"], 4),
            "transformer params [1e6]": number(row["transformer_params_m"]),
            "transformer GMAC": number(row["transformer_gmacs"], 4),
        }
        for target, kind in ablation.targets:
            ratio = row.get(f"latency_ratio {target}", math.nan)
            value = number(row.get(f"latency_ms {target}"))
            sign = "≈ " if kind == "predicted" else ""
            text[f"{target} [ms]"] = f"{sign}{value}" + ("" if math.isnan(ratio) else f" (×{ratio:.2f})")
        rows.append(text)
    return pd.DataFrame(rows)


def _ranged(row: Mapping[Any, Any], metric: str) -> str:
    value = row.get(metric, math.nan)
    if math.isnan(value):
        return MISSING
    return f"{value:.3f} ({row[f'{metric}_lo']:.3f}–{row[f'{metric}_hi']:.3f})"


def _change_text(row: Mapping[Any, Any]) -> str:
    """The change with its interval; ``?`` when the seeds do not agree on the side or the interval holds 0."""
    value = row.get("rmse_change_m", math.nan)
    if math.isnan(value):
        return MISSING
    low, high = row["rmse_change_lo_m"], row["rmse_change_hi_m"]
    unsure = not row["agree"] or not (low > 0 or high < 0)
    interval = "" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
    return f"{value:+.3f}{interval}{' ?' if unsure else ''}".replace("-", "−")


def section(run: Run) -> list[dict[str, Any]]:
    """What the report's page says of each ablation: a title, the columns, and the rows as texts."""
    parts = []
    for ablation in ablations(run):
        table = shown(ablation)
        height, width = ablation.size
        parts.append(
            {
                "title": f"{ablation.model} at {height}×{width}, {ablation.samples} training samples each",
                "images": f"{ablation.dataset} ({ablation.protocol})",
                "columns": list(table.columns),
                "rows": table.to_numpy().tolist(),
            }
        )
    return parts


def csv(run: Run) -> str:
    """All ablations of a run as one CSV table, empty without any."""
    tables = [
        ablation.table.assign(
            model=ablation.model,
            height=ablation.size[0],
            width=ablation.size[1],
            dataset=ablation.dataset,
            protocol=ablation.protocol,
            samples=ablation.samples,
        )
        for ablation in ablations(run)
    ]
    return pd.concat(tables).to_csv(index=False, lineterminator="\n") if tables else ""
