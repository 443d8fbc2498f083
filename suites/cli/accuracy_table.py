"""Evaluations as rows of a table, the protocol beside every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthbench.suites.cli.output import print_table

PAIRED = ("rmse_m", "delta1")
"""Metrics whose difference to the model of ``--against`` is given."""


def named(model: str, recipe: str, weights: str | None) -> str:
    """``MODEL[@RECIPE]`` as it is shown, with a weights file that is not the shipped one; files by their names."""
    name = Path(model).name if model.endswith(".onnx") else model
    return name + (f"@{recipe}" if recipe != "fp32" else "") + (f" ({Path(weights).name})" if weights else "")


def title(evaluation: Mapping[str, Any]) -> str:
    """The data set and the protocol that its numbers belong to."""
    return f"{evaluation['data']} {evaluation['split']}, protocol {evaluation['protocol']}"


def rows(evaluation: Mapping[str, Any], by_group: bool, against: str) -> list[dict[str, str]]:
    """The rows of a table: the whole data set, then its groups."""
    made = []
    for group, values in {"all": evaluation, **evaluation.get("groups", {})}.items():
        row = {
            "model": named(evaluation["model"], evaluation["recipe"], evaluation["weights"]),
            "input": evaluation["size"],
            **({"group": group} if by_group else {}),
            "images": str(values["n"]),
            **{metric: _number(values[metric]) for metric in ("rmse_m", "abs_rel", "delta1")},
        }
        for metric in PAIRED if against else ():
            row[f"{metric} - {against}'s"] = _difference(values, metric)
        made.append(row)
    return made


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _difference(values: Mapping[str, Any], metric: str) -> str:
    """Mean and 95 % interval of the paired difference; without an interval where there are too few images for one."""
    mean, interval = values.get(f"{metric}_difference"), values.get(f"{metric}_difference_ci95")
    if mean is None:
        return ""
    return f"{mean:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def markdown(table: Sequence[Mapping[str, str]]) -> str:
    """Rows with equal columns as a Markdown table."""
    columns = list(table[0])
    lines = [columns, ["---"] * len(columns), *(list(row.values()) for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_one(evaluation: Mapping[str, Any]) -> None:
    """Every metric of one evaluation."""
    from depthbench.suites.metrics import ALL_METRICS

    left_out = f", {len(evaluation['skipped'])} broken ones left out" if evaluation["skipped"] else ""
    heading = (
        f"{evaluation['model']} ({evaluation['recipe']}, {evaluation['size']}) on {evaluation['n']} images of "
        f"{evaluation['data']} {evaluation['split']}{left_out}, protocol {evaluation['protocol']}"
    )
    print_table(heading, [{"metric": name, "mean": _number(evaluation[name])} for name in ALL_METRICS])
