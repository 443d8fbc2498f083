"""Tables and numbers for people: few rows, as many digits as mean something; every number is one of ``cells.csv``, rounded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from depthbench.reports.decide import Wish, choose_cell
from depthbench.reports.load import Run
from depthbench.reports.pareto import Front, cell_name, choose, families, hypervolumes
from depthbench.reports.payoff import Notes
from depthbench.reports.summary import MISSING, significant
from depthbench.reports.theme import family_name

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler
    from pandas.io.formats.style_render import CSSDict


def number(value: float | None, digits: int | None = None) -> str:
    """A number for people: ``digits`` decimals, or three significant digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return MISSING
    return significant(value) if digits is None else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, or a dash."""
    if math.isnan(value):
        return MISSING
    return f"{round(value, digits):+.{digits}f}".replace("-", "−") if round(value, digits) else f"{0:.{digits}f}"


def percent(value: float) -> str:
    """A probability for people, or a dash."""
    return MISSING if math.isnan(value) else f"{value:.0%}"


def interval(low: float, high: float, digits: int | None = None, *, sign: bool = False) -> str:
    """`` (low to high)``, with a space before it; empty where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return ""
    low_text, high_text = (signed(end, digits or 3) if sign else number(end, digits) for end in (low, high))
    return f" ({low_text} to {high_text})"


def latency(cell: pd.Series) -> str:
    """A latency in milliseconds, ``≈`` before a prediction."""
    return ("≈ " if cell["latency_kind"] == "predicted" else "") + number(cell["latency_ms"])


def plain(table: pd.DataFrame) -> Styler:
    """A table of texts as a notebook shows it: without its index, its first column to the left."""
    left: CSSDict = {"selector": "td.col0, th.col0", "props": "text-align: left"}
    nowrap: CSSDict = {"selector": "td, th", "props": "white-space: nowrap"}
    return table.style.hide(axis="index").set_table_styles([left, nowrap])


def smallest_input(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells at the smallest input size of ``cells``."""
    area = cells["height"] * cells["width"]
    smallest: pd.DataFrame = cells[area == area.min()]
    return smallest


def gains(cells: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """What compression brought to each of ``cells``, those of one target: the greatest speed-up first.

    Columns: network, recipe, speed-up and RMSE change with their 95 % intervals, images, size. Marks are those of ``notes``.
    """
    rows = [
        {
            "network": cell["model"],
            "recipe": cell["recipe"],
            "speed-up": f"{number(cell['speedup'], 2)}{interval(cell['speedup_lo'], cell['speedup_hi'], 2)} "
            f"{notes.mark(cell)}".strip(),
            "RMSE change [m]": signed(cell["rmse_change_m"])
            + interval(cell["rmse_change_lo_m"], cell["rmse_change_hi_m"], sign=True),
            "images": f"{cell['dataset']} ({cell['protocol']})",
            "size [MB]": number(cell["size_mb"]),
        }
        for _, cell in cells.sort_values("speedup", ascending=False, kind="stable").iterrows()
    ]
    return pd.DataFrame(rows, columns=["network", "recipe", "speed-up", "RMSE change [m]", "images", "size [MB]"])


def fastest(cells: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """Each network's fastest form on each target, in milliseconds: a row per network, a column per target."""
    timed = cells[cells["latency_ms"].notna()].sort_values("latency_ms", kind="stable")
    rows = {model: {"network": model} for model in dict.fromkeys(cells["model"])}
    for _, cell in timed.drop_duplicates(["model", "target"]).iterrows():
        rows[cell["model"]][cell["target"]] = f"{latency(cell)} {cell['recipe']} {notes.mark(cell)}".strip()
    targets = [target for target in dict.fromkeys(cells["target"]) if target in set(timed["target"])]
    return pd.DataFrame(list(rows.values()), columns=["network", *targets]).fillna(MISSING)


def picks(fronts: Iterable[Front], notes: Notes) -> pd.DataFrame:
    """What to take of each front: the best choice, the most accurate cell and the fastest, a row each."""
    rows = []
    for front in fronts:
        choice = choose(front)
        for word in ("best", "most accurate", "fastest"):
            cell = getattr(choice, word.replace(" ", "_"))
            rows.append(
                {
                    "target": front.target,
                    "images": f"{front.dataset} ({front.protocol})",
                    "": word,
                    "take": f"{cell_name(cell)} {notes.mark(cell)}".strip(),
                    "latency [ms]": latency(cell),
                    "RMSE [m]": number(cell["rmse_m"], 3),
                    "δ1": number(cell["delta1"], 3),
                    "GMAC": number(cell["gmacs"]),
                    "size [MB]": number(cell["size_mb"]),
                    "on the front": percent(cell["front_probability"]),
                }
            )
    return pd.DataFrame(rows)


def shares(run: Run, fronts: Iterable[Front], notes: Notes) -> pd.DataFrame:
    """What each family has of each front: its cells on it, its best choice, and the hypervolume with its 95 % interval."""
    assert run.draws is not None
    rows = []
    for front in fronts:
        volumes = hypervolumes(front, run.draws).set_index("family")
        cells = front.cells.set_index("id", drop=False)
        for family in families(front).to_dict("records"):
            best, volume = cells.loc[family["best"]], volumes.loc[family["family"]]
            rows.append(
                {
                    "target": front.target,
                    "images": f"{front.dataset} ({front.protocol})",
                    "family": family_name(str(family["family"])),
                    "on the front": f"{family['on_front']} of {family['cells']}",
                    "best choice": f"{cell_name(best)} {notes.mark(best)}".strip(),
                    "latency [ms]": latency(best),
                    "RMSE [m]": number(best["rmse_m"], 3),
                    "hypervolume": number(volume["hypervolume"], 2) + interval(volume["lo"], volume["hi"], 2),
                }
            )
    return pd.DataFrame(rows)


def decisions(run: Run, notes: Notes, *, fps: float, confidence: float) -> pd.DataFrame:
    """What :func:`depthbench.reports.decide.choose_cell` takes on each target and data set at a frame rate."""
    done = run.cells[run.cells["status"] == "ok"]
    rows = []
    for target, dataset, protocol in done[["target", "dataset", "protocol"]].drop_duplicates().to_numpy():
        wish = Wish(target, fps=fps, confidence=confidence, dataset=f"{dataset} ({protocol})")
        decision = choose_cell(run, wish)
        best, other = decision.best, decision.runner_up
        rows.append(
            {
                "target": target,
                "images": f"{dataset} ({protocol})",
                "fit": decision.fitting,
                "take": f"{best.name} {notes.mark(best.row)}".strip() if best else "nothing fits",
                "latency [ms]": latency(pd.Series(best.row)) if best else MISSING,
                "RMSE [m]": number(best.row["rmse_m"], 3) if best else MISSING,
                "sure": percent(decision.sure) if best else MISSING,
                "runner-up": f"{other.name} {notes.mark(other.row)}".strip() if other else MISSING,
            }
        )
    return pd.DataFrame(rows)


def lost(where: pd.DataFrame, notes: Notes, most: int = 10) -> pd.DataFrame:
    """The ``most`` greatest losses of :func:`depthbench.reports.damage.damage`, a row per form and place."""
    rows = [
        {
            "form": f"{row['model']} {row['recipe']} ({row['precision']}) {row['size']} {notes.mark(row)}".strip(),
            "where": row["place"],
            "RMSE change [m]": signed(row["change_m"]) + interval(row["lo"], row["hi"], sign=True),
            "images": f"{row['dataset']} ({row['protocol']})",
        }
        for _, row in where.sort_values("change_m", ascending=False, kind="stable").head(most).iterrows()
    ]
    return pd.DataFrame(rows, columns=["form", "where", "RMSE change [m]", "images"])
