"""Commands on suites before anything runs: plan, schema."""

from __future__ import annotations

import json as json_module
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import out, print_json, print_table
from depthbench.suites.cli.running import DataName, DataRoot, Only, SuiteName, asked_for

if TYPE_CHECKING:
    from depthbench.suites.outlook import Piece
    from depthbench.suites.plan import Job

SHOWN = 300
"""A plan with more cells than this is shown by model, recipe and target; --json always lists them all."""


def plan(
    suite: SuiteName,
    data: DataName = None,
    data_root: DataRoot = None,
    only: Only = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run folder: cells that it has a record of need nothing more.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a suite would do: its cells, the work that they share, what is cached, what cannot run, how long it takes."""
    from depthbench.suites.outlook import outlook
    from depthbench.suites.plan import make_plan
    from depthbench.suites.runner import artefact_spec, describe_data

    wanted, base = asked_for(suite, data)
    described, source, splits = describe_data(wanted, data_root)
    jobs = make_plan(wanted, described, base=base, only=tuple(only or ()), access=source.access)
    specs = {job.id: artefact_spec(job, source, splits[1].digest) for job in jobs if job.skip is None}
    recorded = _recorded(run, jobs)
    pieces = outlook(jobs, specs, recorded)
    cached: dict[str, list[str]] = {job.id: [] for job in jobs}
    for piece in pieces:
        for cell in piece.cells if piece.cached else ():
            cached[cell].append(piece.stage)
    cells = [_cell(job, ["record"] if job.id in recorded else cached[job.id]) for job in jobs]
    rows, seconds, unknown = _work(pieces)
    main = described[wanted.data.name]
    if json:
        print_json(
            {
                "suite": wanted.name,
                "data": main.name,
                "protocol": main.protocol,
                "cells": cells,
                "work": rows,
                "unavailable": _unavailable(jobs),
                "seconds": seconds,
                "unknown_pieces": unknown,
            }
        )
        return
    images = ", ".join(f"{one.n} images of {one.name}" for one in described.values())
    if len(cells) <= SHOWN:
        print_table(
            f"Suite {wanted.name} on {images}", [_line(job, cell) for job, cell in zip(jobs, cells, strict=True)]
        )
    else:
        print_table(f"Suite {wanted.name} on {images}", _grouped(jobs))
    if rows:
        shown = [
            {key: v for key, v in row.items() if key != "seconds"} | {"time": _time(row["seconds"])} for row in rows
        ]
        print_table("Work that the cells share", shown)
    for line in _unavailable(jobs):
        out.print(f"skipped, {line['cells']} cells: {line['reason']}")
    skipped = sum(job.skip is not None for job in jobs)
    kept = f", {len(recorded)} of them in {run}" if run else ""
    out.print(f"{len(jobs)} cells, {skipped} of them skipped{kept}")
    out.print(_estimate(seconds, unknown))


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="The documentation of every key instead.")] = False,
    out_file: Annotated[Path | None, typer.Option("--out", "-o", help="A file to write; stdout if left out.")] = None,
) -> None:
    """Print the JSON Schema of suite files, by which editors complete and check them.

    Put ``# yaml-language-server: $schema=suite.schema.json`` at the top of a suite.
    """
    from depthbench.suites.results import write_atomic
    from depthbench.suites.storage.disk import writable_file
    from depthbench.suites.suitefile.docs import json_schema, markdown_text

    text = markdown_text() if markdown else json_module.dumps(json_schema(), indent=2) + "\n"
    if out_file is None:
        print(text, end="")
    else:
        write_atomic(writable_file(out_file), text.encode())


def _recorded(run: Path | None, jobs: Sequence[Job]) -> frozenset[str]:
    """Cells that a run has finished."""
    if run is None:
        return frozenset()
    from depthbench.suites.results import RunFolder

    folder = RunFolder(run)
    folder.read_manifest()  # says when no run is there
    records = (folder.read_record(job.id) for job in jobs)
    return frozenset(record.id for record in records if record is not None and record.status != "failed")


def _cell(job: Job, cached: list[str]) -> dict[str, Any]:
    return {
        "id": job.id,
        "model": job.model.name,
        "recipe": job.recipe.name,
        "size": f"{job.size[0]}x{job.size[1]}",
        "target": job.target.name,
        "data": job.data.name,
        "precision": job.precision,
        "cached": cached,
        "skip": job.skip,
    }


def _line(job: Job, cell: dict[str, Any]) -> dict[str, Any]:
    """A row of the table of cells."""
    state = "skipped" if job.skip else ", ".join(cell["cached"])
    return {"cell": f"{job.label}/{job.data.name}", "precision": job.precision, "cached": state}


def _grouped(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    cells = Counter((job.model.name, job.recipe.name, job.target.name) for job in jobs)
    if len(cells) > SHOWN:
        return [{"target": name, "cells": n} for name, n in Counter(job.target.name for job in jobs).items()]
    return [{"model": m, "recipe": r, "target": t, "cells": n} for (m, r, t), n in cells.items()]


def _unavailable(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Each reason why cells cannot run, with their number."""
    return [{"reason": reason, "cells": n} for reason, n in Counter(job.skip for job in jobs if job.skip).items()]


def _work(pieces: Sequence[Piece]) -> tuple[list[dict[str, Any]], float, int]:
    """A row a stage, the seconds that are known of all, and the number of pieces of which nothing is known."""
    rows: list[dict[str, Any]] = []
    for stage in dict.fromkeys(piece.stage for piece in pieces):
        these = [piece for piece in pieces if piece.stage == stage]
        known = [piece.seconds for piece in these if piece.seconds is not None]
        rows.append(
            {
                "stage": stage,
                "pieces": len(these),
                "cells": len({cell for piece in these for cell in piece.cells}),
                "cached": sum(piece.cached for piece in these),
                "unknown": len(these) - len(known),
                "seconds": round(sum(known), 1) if known else None,
            }
        )
    unknown = sum(row["unknown"] for row in rows)
    return rows, round(sum(row["seconds"] or 0.0 for row in rows), 1), unknown


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "no earlier one"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _estimate(seconds: float, unknown: int) -> str:
    word, more = ("at least", f"; how long {unknown} more pieces take is not known yet") if unknown else ("about", "")
    return f"{word} {_time(seconds)} on one worker, by how long earlier pieces took{more}"
