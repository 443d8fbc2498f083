"""A Dask cluster on this machine: a scheduler in this process, workers of one thread in processes of their own."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from depthbench.suites.running.exclusion import MACHINE

if TYPE_CHECKING:
    from distributed import Security, SpecCluster

SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # a run itself tries again what took its process with it
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.daemon": False,  # a data set may be rendered by processes of its own
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,  # it looks at what a worker does a hundred times a second
    # Dask sets these in this process too, where measuring processes would inherit them; and with one of them memory goes back
    # to the system at once, which makes scoring an image half as expensive again
    "distributed.nanny.pre-spawn-environ": {},
}
"""How such a cluster differs from Dask's own choices."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What tells libraries how many threads to use: those of a worker its share of the cores, unless the user has said it."""


@contextmanager
def local_cluster(
    workers: int,
    boards: Sequence[str] = (),
    *,
    measure: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    security: Security | None = None,
) -> Iterator[SpecCluster]:
    """A cluster of ``workers`` processes; the boards are held by its workers in turn, the machine's measuring by the first.

    ``security``: for TLS. A worker that dies is replaced.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Nanny, Scheduler, SpecCluster

    held: list[dict[str, float]] = [{} for _ in range(workers)]
    if measure:
        held[0][MACHINE] = 1
    for number, board in enumerate(boards):
        held[number % workers][f"board:{board}"] = 1
    threads = str(max(1, CPU_COUNT // workers))
    common = {
        "nthreads": 1,
        "memory_limit": None,
        "dashboard": False,
        "silence_logs": logging.CRITICAL,
        "preload": ["depthbench.suites.running.cluster_preload"],
        "security": security,
        "env": {name: os.environ.get(name, threads) for name in _THREADS},
    }
    protocol = "tls" if security is not None else "tcp"
    with dask.config.set(SETTINGS), tempfile.TemporaryDirectory(prefix="depthbench-workers-") as scratch:
        specs = {
            number: {"cls": Nanny, "options": {**common, "resources": resources, "local_directory": scratch}}
            for number, resources in enumerate(held)
        }
        options = {
            "host": host,
            "port": port,
            "protocol": protocol,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",  # its HTTP server, which cannot be left out, takes any port that is free
            "security": security,
        }
        cluster = SpecCluster(
            workers=specs,
            scheduler={"cls": Scheduler, "options": options},
            security=security,
            silence_logs=logging.CRITICAL,
        )
        with cluster:
            yield cluster
