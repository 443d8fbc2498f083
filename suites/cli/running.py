"""Commands that carry a suite out: run, report."""

from __future__ import annotations

import hashlib
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthbench.suites.cli.clustering import TlsCa, TlsCert, TlsKey, chosen_scheduler
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.live import shown
from depthbench.suites.cli.output import err, out, print_json, print_wide
from depthbench.suites.cli.stopping import stopping

if TYPE_CHECKING:
    from depthbench.suites.schema import Suite

SuiteName = Annotated[str, typer.Argument(help="A catalogue suite (smoke, desktop, jetson) or a YAML file.")]
DataName = Annotated[str | None, typer.Option("--data", help="Data set, in place of the suite's.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="The data set's folder, in place of $DEPTHBENCH_DATA's.")
]
DepthScale = Annotated[
    float | None, typer.Option(help="Stored depth units per metre, for folder; by its layout if left out.")
]
SkipBroken = Annotated[
    int, typer.Option(min=0, help="Leave out up to so many broken images of a split, and say which.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Only cells whose model/recipe/HxW/target matches this pattern; repeatable."),
]


def asked_for(suite: str, data: str | None, profile: str | None = None) -> tuple[Suite, Path | None]:
    """A suite with what the command line replaces, and the folder of its relative paths."""
    from depthbench.suites.names import lookup
    from depthbench.suites.schema import MeasureSpec, load_suite
    from depthbench.suites.targets.desktop_cpu import PROFILES

    loaded, base = load_suite(suite)
    if data is not None:
        loaded = loaded.on(data)
    if profile is not None:
        lookup("profile", profile, PROFILES)
        loaded = loaded.model_copy(update={"measure": MeasureSpec(profile=profile)})  # type: ignore[arg-type]
    return loaded, base


def run(
    suite: SuiteName,
    out_dir: Annotated[Path, typer.Option("--out", help="Run folder; a run in it is continued.")],
    data: DataName = None,
    data_root: DataRoot = None,
    only: Only = None,
    profile: Annotated[
        str | None, typer.Option(help="How long latency is measured: quick, standard or sustained.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes of this machine for everything but measuring; 1 is this one.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="A Dask cluster that does the work: tcp://HOST:PORT or tls://HOST:PORT (depthbench cluster)."
        ),
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    json: Json = False,
) -> None:
    """Run a suite and write its report; a run that was stopped goes on, a complete one recomputes nothing."""
    from depthbench.suites.runner import Request
    from depthbench.suites.runner import run as run_suite

    cluster = chosen_scheduler(scheduler, workers, tls_ca, tls_cert, tls_key)
    loaded, base = asked_for(suite, data, profile)
    request = Request(loaded, out_dir, base, data_root, tuple(only or ()), workers, cluster)
    with stopping(), shown() as view:
        outcome = run_suite(request, view, view.look)
    page = _report_if_changed(out_dir)
    failed = [record for record in outcome.records if record.status == "failed"]
    skipped = [record for record in outcome.records if record.status == "skipped"]
    counts = {
        "cells": len(outcome.records),
        "computed": outcome.computed,
        "skipped": len(skipped),
        "failed": len(failed),
    }
    if json:
        print_json({"report": str(page), **counts, "failures": [{"id": r.id, "reason": r.reason} for r in failed]})
    else:
        from depthbench.reports.load import load_run
        from depthbench.reports.summary import summary_table

        print_wide(summary_table(load_run(out_dir).cells))
        out.print(", ".join(f"{value} {name}" for name, value in counts.items()))
        out.print(f"report: {page}")
    for line in outcome.left_out:
        err.print(f"left out: {line}")
    for record in failed:
        height, width = record.size
        err.print(
            f"failed: {record.model}/{record.recipe}/{height}x{width}/{record.target}: {record.reason}",
        )
    if failed:
        raise typer.Exit(1)


def _report(run_dir: Path, out_dir: Path | None) -> Path:
    from depthbench.reports.report import build_report
    from depthbench.suites.results import RunFolder
    from depthbench.suites.storage.disk import writable, writing_to

    RunFolder(run_dir).read_manifest()  # before anything is said: no run here
    writable(out_dir or run_dir / "report")
    with writing_to(out_dir or run_dir):
        return build_report(run_dir, out_dir, progress=lambda line: err.print(f"report: {line}"))


def _report_if_changed(run_dir: Path) -> Path:
    """The report of a run, made anew only when a record or the program changed since the last one."""
    from depthbench.suites.plan import library_versions
    from depthbench.suites.results import RunFolder, write_atomic

    folder = RunFolder(run_dir)
    content = hashlib.sha256(json_module.dumps([folder.read_manifest()["cells"], library_versions()]).encode())
    for cell in folder.read_manifest()["cells"]:
        if folder.record_path(cell).is_file():
            content.update(folder.record_path(cell).read_bytes())
    page, stamp = run_dir / "report" / "report.html", run_dir / "report" / ".made-from"
    if page.is_file() and stamp.is_file() and stamp.read_text() == content.hexdigest():
        return page
    made = _report(run_dir, None)
    write_atomic(stamp, content.hexdigest().encode())
    return made


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Where the report goes; RUN/report if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the report of a run: tables (CSV, Parquet), Pareto plots, notebook, report.html."""
    page = _report(run_dir, out_dir)
    if json:
        print_json({"report": str(page)})
    else:
        out.print(f"report: {page}")
