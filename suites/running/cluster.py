"""The workers of a Dask cluster.

Dask gives the tasks of a process that died to another one; one that takes too many processes with it has failed. Where
machines do not share a cache folder, the entries of the store that a task reads and writes travel with it.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.plan import library_versions
from depthbench.suites.running.execution import Call, Done, StoreKey, described, perform
from depthbench.suites.running.parcels import Parcel, pack
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.disk import FullDiskError

if TYPE_CHECKING:
    from distributed import Client, Future, Security

CONNECT_S = 20
PATIENCE_S = 60.0
"""How long a run waits for a worker, or for the one that holds a board, to come back before it gives up."""
_DASKS_OWN = "MALLOC_TRIM_THRESHOLD_"
"""What Dask sets for workers, unless told otherwise: memory goes back to the system at once, and has to be asked for again."""
_PARCELS = 32
"""Entries of the store that are kept on the cluster for the next task that needs them."""


@dataclass(frozen=True)
class Scheduler:
    """Where a Dask cluster is reached, and the files for TLS: the authority's certificate, one's own, and its key."""

    address: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def security(self) -> Security | None:
        """For Dask; ``ValueError`` when files are missing or do not fit the address."""
        from distributed import Security

        files = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        given = {name: path for name, path in files.items() if path is not None}
        if not self.address.startswith("tls://"):
            if given:
                raise ValueError(f"{', '.join(given)}: for an address that begins with tls://, not for {self.address}")
            return None
        if missing := [name for name in files if name not in given]:
            raise ValueError(f"{self.address}: needs {', '.join(missing)}")
        for name, path in given.items():
            if not path.is_file():
                raise ValueError(f"{name} {path}: no such file")
        certificates: dict[str, Any] = {"tls_ca_file": str(self.tls_ca)}
        for role in ("client", "scheduler", "worker"):
            certificates |= {f"tls_{role}_cert": str(self.tls_cert), f"tls_{role}_key": str(self.tls_key)}
        return Security(require_encryption=True, **certificates)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Dask's own remarks: what goes wrong is said by the run."""
    import distributed  # noqa: F401  # sets the levels when it is imported

    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def connected(scheduler: Scheduler) -> Iterator[Client]:
    """A client of a cluster; ``ValueError`` when nothing answers at its address."""
    import dask
    from distributed import Client

    security = scheduler.security()
    with dask.config.set({"distributed.comm.timeouts.connect": CONNECT_S}):
        try:
            client = Client(scheduler.address, security=security, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ValueError(f"{scheduler.address}: no Dask scheduler answers ({described(error)})") from None
        with client:
            yield client


def check_cluster(client: Client, address: str, resources: Collection[str]) -> bool:
    """Whether entries of the store have to travel. ``ValueError`` when a cluster cannot do a run's work."""
    known = client.scheduler_info()["workers"]
    if not known:
        raise ValueError(f"{address}: this cluster has no worker; start one with: dask worker {address} --nthreads 1")
    for resource in sorted(resources):
        holders = [name for name, worker in known.items() if worker["resources"].get(resource)]
        if not holders:
            raise ValueError(
                f"{address}: no worker has the resource {resource}, which this suite measures with; start one with: "
                f"dask worker {address} --nthreads 1 --resources '{resource}=1'"
            )
        if resource.startswith("board:") and len(holders) > 1:
            raise ValueError(f"{address}: {len(holders)} workers have {resource}; a board belongs to one of them")
    probe = cache_dir() / f".probe-{secrets.token_hex(8)}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    try:
        answers = client.run(_look_around, probe.name)
    except Exception as error:  # what a worker without this package raises is the worker's
        raise ValueError(f"{address}: its workers cannot do this work ({described(error)})") from None
    finally:
        probe.unlink()
    here = library_versions()
    for worker, (there, _) in answers.items():
        if differing := [name for name in here if there.get(name) != here[name]]:
            theirs, ours = (", ".join(f"{name} {one.get(name)}" for name in differing) for one in (there, here))
            raise ValueError(f"{worker} has {theirs}; this run needs {ours}")
    return not all(shared for _, shared in answers.values())


def _look_around(name: str) -> tuple[dict[str, str], bool]:
    """On a worker: its versions, and whether its cache folder is the one that holds ``name``."""
    return library_versions(), (cache_dir() / name).exists()


def carried_out(call: Call, parcels: Sequence[Parcel], travel: bool) -> tuple[Done, list[Parcel]]:
    """On a worker: carry out a call, with the entries of the store that came for it; those that it made go back."""
    os.environ.pop(_DASKS_OWN, None)  # a process that measures would inherit it
    for parcel in parcels:
        parcel.unpack()
    done = perform(call)
    made = [pack(place) for place in call.makes] if travel else []
    return done, [parcel for parcel in made if parcel is not None]


Inbox = queue.SimpleQueue[tuple[str, Callable[[], tuple[Done, bool]]]]
"""What is over: its key, and a function that says what became of it."""


class Cluster:
    """The workers of a Dask cluster."""

    def __init__(self, client: Client, inbox: Inbox, *, travel: bool) -> None:
        self._client = client
        self._inbox = inbox
        self._travel = travel
        self._busy: dict[str, tuple[Call, Future[Any]]] = {}
        self._sent: OrderedDict[StoreKey, Future[Any]] = OrderedDict()
        self._slots = 0
        self._looked = 0.0
        self._missing: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many calls it carries out at a time."""
        self._look()
        return max(1, self._slots)

    def free(self, call: Call) -> bool:
        """Whether a worker has nothing to do, or what the call is to hold is free."""
        if call.resource is not None:
            return all(other.resource != call.resource for other, _ in self._busy.values())
        return sum(other.resource is None for other, _ in self._busy.values()) < self.count

    def submit(self, key: str, call: Call) -> None:
        """Hand a call to the scheduler."""
        parcels = [sent for place in call.needs if (sent := self._send(place)) is not None] if self._travel else []
        future = self._client.submit(
            carried_out,
            call,
            parcels,
            self._travel,
            key=f"{key[:80]} {secrets.token_hex(6)}",
            pure=False,
            resources={call.resource: 1} if call.resource else None,
        )
        self._busy[key] = call, future
        future.add_done_callback(lambda over: self._inbox.put((key, lambda: self._outcome(key, over))))

    def ready(self) -> bool:
        """Whether a call is over whose outcome was not asked for."""
        return not self._inbox.empty()

    def next(self) -> tuple[str, Done, bool]:
        """The next call that is over."""
        while True:
            try:
                key, outcome = self._inbox.get(timeout=1)
            except queue.Empty:
                self.check()
                continue
            return key, *outcome()

    def check(self) -> None:
        """``ValueError`` when nobody is left to do the work; a call that nobody can do any more fails."""
        self._look()
        for call, future in list(self._busy.values()):
            if call.resource in self._missing and time.monotonic() - self._missing[call.resource] > PATIENCE_S:
                future.cancel(msg=f"no worker has the resource {call.resource} any more")

    def _look(self) -> None:
        """What the cluster has now; asked at most once a second."""
        if time.monotonic() - self._looked < 1:
            return
        try:
            workers = self._client.scheduler_info()["workers"].values()
        except (OSError, TimeoutError) as error:
            raise ValueError(
                f"the Dask scheduler is gone ({described(error)}); what was finished is kept: run the same command again"
            ) from None
        self._looked = time.monotonic()
        self._slots = sum(worker["nthreads"] for worker in workers)
        there = {name for worker in workers for name, amount in worker["resources"].items() if amount}
        wanted = {call.resource for call, _ in self._busy.values() if call.resource}
        gone = wanted - there | ({""} if not workers else set())
        self._missing = {name: self._missing.get(name, self._looked) for name in gone}
        if "" in self._missing and self._looked - self._missing[""] > PATIENCE_S:
            raise ValueError(
                "no worker is left at the Dask scheduler; what was finished is kept: run the same command again"
            )

    def _send(self, place: StoreKey) -> Future[Any] | None:
        """An entry of this machine's store, on the cluster."""
        if place not in self._sent:
            parcel = pack(place)
            if parcel is None:
                return None
            self._sent[place] = self._scattered(parcel)
        self._sent.move_to_end(place)
        while len(self._sent) > _PARCELS:
            self._sent.popitem(last=False)
        return self._sent[place]

    def _scattered(self, parcel: Parcel) -> Future[Any]:
        """A parcel on one of the workers; sent again when that one dies meanwhile, which Dask says as a lost connection."""
        begun = time.monotonic()
        while True:
            try:
                sent: Future[Any] = self._client.scatter(parcel, hash=False, timeout=1)  # for a worker
                return sent
            except OSError as error:  # a timeout among them, while no worker is there
                if time.monotonic() - begun > PATIENCE_S:
                    raise ValueError(
                        f"nothing reaches a worker of the Dask cluster any more ({described(error)}); what was finished is"
                        " kept: run the same command again"
                    ) from None
                self._look()
                time.sleep(0.2)

    def _outcome(self, key: str, future: Future[Any]) -> tuple[Done, bool]:
        from distributed import KilledWorker

        call, _ = self._busy.pop(key)
        try:
            done, parcels = future.result()
        except KilledWorker as error:  # of a cluster that was started here at the first death, else after several
            self._looked = 0.0
            self._sent.clear()  # what it held is lost; what is tried again takes its entries along anew
            several = f", {error.allowed_failures + 1} times" if error.allowed_failures else ""
            reason = f"the process that worked on it died{several} (killed, out of memory or crashed)"
            return Done(reason=reason), not several
        except FullDiskError:
            raise
        except Exception as error:  # a lost connection, or what came with the call was lost
            for place in call.needs:
                self._sent.pop(place, None)
            return Done(reason=described(error)), True
        for parcel in parcels:
            parcel.unpack()
        return done, True
