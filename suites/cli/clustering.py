"""``depthbench cluster``, and the options of commands that use one; ``depthbench status``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.measuring import SuiteBoards, boards_of
from depthbench.suites.cli.output import err, out, print_json, print_table

if TYPE_CHECKING:
    from depthbench.suites.running.cluster import Scheduler

TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="For tls://: the authority's certificate.")]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="For tls://: this side's certificate.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="For tls://: the key of --tls-cert.")]

cluster = typer.Typer(
    name="cluster", help="A Dask cluster for runs on several processes or machines.", no_args_is_help=True
)


def chosen_scheduler(
    address: str | None, workers: int, ca: Path | None, cert: Path | None, key: Path | None
) -> Scheduler | None:
    """The cluster that options name, or None; ``ValueError`` for options that contradict each other."""
    from depthbench.suites.running.cluster import Scheduler

    if address is None:
        if ca or cert or key:
            raise ValueError("--tls-ca, --tls-cert and --tls-key are for --scheduler tls://HOST:PORT")
        return None
    if workers > 1:
        raise ValueError(f"--workers {workers}: not with --scheduler, whose cluster has workers of its own")
    if not address.startswith(("tcp://", "tls://")):
        raise ValueError(f"--scheduler {address}: not of the form tcp://HOST:PORT or tls://HOST:PORT")
    return Scheduler(address, ca, cert, key)


@cluster.command()
def up(
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; the number of cores if left out.")] = None,
    board: Annotated[
        list[str] | None,
        typer.Option("--board", help="A board of boards.yaml, or of --suite, that this machine drives; repeatable."),
    ] = None,
    suite: SuiteBoards = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others reach it only if it is this machine's own.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any that is free.")] = 8786,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    json: Json = False,
) -> None:
    """Start a cluster on this machine, for depthbench run SUITE --scheduler, until Ctrl-C."""
    from depthbench.suites.running.cluster import Scheduler, quiet
    from depthbench.suites.running.local_cluster import local_cluster

    boards = _boards(board or (), suite)
    scheme = "tls" if tls_ca or tls_cert or tls_key else "tcp"
    security = Scheduler(f"{scheme}://{host}:{port}", tls_ca, tls_cert, tls_key).security()
    count = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with quiet(), local_cluster(count, boards, measure=True, host=host, port=port, security=security) as running:
        address = running.scheduler_address
        if json:
            print_json({"address": address, "workers": count, "boards": boards})
        else:
            out.print(address)
        err.print(f"{count} workers; use it with --scheduler {address}, end it with Ctrl-C")
        asked: list[int] = []
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # also where a shell started this in the background, without Ctrl-C
            signal.signal(number, lambda number, _: asked.append(number))
        while not asked:
            time.sleep(0.2)
    err.print("the cluster has ended")


def _boards(names: Iterable[str], suite: str | None) -> list[str]:
    """``names``, each once; ``ValueError`` for one that no board here has that can be measured on."""
    from depthbench.suites.names import lookup
    from depthbench.suites.targets import TARGETS

    measured = (name for name, target in TARGETS.items() if target.kind == "board" and target.how == "measured")
    known = dict.fromkeys([*measured, *boards_of(suite)])
    for name in names:
        lookup("board", name, known)
    return list(dict.fromkeys(names))


def status(run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], json: Json = False) -> None:
    """Show where a run stands, from any terminal."""
    from depthbench.suites.cli.live import duration
    from depthbench.suites.results import RunFolder
    from depthbench.suites.running.status import read_status

    found = read_status(RunFolder(run_dir))
    if json:
        print_json(found)
        return
    cells = found["cells"]
    counts = ", ".join(f"{cells[name]} {name}" for name in ("ok", "failed", "skipped", "left"))
    left = f", {duration(found['eta_s'])} left" if found["state"] == "running" else ""
    out.print(f"{found['state']}: {cells['total']} cells, {counts}{left}")
    if found["state"] == "running":
        print_table("Stages", [{"stage": name} | _counts(stage) for name, stage in found["stages"].items()])
        for task in found["running"]:
            since = duration(time.time() - task["since"])
            out.print(f"at work since {since}: {task['what']}")
    for failure in found["failures"]:
        out.print(f"failed: {failure['id']}: {failure['reason']}")


def _counts(stage: dict[str, int]) -> dict[str, int]:
    left = stage["total"] - stage["done"] - stage["cached"] - stage["failed"]
    return {name: stage[name] for name in ("done", "running", "failed", "cached")} | {"left": left}
