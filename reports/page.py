"""The report as one HTML page that needs nothing else: what it says (:func:`page_content`) and how (``report.html``)."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from depthbench.reports import ablation
from depthbench.reports.columns import COLUMNS
from depthbench.reports.damage import damage, damage_grid
from depthbench.reports.effects import marked_grid, speedup_cells, speedup_grid
from depthbench.reports.environment import environment_rows
from depthbench.reports.load import Run
from depthbench.reports.pareto import TOLERANCE, Front, cell_name, choose, families, fronts, hypervolumes
from depthbench.reports.payoff import LEGEND, Notes, mark
from depthbench.reports.published import described, published_on
from depthbench.reports.readable import number, percent, signed
from depthbench.reports.stats import MIN_FOR_INTERVAL
from depthbench.reports.summary import MISSING, data_names
from depthbench.reports.theme import MARKERS, family_name, family_order, family_slot


@dataclass(frozen=True)
class ModelPictures:
    """A network's strip of pictures, that of its worst image, and those of what INT8 changed; all JPEG.

    ``worst``: (RMSE in metres, JPEG); ``differences``: (name, made from, rms in metres, JPEG).
    """

    model: str
    note: str
    strip: bytes
    worst: tuple[float, bytes] | None
    differences: tuple[tuple[str, str, float, bytes], ...]


@dataclass(frozen=True)
class Pictures:
    """The pictures of the page: ``header`` (JPEG) holds inputs and ground truths; ``scales`` colour maps by name (JPEG)."""

    header: bytes
    models: tuple[ModelPictures, ...]
    images: int
    hardest: int
    limits: tuple[float, float]
    left_out: tuple[str, ...]
    scales: Mapping[str, bytes]
    worst: pd.DataFrame


@dataclass(frozen=True)
class Figures:
    """The figures of a report: by slug of each front its (name of the cost, ``<svg>``), and the pictures when there are any.

    ``times``: by target, (name, ``<svg>``) of where its time goes.
    """

    fronts: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    pictures: Pictures | None = None
    times: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


def render_page(run: Run, figures: Figures, files: list[str]) -> str:
    """The page. ``files`` are names of files that lie beside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("depthbench.reports", "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "uri": _data_uri, "plus": signed, "percent": percent}
    return environment.get_template("report.html").render(page_content(run), figures=figures, files=files)


def page_content(run: Run) -> dict[str, Any]:
    """Everything that the page says, as plain values."""
    cells = run.cells
    counts, found = Counter(cells["status"]), fronts(cells)
    return {
        "suite": _suite_name(run.manifest),
        "facts": _facts(run),
        "counts": {status: counts.get(status, 0) for status in ("ok", "skipped", "failed")},
        "pending": len(run.pending),
        "missing_evaluations": len(run.missing_evaluations),
        "targets": [_target(front, run) for front in found],
        "several_images": len({(front.dataset, front.protocol) for front in found}) > 1,
        "without_front": _without_front(cells),
        "tolerance": TOLERANCE,
        "ablations": ablation.section(run),
        "compression": _compression(cells),
        "damage": _damage(run),
        "not_faster": LEGEND,
        "rows": list(_table_rows(run)),
        "choices": {name: _unique(cells[name]) for name in ("target", "model", "recipe", "status")},
        "skipped": _reasons(cells, "skipped"),
        "failed": _reasons(cells, "failed"),
        "methods": _methods(run),
        "marks": {slot: mark for slot, mark, _ in family_marks(cells)},
        "columns": [(name, unit, meaning) for name, (_, unit, meaning) in COLUMNS.items()],
        "environment": environment_rows(run),
    }


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _unique(values: pd.Series) -> list[str]:
    return list(dict.fromkeys(values))


def _suite_name(manifest: Mapping[str, Any]) -> str:
    suite = manifest.get("suite")
    return str(suite.get("name", "run")) if isinstance(suite, Mapping) else str(suite or "run")


def _facts(run: Run) -> list[tuple[str, str]]:
    cells = run.cells
    facts = [
        ("models", str(cells["model"].nunique())),
        ("recipes", str(cells["recipe"].nunique())),
        ("targets", ", ".join(_unique(cells["target"]))),
        ("images", ", ".join(_unique(cells["dataset"] + " (" + cells["protocol"] + ")"))),
        ("started", str(run.manifest.get("started") or "")[:16].replace("T", " ")),
    ]
    return [(name, value) for name, value in facts if value]


def _target(front: Front, run: Run) -> dict[str, Any]:
    choice, sizes = choose(front), front.usual_size
    cells = run.cells
    assert run.draws is not None
    volumes = hypervolumes(front, run.draws).set_index("family")
    picks = {"best choice": choice.best, "most accurate": choice.most_accurate, "fastest": choice.fastest}
    everywhere = list(cells["family"])
    best = families(front)
    taken = {cell["id"] for cell in picks.values()} | set(best["best"])
    notes = Notes(front.cells[front.cells["id"].isin(taken)])
    named = {
        cell["id"]: f"{cell_name(cell, usual_size=sizes)}\N{NO-BREAK SPACE}{notes.mark(cell)}".strip()
        for _, cell in front.cells[front.cells["id"].isin(taken)].iterrows()
    }
    return {
        "slug": front.slug,
        "name": front.target,
        "kind": front.latency_kind,
        "images": f"{front.dataset} ({front.protocol})",
        "size": f"{sizes[0]}×{sizes[1]}",
        "several_sizes": len(front.cells.drop_duplicates(["height", "width"])) > 1,
        "left_out": front.left_out,
        "ambiguous": int(front.cells["ambiguous"].sum()),
        "published": [described(point) for point in published_on(front.target)],
        "reasons": notes.reasons(),
        "picks": [(label, named[cell["id"]], cell.to_dict()) for label, cell in picks.items()],
        "families": [
            row
            | {
                "name": family_name(str(row["family"])),
                "slot": family_slot(str(row["family"]), everywhere),
                "best_name": named[row["best"]],
                **volumes.loc[row["family"], ["hypervolume", "lo", "hi"]].to_dict(),
            }
            for row in best.to_dict("records")
        ],
    }


def _without_front(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Targets that have no cell with both numbers, and why."""
    shown = {front.target for front in fronts(cells)}
    result = []
    for target in _unique(cells["target"]):
        if target not in shown:
            here = cells[cells["target"] == target]
            reasons = (
                ["no cell has both a latency and an accuracy"] if (here["status"] == "ok").any() else here["reason"]
            )
            result.append((target, "; ".join(dict.fromkeys(reasons))))
    return result


def _compression(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Per target, the speed-ups of :func:`speedup_grid` with a shade from -1 (half as fast) to 1 (twice as fast)."""
    tables = []
    for target in _unique(cells["target"]):
        grid = speedup_grid(cells, target)
        if grid.empty:
            continue
        here = cells[(cells["target"] == target) & cells["speedup"].notna()]
        notes = Notes(speedup_cells(cells, target))
        texts = marked_grid(cells, target, notes).reindex_like(grid).fillna(MISSING)
        rows = [
            (model, [(value, _shade(value), text) for value, text in zip(values, words, strict=True)])
            for model, values, words in zip(grid.index, grid.to_numpy(), texts.to_numpy(), strict=True)
        ]
        kinds = _unique(here["latency_kind"])
        parents = _unique(here["parent_recipe"])
        tables.append(
            {
                "target": target,
                "kinds": kinds,
                "parents": parents,
                "recipes": list(grid.columns),
                "rows": rows,
                "reasons": notes.reasons(),
            }
        )
    return tables


def _damage(run: Run) -> dict[str, Any]:
    """RMSE added by compression by place, with a shade from -1 (less) to 1 (the greatest loss); empty without any."""
    where = damage(run)
    if where.empty:
        return {}
    grid, notes = damage_grid(where)
    limit = max(abs(value) for value in grid.to_numpy().flat if not math.isnan(value)) or 1.0
    rows = [
        (name, [(signed(value), 0.0 if math.isnan(value) else value / limit) for value in values])
        for name, values in zip(grid.index, grid.to_numpy(), strict=True)
    ]
    return {"places": list(grid.columns), "rows": rows, "reasons": notes.reasons(), "data": data_names(where)}


def _shade(speedup: float) -> float:
    return 0.0 if math.isnan(speedup) else max(-1.0, min(1.0, math.log2(speedup)))


def _table_rows(run: Run) -> Iterator[dict[str, Any]]:
    cells = run.cells
    everywhere = list(cells["family"])
    names = {cell: f"{model} {recipe}" for cell, model, recipe in cells[["id", "model", "recipe"]].to_numpy()}
    rows: list[dict[str, Any]] = [{str(name): value for name, value in row.items()} for row in cells.to_dict("records")]
    for row, record in zip(rows, run.records, strict=True):
        slower = row["speedup"] < 1
        remarks = [flag for flag in row["flags"].split("; ") if flag]
        yield row | {
            "slot": family_slot(row["family"], everywhere),
            "size": f"{row['height']}×{row['width']}",
            "slower": slower,
            "mark": mark(row["speedup"]),
            "remarks": remarks,
            "origin": names.get(row["made_from"], ""),
            "lineage": " → ".join(f"{link.stage} {link.digest[:8]}" for link in record.lineage),
        }


def _reasons(cells: pd.DataFrame, status: str) -> list[dict[str, Any]]:
    """The cells of a status by reason, the commonest first."""
    groups = []
    for reason, here in cells[cells["status"] == status].groupby("reason", sort=False):
        names = [f"{cell_name(cell)} on {cell['target']}" for _, cell in here.iterrows()]
        groups.append(
            {"reason": reason or "no reason was recorded", "cells": names, "targets": _unique(here["target"])}
        )
    return sorted(groups, key=lambda group: -len(group["cells"]))


def _methods(run: Run) -> dict[str, Any]:
    """What the page says about how its numbers were obtained."""
    cells = run.cells
    measured = [r.latency for r in run.records if r.latency and r.latency.kind == "measured" and r.latency.samples_ms]
    predicted = [r.latency for r in run.records if r.latency and r.latency.kind == "predicted"]
    return {
        "measured": len(measured),
        "samples": _span([len(latency.samples_ms) for latency in measured]),
        "warmups": _span([len(latency.warmup_ms) for latency in measured]),
        "threads": _span([latency.threads for latency in measured if latency.threads]),
        "predicted": len(predicted),
        "notes": list(dict.fromkeys(latency.interval_note for latency in predicted if latency.interval_note)),
        "images": _span([n for n in cells["n_images"] if n]),
        "left_out": _span([n for n in cells["n_left_out"] if n]) if cells["n_left_out"].any() else "",
        "fewest": MIN_FOR_INTERVAL,
    }


def _span(values: list[int]) -> str:
    return "–".join(dict.fromkeys((str(min(values)), str(max(values))))) if values else MISSING


FAMILY_MARKS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}


def family_marks(cells: pd.DataFrame) -> list[tuple[int, str, str]]:
    """(slot, mark, name) of each family, as the figures show them."""
    everywhere = list(cells["family"])
    slots = [(family_slot(family, everywhere), family) for family in family_order(everywhere)]
    return [(slot, FAMILY_MARKS[MARKERS[slot]], family_name(family)) for slot, family in slots]
