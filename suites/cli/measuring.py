"""Commands that measure: measure, boards, bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.artefacts import Model, Recipe, Size, deployed
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import Stages, out, print_json, print_table, stages

if TYPE_CHECKING:
    from depthbench.suites.results import Latency
    from depthbench.suites.targets import Target
    from depthbench.suites.targets.board_results import Outcome
    from depthbench.suites.targets.boardfile import BoardEntry
    from depthbench.suites.targets.desktop_cpu import CpuSettings
    from depthbench.suites.targets.measuring import Work

Profile = Annotated[str, typer.Option(help="quick, standard or sustained.")]
SuiteBoards = Annotated[str | None, typer.Option("--suite", metavar="SUITE", help="The boards of this suite too.")]
boards = typer.Typer(name="boards", no_args_is_help=True, help="The Jetson boards that are reached over SSH.")
bundle = typer.Typer(name="bundle", no_args_is_help=True, help="Measuring on a board that somebody else has.")


def measure(
    model: Model,
    target: Annotated[str, typer.Option(help="Where to measure (depthbench targets).")] = "desktop-cpu",
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL[@RECIPE]", help="Measure this one too, interleaved, and give the ratio."),
    ] = None,
    recipe: Recipe = "fp32",
    size: Size = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; the target's own if left out.")] = None,
    affinity: Annotated[
        str | None, typer.Option(metavar="CORES", help="Cores to be bound to, for example 0,2-3; any if left out.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(help="On a CPU onnxruntime (default) or openvino, on a GPU torch (default) or onnxruntime."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Throughput at these batch sizes too, for example 1,4,8.")
    ] = None,
    profile: Profile = "quick",
    out_file: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write raw samples, warm-ups and the environment too (JSON).")
    ] = None,
    json: Json = False,
) -> None:
    """Latency of a model on a target: median with a 95 % interval, and the ratio to another one measured beside it."""
    from dataclasses import asdict

    from depthbench.suites.cli.measured import comparison, figures
    from depthbench.suites.names import lookup
    from depthbench.suites.plan import library_versions
    from depthbench.suites.results import write_json
    from depthbench.suites.running.exclusion import held, measuring
    from depthbench.suites.storage.disk import writable_file
    from depthbench.suites.targets import TARGETS
    from depthbench.suites.targets import desktop_cpu as cpu
    from depthbench.suites.targets.batches import parse_batches
    from depthbench.suites.targets.desktop_cuda import check_runtime

    chosen = lookup("target", target, TARGETS)
    lookup("profile", profile, cpu.PROFILES)
    if chosen.how == "predicted":
        raise ValueError(f"{target} is a predicted board: use depthbench predict {model} --board {target}")
    settings = _settings(chosen, threads, affinity, runtime)
    sizes = () if batch is None else parse_batches(batch)
    if sizes and (chosen.kind == "board" or chosen.measure is not None):
        raise ValueError(f"--batch is for a CPU or a GPU, not for {target}")
    if (reason := chosen.probe()) is not None:
        raise ValueError(f"target {target} is not available: {reason}")
    if chosen.kind == "cuda":
        check_runtime(settings.runtime)
    if out_file is not None:
        writable_file(out_file)
    with stages() as progress:
        with held(None, partial(progress, "waiting for a measurement on this machine", 0.0, 1.0)):
            work = [_work(model, recipe, size, chosen, progress)]
            if against is not None:
                other, _, other_recipe = against.partition("@")
                work.append(_work(other, other_recipe or "fp32", size, chosen, progress))
        with measuring(chosen, progress):
            first, *rest = _measured(chosen, work, profile, settings, sizes, partial(_tell, progress))
    result: dict[str, Any] = {"model": model, "recipe": recipe, "target": target}
    if chosen.kind == "cpu":
        result |= {"threads": settings.threads, "runtime": settings.runtime}
    result |= figures(_latency(first))
    if rest:
        result |= {"against": against, **comparison(_latency(first), _latency(rest[0]))}
    if out_file is not None:
        names = [f"{model}@{recipe}", *([against] if against is not None else [])]
        raw = [{"model": name, **asdict(one)} for name, one in zip(names, (first, *rest), strict=True)]
        libraries = library_versions()
        write_json(out_file, {"target": target, "profile": profile, "libraries": libraries, "measured": raw})
    if json:
        print_json(result)
    else:
        print_table(f"{model} ({recipe}) on {target}", [{"what": key, "value": value} for key, value in result.items()])


def _settings(target: Target, threads: int | None, affinity: str | None, runtime: str | None) -> CpuSettings:
    """How a file runs on a target; ``ValueError`` for what that target does not have."""
    from depthbench.suites.targets import desktop_cpu as cpu

    if target.kind != "cpu" and (threads is not None or affinity is not None):
        raise ValueError(f"--threads and --affinity are for a CPU, not for {target.name}")
    if target.kind == "board" and runtime is not None:
        raise ValueError(f"--runtime is for a CPU or a GPU, not for {target.name}")
    cores = None if affinity is None else parse_cores(affinity)
    default = len(cores) if cores and target.threads == "all" else cpu.thread_count(target.threads)
    own = "torch" if target.kind == "cuda" else "onnxruntime"
    settings = cpu.CpuSettings(threads or default, cores, runtime or own)
    if target.kind == "cpu":
        cpu.check_settings(settings)
    return settings


def parse_cores(text: str) -> tuple[int, ...]:
    """``0,2-3`` as (0, 2, 3); ``ValueError`` for anything else."""
    cores: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"--affinity {text}: {part!r} is no core or range of cores (for example 0,2-3)")
        cores |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(cores))


def _tell(progress: Stages, share: float) -> None:
    progress("measuring", share, 1.0)


def _work(model: str, recipe: str, size: str | None, target: Target, progress: Stages) -> Work:
    """The file to measure; FP32 is measured on boards too, though no recipe deploys it there."""
    from depthbench.compression.recipes import RECIPES
    from depthbench.suites.compressing import network
    from depthbench.suites.models import resolve_model
    from depthbench.suites.source import DataSource
    from depthbench.suites.targets.measuring import Work

    precision = "fp32" if target.kind == "board" and recipe == "fp32" else None
    made = deployed(model, recipe, size, progress, kind=target.kind, precision=precision, opset=target.opset)
    if made.precision in target.refuses:
        raise ValueError(f"{target.name}: {target.refuses[made.precision]}")
    spec = resolve_model(model)
    build = None
    if target.kind == "cuda" and spec.kind != "onnx":
        build = lambda: network(spec, RECIPES[recipe], DataSource("rooms", "native"))[0]  # noqa: E731
    return Work(made.path, made.precision, made.size, build)


def _measured(
    target: Target, work: list[Work], profile: str, settings: CpuSettings, batches: tuple[int, ...], progress: Any
) -> list[Outcome]:
    """What was measured; ``ValueError``: the reason why something could not be."""
    from depthbench.suites.targets import desktop_cpu as cpu
    from depthbench.suites.targets.measuring import measure_group

    outcomes = measure_group(
        target,
        work,
        profile,
        settings=settings,
        batches=batches,
        processes=cpu.COMPARED if len(work) > 1 else None,
        progress=progress,
    )
    for outcome in outcomes:
        if outcome.latency is None:
            raise ValueError(f"target {target.name}: {outcome.reason}")
    return outcomes


def _latency(outcome: Outcome) -> Latency:
    assert outcome.latency is not None
    return outcome.latency


def boards_of(suite: str | None) -> Mapping[str, BoardEntry]:
    """The boards that stand in a suite, none without one."""
    from depthbench.suites.schema import load_suite

    return load_suite(suite)[0].boards if suite is not None else {}


def _known_boards(suite: str | None) -> Mapping[str, BoardEntry]:
    """The boards of the user's file, and those of a suite, whose names are others."""
    from depthbench.suites.targets.boardfile import load_boards

    return {**load_boards(), **boards_of(suite)}


@boards.command("list")
def boards_list(suite: SuiteBoards = None, json: Json = False) -> None:
    """List the boards of the user's file and what may be changed on them; connects to none."""
    from depthbench.suites.targets.boardfile import boards_path

    rows = [{"name": name, **entry.model_dump()} for name, entry in _known_boards(suite).items()]
    if json:
        print_json({"file": str(boards_path()), "boards": rows})
    elif rows:
        keep = ("name", "host", "port", "user", "board", "power_mode", "lock_clocks")
        title = f"Boards of {boards_path()}" + (f" and {suite}" if suite else "")
        print_table(title, [{key: row[key] for key in keep} for row in rows])
    else:
        out.print(f"no boards: write them into {boards_path()}")


@boards.command("check")
def boards_check(
    names: Annotated[list[str] | None, typer.Argument(help="Boards; all if left out.")] = None,
    suite: SuiteBoards = None,
    json: Json = False,
) -> None:
    """Connect to boards and say what they are and whether they can be measured on; exit code 1 when one cannot."""
    from depthbench.suites.names import lookup
    from depthbench.suites.targets.jetson import judge, probe
    from depthbench.suites.targets.transport import BoardError

    known = _known_boards(suite)
    rows = []
    for name in names or known:
        entry = lookup("board", name, known)
        try:
            found = probe(entry)
            reason = judge(entry, found)
        except BoardError as error:
            found, reason = {}, str(error)
        rows.append({"name": name, "usable": reason is None, "reason": reason, **found})
    if json:
        print_json({"boards": rows})
    else:
        for row in rows:
            print_table(f"{row['name']}", [{"what": key, "value": value} for key, value in row.items()])
    if not all(row["usable"] for row in rows):
        raise typer.Exit(1)


@bundle.command("make")
def bundle_make(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    board: Annotated[str, typer.Option(help="A Jetson (depthbench targets), a board of your file or of --suite.")],
    out_file: Annotated[Path, typer.Option("-o", "--out", help="The archive to write (.tar.gz).")],
    profile: Profile = "quick",
    suite: SuiteBoards = None,
    json: Json = False,
) -> None:
    """Write an archive with a run's ONNX files; whoever has the board unpacks it there and calls sh run.sh."""
    from depthbench.suites.names import lookup
    from depthbench.suites.storage.disk import writable_file
    from depthbench.suites.targets.board_steps import PROFILES
    from depthbench.suites.targets.bundle import RESULT, make

    made = make(run, board, writable_file(out_file), lookup("profile", profile, PROFILES), boards=boards_of(suite))
    if json:
        print_json({"bundle": str(made.path), "target": made.target, "cells": made.cells, "left_out": made.left_out})
        return
    for line in made.left_out:
        out.print(f"left out: {line}")
    out.print(
        f"{made.path}: {made.cells} files. On the board: tar xzf {made.path.name} && sh depthbench-{made.target}/run.sh, "
        f"and send back depthbench-{made.target}/{RESULT}",
    )


@bundle.command("merge")
def bundle_merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run that the bundle was made from.")],
    result: Annotated[Path, typer.Argument(metavar="FILE", help="What came back from the board.")],
    json: Json = False,
) -> None:
    """Join the measurements of a board into a run; exit code 1 when one of them failed there."""
    from depthbench.suites.targets.bundle import merge

    records = merge(run, result)
    rows = [{"id": r.id, "model": r.model, "recipe": r.recipe, "status": r.status, "reason": r.reason} for r in records]
    if json:
        print_json({"records": rows})
    else:
        print_table(f"{records[0].target}: joined into {run}", rows)
    if any(record.status == "failed" for record in records):
        raise typer.Exit(1)
