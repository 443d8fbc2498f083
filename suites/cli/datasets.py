"""Commands on data sets: list them, verify one on disk."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import out, print_json, print_table, stages
from depthbench.suites.cli.running import DepthScale

if TYPE_CHECKING:
    from depthbench.suites.data.verify import SplitReport

app = typer.Typer(name="datasets", invoke_without_command=True)


@app.callback()
def datasets(context: typer.Context, json: Json = False) -> None:
    """List the data sets and whether they are found; verify one."""
    from depthbench.suites.data import DATASETS, find_root

    if context.invoked_subcommand is not None:
        return
    rows = []
    for name, info in DATASETS.items():
        try:
            where = "rendered here" if name == "rooms" else str(find_root(name))
            if name != "rooms" and not Path(where).is_dir():
                where = f"no folder {where}"
        except ValueError as error:
            where = str(error)
        rows.append({"name": name, "summary": info.summary, "protocol": info.protocol, "found": where})
    if json:
        about = DATASETS.values()
        more = [{"licence": i.licence, "source": i.source, "test_only": i.test_only} for i in about]
        print_json({"datasets": [row | extra for row, extra in zip(rows, more, strict=True)]})
    else:
        print_table("Data sets", rows)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A data set (depthbench datasets).")],
    path: Annotated[Path, typer.Argument(help="Its folder; for nyu-labeled also the .mat file.")],
    split: Annotated[str | None, typer.Option(help="train, calibration or test; train and test if left out.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images of a split.")] = None,
    depth_scale: DepthScale = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read; the number of cores.")] = None,
    json: Json = False,
) -> None:
    """Read every image of a data set: what was found, depth range, share of valid pixels, broken files, files without partner.

    Exit code 2 when a file is broken; the first one is named.
    """
    from depthbench.suites.data.verify import verify as verify_files

    with stages() as progress:
        report = verify_files(
            name,
            path,
            split,
            limit=limit,
            depth_scale=depth_scale,
            workers=workers,
            progress=lambda done, total: progress("images", done, total),
        )
    if json:
        splits = [{k: _finite(v) for k, v in dataclasses.asdict(part).items()} for part in report.splits]
        print_json(
            {"name": name, "root": str(path), "splits": splits, "absent": report.absent, "unpaired": report.unpaired}
        )
    else:
        print_table(f"{name} in {path}", [_row(part) for part in report.splits])
        for part in report.splits:
            if part.groups:
                print_table(f"Groups of {part.split}", [{"group": k, "pairs": n} for k, n in part.groups.items()])
        for missing, reason in report.absent.items():
            out.print(f"no {missing} split: {reason}")
        if report.unpaired:
            out.print(_unpaired(report.unpaired))
    if report.broken:
        more = f" (and {len(report.broken) - 1} more)" if len(report.broken) > 1 else ""
        raise ValueError(f"{report.broken[0]}{more}")


def _unpaired(files: list[str]) -> str:
    named = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
    return f"{len(files)} files have no partner and are not used: {named}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _row(part: SplitReport) -> dict[str, str | int]:
    sizes = ", ".join(size if len(part.sizes) == 1 else f"{size} ({n})" for size, n in part.sizes.items())
    return {
        "split": part.split,
        "layout": part.layout,
        "pairs": part.pairs,
        "size": sizes,
        "depth m": "" if math.isnan(part.depth_min_m) else f"{part.depth_min_m:.3f} to {part.depth_max_m:.3f}",
        "valid": "" if math.isnan(part.valid_share) else f"{part.valid_share:.1%}",
        "broken": len(part.broken),
    }
