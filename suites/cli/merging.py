"""``depthbench merge``: runs of several machines as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import err, out, print_json


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of one suite.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Where the merged run goes: a folder that holds no run yet.")],
    prefer: Annotated[
        Path | None, typer.Option(help="The run whose word counts where two contradict each other.")
    ] = None,
    json: Json = False,
) -> None:
    """Join runs of one suite, taken on several machines, into one; name what they contradict each other in.

    Of one cell an ok record counts before a failed and this before a skipped one. Without --prefer a conflict ends with
    exit code 2 and nothing is written.
    """
    from depthbench.suites.merging import merge as merge_runs

    merged = merge_runs(runs, out_dir, prefer=prefer)
    if json:
        print_json(
            {
                "run": str(out_dir),
                "cells": sum(merged.counts.values()),
                **merged.counts,
                "conflicts": [{"cell": one.what, "runs": list(one.runs), "why": one.why} for one in merged.conflicts],
                "notes": list(merged.notes),
            }
        )
        return
    for conflict in merged.conflicts:
        err.print(f"conflict: {conflict}: {prefer} counts")
    for note in merged.notes:
        err.print(f"note: {note}")
    counts = ", ".join(f"{count} {status}" for status, count in merged.counts.items())
    out.print(
        f"{sum(merged.counts.values())} cells ({counts}) in {out_dir}: depthbench report {out_dir}",
    )
