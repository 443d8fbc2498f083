"""Commands that turn finished runs into answers: choose, compare, table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import err, out, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

    from depthbench.reports.compare import Comparison
    from depthbench.reports.decide import Candidate, Decision

RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
SHOWN = 6
"""How many names of excluded cells are printed; --json has all."""


def choose(
    run_dir: RunDir,
    board: Annotated[str, typer.Option(help="Target of the run to deploy on.")],
    fps: Annotated[float | None, typer.Option(min=0.001, help="Images a second, at least.")] = None,
    watts: Annotated[float | None, typer.Option(min=0, help="Mean power in watts, at most.")] = None,
    mem: Annotated[float | None, typer.Option(min=0, help="Peak memory in MB, at most.")] = None,
    metric: Annotated[str, typer.Option(help="What to be best in.")] = "rmse_m",
    min_delta1: Annotated[float | None, typer.Option(min=0, max=1, help="δ1, at least.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="How sure each limit must be kept.")] = 0.9,
    data: Annotated[str | None, typer.Option("--data", help="Data set, where the run has several.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the chosen ONNX, its model card and how to deploy it into this folder.")
    ] = None,
    json: Json = False,
) -> None:
    """The best cell of a run for a device, under constraints, with the runner-up; exit code 1 when nothing fits."""
    from depthbench.reports.columns import METRICS
    from depthbench.reports.decide import Wish, choose_cell, decision_json
    from depthbench.reports.load import load_run
    from depthbench.suites.names import lookup

    lookup("metric", metric, dict.fromkeys(METRICS))
    loaded = load_run(run_dir)
    lookup("target of this run", board, dict.fromkeys(loaded.cells["target"]))
    if data is not None:
        labels = loaded.cells["dataset"] + " (" + loaded.cells["protocol"] + ")"
        lookup("data set of this run", data, dict.fromkeys([*loaded.cells["dataset"], *labels]))
    decision = choose_cell(loaded, Wish(board, fps, watts, mem, metric, min_delta1, confidence, data))
    exported = None
    if export is not None and decision.best is not None:
        from depthbench.suites.cli.deploying import export_choice
        from depthbench.suites.storage.disk import writable

        exported = export_choice(loaded, decision, writable(export))
    if json:
        print_json(decision_json(decision) | {"exported": str(exported) if exported else None})
    else:
        for line in decision_lines(decision):
            out.print(line)
        if exported:
            out.print(f"exported: {exported}")
    if decision.best is None:
        raise typer.Exit(1)


def decision_lines(decision: Decision) -> list[str]:
    """The decision in words, the answer first."""
    wish, best = decision.wish, decision.best
    lines = []
    if best is None:
        lines.append(f"Nothing fits on {wish.board}.")
        for c in decision.misses:
            word = "near miss" if math.isfinite(c.excess) else "cannot be judged"
            lines.append(f"  {word}: {_described(c, wish.metric)}; {_broken(c)}")
    else:
        lines.append(f"Take {_described(best, wish.metric)} on {wish.board}.")
        lines.append(
            f"  {decision.sure:.0%} sure that it fits and that none of the {decision.fitting} that fit is better"
        )
        if decision.fitting == 1:
            lines[-1] = f"  {decision.sure:.0%} sure that it fits; no other cell does"
        lines += _unpaid_lines(best)
        lines += [
            f"  {c.constraint}: {c.text} ({c.probability:.0%} sure)" for c in best.checks if c.probability is not None
        ]
    if decision.runner_up is not None:
        lines.append(f"Runner-up: {_described(decision.runner_up, wish.metric)}")
        lines += _unpaid_lines(decision.runner_up)
        lines += _difference_lines(decision)
    for constraint, found in decision.excluded.items():
        names = [f"{c.name} ({_text(c, constraint)})" for c in found]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"Excluded by {constraint}: {len(names)}: {'; '.join(names[:SHOWN])}{more}")
    return [*lines, *(f"Note: {note}" for note in decision.notes)]


def _unpaid_lines(candidate: Candidate) -> list[str]:
    """Why a form that is hardly faster than its parent is not; empty for one that is."""
    row = candidate.row
    if not row["not_faster"]:
        return []
    return [f"  only {row['speedup']:.2f} times as fast as {row['parent_recipe']}: {row['why_not_faster']}"]


def _difference_lines(decision: Decision) -> list[str]:
    d = decision.difference
    assert d is not None
    if not d.images:
        return ["  the two were evaluated on different images: their difference has no interval"]
    interval = f" (95 % interval {d.low:+.4f} to {d.high:+.4f})" if d.low == d.low else ""
    line = f"  its {decision.wish.metric} differs by {d.mean:+.4f}{interval}, paired over {d.images} images"
    told = d.probability >= decision.wish.confidence
    return [line, *([] if told else ["  not told apart at the confidence asked for: the faster of the two is as good"])]


def _described(candidate: Candidate, metric: str) -> str:
    row = candidate.row
    sign = "≈ " if row["latency_kind"] == "predicted" else ""
    latency = f", {sign}{row['latency_ms']:.3g} ms" if row["latency_ms"] == row["latency_ms"] else ""
    return f"{candidate.name}: {metric} {row[metric]:.3f} on {row['dataset']} ({row['protocol']}){latency}"


def _broken(candidate: Candidate) -> str:
    return "; ".join(check.text for check in candidate.checks if not check.holds)


def _text(candidate: Candidate, constraint: str) -> str:
    return next(check.text for check in candidate.checks if check.constraint == constraint)


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The run to compare with.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run that is compared.")],
    every: Annotated[bool, typer.Option("--all", help="Show the cells that did not change, too.")] = False,
    json: Json = False,
) -> None:
    """Compare two runs cell by cell: differences with intervals, what appeared and vanished; environments first."""
    from depthbench.reports.compare import compare_runs, comparison_json
    from depthbench.reports.load import load_run

    comparison = compare_runs(load_run(run_a), load_run(run_b))
    if json:
        print_json({"a": str(run_a), "b": str(run_b)} | comparison_json(comparison))
        return
    if comparison.environment:
        facts = [{"differs": name, "A": a, "B": b} for name, a, b in comparison.environment]
        out.print("The two runs were not made alike.")
        print_table("", facts)
    else:
        out.print("The two runs were made alike.")
    _print_cells(comparison, every)
    for word, table in (("Only in B", comparison.appeared), ("Only in A", comparison.vanished)):
        if len(table):
            print_table(f"{word}: {len(table)} cells", [_place(row) for row in table.to_dict("records")])


def _print_cells(comparison: Comparison, every: bool) -> None:
    cells = comparison.cells if every else comparison.changed
    out.print(f"{len(comparison.cells)} cells in both, {len(comparison.changed)} of them differ")
    if len(cells):
        print_table("B against A", [_compared(row) for row in cells.to_dict("records")])
    if (cells["latency_kind"] == "measured").any():
        err.print(
            "Latencies of two runs were not interleaved: on a shared machine they drift by more than their intervals say. "
            "To judge a change, use depthbench measure --against.",
        )


def _place(row: dict[Any, Any]) -> dict[str, str]:
    size = f"{row['height']}x{row['width']}"
    return {
        "cell": f"{row['model']} {row['recipe']} {size}",
        "target": row["target"],
        "data": f"{row['dataset']} ({row['protocol']})",
    }


def _compared(row: dict[Any, Any]) -> dict[str, str]:
    ratio = "" if row["ratio"] != row["ratio"] else f"×{row['ratio']:.3f}"
    ratio += "" if row["ratio_lo"] != row["ratio_lo"] else f" ({row['ratio_lo']:.3f} to {row['ratio_hi']:.3f})"
    change = "" if row["change_m"] != row["change_m"] else f"{row['change_m']:+.4f}"
    change += (
        "" if row["change_lo_m"] != row["change_lo_m"] else f" ({row['change_lo_m']:+.4f} to {row['change_hi_m']:+.4f})"
    )
    verdict = row["verdict"] + (f" ({row['exact']})" if row["exact"] else "")
    if row["not_faster"]:
        verdict += f"; B is only {row['speedup']:.2f} times as fast as its parent: {row['why_not_faster']}"
    return _place(row) | {"latency B/A": ratio, "RMSE B−A [m]": change, "verdict": verdict}


def _csv(cells: pd.DataFrame) -> str:
    return str(cells.to_csv(index=False, lineterminator="\n"))


def table(
    run_dir: RunDir,
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv.")] = "markdown",
    target: Annotated[str | None, typer.Option(help="Only this target.")] = None,
) -> None:
    """Print the cells of a run as tables for a README or a paper, one per target; csv is the whole tidy table."""
    from depthbench.reports.load import load_run
    from depthbench.reports.tables import latex, markdown
    from depthbench.suites.names import lookup

    writers: dict[str, Callable[[pd.DataFrame], str]] = {"markdown": markdown, "latex": latex, "csv": _csv}
    write = lookup("format", form, writers)
    cells = load_run(run_dir).cells
    if target is not None:
        lookup("target of this run", target, dict.fromkeys(cells["target"]))
        cells = cells[cells["target"] == target]
    print(write(cells), end="")
