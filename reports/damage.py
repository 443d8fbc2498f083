"""What compression costs in accuracy, and where: by distance, at depth edges, on the hardest images, by layer group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from depthbench.reports import theme as themes
from depthbench.reports.columns import PLACES
from depthbench.reports.decide import paired_difference
from depthbench.reports.effects import nothing
from depthbench.reports.load import Run, image_values
from depthbench.reports.payoff import FLAGGED, Notes, brief
from depthbench.reports.pictures import representatives
from depthbench.reports.readable import signed
from depthbench.reports.summary import data_names
from depthbench.reports.theme import LIGHT, Theme, write_lines
from depthbench.suites.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def damage(run: Run) -> pd.DataFrame:
    """What compression costs where: a row per compressed cell and place of ``PLACES``, each artefact once.

    Columns: ``model``, ``recipe``, ``precision``, ``size``, ``dataset``, ``protocol``, ``place``, ``change_m`` (RMSE minus the
    uncompressed form's, paired per image) and its bootstrap 95 % interval ``lo``, ``hi``; ``speedup``, ``not_faster`` and
    ``why_not_faster`` of the least speed-up that the artefact has on any target. Empty for runs whose evaluations do not tell
    the error by place.
    """
    by_place = {(*_place(record),): record for record in run.records if record.status == "ok"}
    rows = []
    seen: set[tuple[str, str]] = set()
    for cell, record in zip(run.cells.to_dict("records"), run.records, strict=True):
        parent = by_place.get((record.model, cell["parent_recipe"], *_place(record)[2:]))
        pair = (record.evaluation or "", parent.evaluation or "" if parent else "")
        if parent is None or not all(pair) or pair in seen:
            continue
        seen.add(pair)
        slowest = _slowest(run.cells, record.evaluation or "", run.records)
        for metric, words in PLACES.items():
            change = paired_difference(run.evaluation(parent), run.evaluation(record), metric)
            if change.images:
                rows.append(
                    {
                        "model": record.model,
                        "recipe": record.recipe,
                        "precision": record.precision,
                        "size": f"{record.size[0]}×{record.size[1]}",
                        "dataset": record.dataset,
                        "protocol": record.protocol,
                        "place": words,
                        "change_m": change.mean,
                        "lo": change.low,
                        "hi": change.high,
                        **slowest,
                    }
                )
    columns = ["model", "recipe", "precision", "size", "dataset", "protocol", "place", "change_m", "lo", "hi"]
    return pd.DataFrame(rows, columns=[*columns, *_PAYOFF])


_PAYOFF = ("speedup", "not_faster", "why_not_faster")


def _slowest(cells: pd.DataFrame, evaluation: str, records: Sequence[Record]) -> dict[str, Any]:
    """The payoff columns of the cell with the least speed-up among those that deploy one artefact."""
    same = cells[[record.evaluation == evaluation for record in records]].sort_values("speedup", na_position="last")
    return {name: same.iloc[0][name] for name in _PAYOFF}


def _place(record: Record) -> tuple[Any, ...]:
    return (record.model, record.recipe, record.size, record.target, record.dataset, record.protocol)


def damage_grid(where: pd.DataFrame) -> tuple[pd.DataFrame, Notes]:
    """RMSE added in metres, first size of :func:`damage`: a row per form, marked by the notes beside it, a column per place."""
    where = _of_first_size(where)
    models = list(dict.fromkeys(where["model"]))
    where = where.sort_values("model", key=lambda names: names.map(models.index), kind="stable")
    names = where["model"] + " " + where["recipe"]
    several = where.groupby(["model", "recipe"])["precision"].transform("nunique") > 1
    names = names.where(~several, names + " " + where["precision"])
    data = where["dataset"] + " (" + where["protocol"] + ")"
    where = where.assign(name=names + " " + data if data.nunique() > 1 else names)
    notes = Notes(where, brief)
    where["cell"] = [f"{row['name']} {notes.mark(row)}".strip() for _, row in where.iterrows()]
    grid = where.pivot_table(index="cell", columns="place", values="change_m", sort=False)
    return grid, notes


def _of_first_size(where: pd.DataFrame) -> pd.DataFrame:
    first: pd.DataFrame = where[where["size"] == where["size"].iloc[0]]
    return first


def draw_damage(run: Run, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """RMSE added by compression by distance and at depth edges, smallest input: a row per network and recipe."""
    import matplotlib as mpl
    import seaborn as sns

    table = damage(run)
    with mpl.rc_context(themes.rc(theme)):
        if table.empty:
            ax = ax or themes.new_axes(5.2, 2)
            ax.set_title("RMSE added by compression [m]")
            return nothing(ax, "no compressed cell with errors by distance")
        grid, notes = damage_grid(table)
        data = data_names(_of_first_size(table))
        slow = notes.lines(108)
        ax = ax or themes.new_axes(6.2, 1.0 + 0.27 * len(grid) + 0.15 * len(slow))
        limit = float(np.nanmax(np.abs(grid.to_numpy())))
        palette = sns.diverging_palette(245, 30, s=80, l=60, center=theme.name, as_cmap=True)
        sns.heatmap(
            grid,
            ax=ax,
            annot=grid.map(signed),
            fmt="",
            vmin=-limit,
            vmax=limit,
            cmap=palette,
            cbar=False,
            linewidths=1,
            linecolor=theme.paper,
            annot_kws={"fontsize": 8.5},
        )
        ax.set_title(f"RMSE added by compression [m]\non {data}")
        ax.set(xlabel="", ylabel="")
        ax.tick_params(axis="both", rotation=0)
        write_lines(ax, slow, 20, gid=FLAGGED, x=0.01, across="figure fraction")
    return ax


def hardest_images(run: Run, most: int = 8) -> pd.DataFrame:
    """The images that networks see worst, by the mean RMSE of all: a row per image, a column per network, metres.

    Of each network its least compressed form at its smallest input; images that not all of them were given are left out.
    """
    columns = {}
    for model, record in representatives(run, pictured=False).items():
        evaluation = run.evaluation(record)
        if evaluation:
            columns[model] = dict(zip(evaluation["images"], image_values(evaluation, "rmse_m"), strict=False))
    table = pd.DataFrame(columns).dropna()
    return table.loc[table.mean(axis=1).sort_values(ascending=False).index].head(most)


def sensitivities(run: Run) -> pd.DataFrame:
    """Accuracy against the share that was taken away, where compression steps recorded it.

    A step's report may hold ``sensitivity``: a mapping from the name of a layer group to pairs (ratio, metric). Columns:
    ``model``, ``recipe``, ``dataset``, ``protocol``, ``step``, ``group``, ``ratio``, ``value``.
    """
    rows = []
    seen: set[tuple[str, str]] = set()
    for record in run.records:
        if (record.model, record.recipe) in seen:
            continue
        for report in record.compression:
            for group, pairs in (report.get("sensitivity") or {}).items():
                seen.add((record.model, record.recipe))
                scan = (record.model, record.recipe, record.dataset, record.protocol, report.get("step", ""), group)
                rows += [(*scan, ratio, value) for ratio, value in pairs]
    return pd.DataFrame(rows, columns=["model", "recipe", "dataset", "protocol", "step", "group", "ratio", "value"])


def draw_sensitivities(run: Run, model: str, ax: Axes | None = None, *, theme: Theme = LIGHT) -> Axes:
    """A curve per layer group of :func:`sensitivities` of one network: metric against the share taken away."""
    import matplotlib as mpl

    table = sensitivities(run)
    table = table[table["model"] == model]
    with mpl.rc_context(themes.rc(theme)):
        ax = ax or themes.new_axes(6.2, 4)
        ax.set_title(f"{model}: sensitivity by layer group")
        if table.empty:
            return nothing(ax, "no sensitivity was recorded")
        styles = ("-", "--", ":", "-.")
        for i, (group, points) in enumerate(table.groupby("group", sort=False)):
            colour = theme.families[i % len(theme.families)]
            curve = points.sort_values("ratio")
            ax.plot(
                curve["ratio"], curve["value"], styles[i % 4], color=colour, marker=themes.MARKERS[i % 6], label=group
            )
        ax.set(xlabel="share taken away", ylabel=f"metric on {data_names(table)}")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
