"""Commands that keep an answer true: gate, history."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import err, print_json, print_table, print_wide, stages
from depthbench.suites.cli.running import DataRoot

if TYPE_CHECKING:
    from depthbench.reports.gate_output import GateReport

SIDE = "a folder of ONNX files, one .onnx file, a run, a checkout, or a git revision"


def gate(
    base: Annotated[str | None, typer.Option(help=f"What is compared with: {SIDE}.")] = None,
    head: Annotated[str | None, typer.Option(help=f"What is judged: {SIDE}.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Tolerances; efficiency.yaml of the current folder if there is one.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Accepted values; efficiency.accepted.yaml beside the tolerances if left out.")
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Put the head's values into the reference.")] = False,
    reason: Annotated[str, typer.Option(help="Why, written beside accepted values.")] = "no reason given",
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this artefact; repeatable.")] = None,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Whether latency is measured.")] = True,
    accuracy: Annotated[bool, typer.Option("--accuracy/--no-accuracy", help="Whether accuracy is computed.")] = True,
    time_identical: Annotated[
        bool, typer.Option("--time-identical", help="Measure the latency of byte-identical files too.")
    ] = False,
    data_root: DataRoot = None,
    pytest_benchmark: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Compare two files of pytest-benchmark instead."),
    ] = None,
    history: Annotated[Path | None, typer.Option(help="Stored runs and gates, for the summary's sparklines.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write gate.json, junit.xml and summary.md here.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge whether head is slower, bigger or worse than base.

    Exit code 0: pass, or ambiguous with a warning; 1: fail; 2: bad input; 3: contaminated, it could not be judged.
    """
    from depthbench.suites.gating.accepted import FILE as REFERENCE
    from depthbench.suites.gating.accepted import load_reference, write_reference
    from depthbench.suites.gating.config import FILE, load_policy
    from depthbench.suites.storage.disk import writable

    start = time.perf_counter()
    if out_dir is not None:
        writable(out_dir)
    config = config or (Path(FILE) if Path(FILE).is_file() else None)
    policy = load_policy(config)
    if pytest_benchmark is not None:
        from depthbench.reports.gate import Limit
        from depthbench.reports.gate_benchmarks import judge_files

        limits = {name: Limit(one.tolerance, one.reason) for name, one in policy.benchmarks.items()}
        _finish(judge_files(*pytest_benchmark, limits), out_dir, json, history)
        return
    if base is None or head is None:
        raise ValueError("gate needs --base and --head, or --pytest-benchmark A.json B.json")
    from depthbench.suites.cli.gate_run import Options, run_gate
    from depthbench.suites.gating.sources import open_side

    reference = reference or (config.parent if config else Path()) / REFERENCE
    accepted = load_reference(reference).models
    options = Options(policy, accepted, tuple(only or ()), latency, accuracy, time_identical, data_root)
    with (
        stages() as progress,
        open_side(base, policy, progress) as before,
        open_side(head, policy, progress) as after,
    ):
        judged = run_gate(before, after, options, progress)
    report = judged.report(before.label, after.label, time.perf_counter() - start)
    if accept:
        values = {name: {"reason": reason, **values} for name, values in judged.acceptable.items()}
        difference = write_reference(reference, values) if values else ""
        err.print(difference or "nothing to accept")
        report = judged.accepted(reason).report(before.label, after.label, time.perf_counter() - start)
    _finish(report, out_dir, json, history)


def _finish(report: GateReport, out_dir: Path | None, as_json: bool, history: Path | None) -> None:
    """Show and write a gate's result, and end with its exit code."""

    from depthbench.reports.gate_output import junit, markdown, table, to_json
    from depthbench.suites.results import write_atomic, write_json

    if out_dir is not None:
        from depthbench.reports.history import artefact_series

        write_json(out_dir / "gate.json", to_json(report))
        write_atomic(out_dir / "junit.xml", junit(report))
        write_atomic(out_dir / "summary.md", markdown(report, artefact_series(history) if history else None).encode())
    if as_json:
        print_json(to_json(report))
    else:
        print_wide(table(report))
    for check in report.checks:
        if check.state in ("fail", "contaminated", "ambiguous"):
            err.print(f"{check.state}: {check.artefact}: {check.message}")
    err.print(report.headline())
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def history(
    places: Annotated[
        list[Path], typer.Argument(metavar="PLACE...", help="Runs, gate.json files, or folders that hold them.")
    ],
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; repeatable.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot (PNG) of all series.")] = None,
    json: Json = False,
) -> None:
    """Trend per model and metric over stored runs, with the points where a series changed; advisory, never a gate."""
    from depthbench.reports.history import draw_history, load_history, trends
    from depthbench.reports.theme import png
    from depthbench.suites.names import lookup
    from depthbench.suites.results import write_atomic
    from depthbench.suites.storage.disk import writable_file

    table = load_history(places)
    for name in metric or ():
        lookup("metric", name, dict.fromkeys(table["metric"]))
    found = trends(table, metric)
    if plot is not None:
        write_atomic(writable_file(plot), png(draw_history(table, found)))
    if json:
        print_json({"points": len(table), "series": [one.to_json() for one in found]})
        return
    print_table(f"{len(found)} series of {table['source'].nunique()} runs", [one.row() for one in found])
