"""Where the calls of a run are carried out: in this process, in several on this machine, or on a Dask cluster."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

from depthbench.suites.models import ModelSpec
from depthbench.suites.running.cluster import Cluster, Inbox, Scheduler, check_cluster, connected, quiet
from depthbench.suites.running.execution import Call, Done, InProcess, Progress, Workers, perform, reporters
from depthbench.suites.running.local_cluster import local_cluster


@contextmanager
def open_workers(
    workers: int,
    scheduler: Scheduler | None,
    resources: Collection[str],
    models: Sequence[ModelSpec],
    progress: Progress,
) -> Iterator[Workers]:
    """Where a run's calls are carried out: a cluster, ``workers`` processes here, or this process.

    ``resources``: what its calls will hold; ``models``: whose files they will read. ``ValueError`` when the cluster does not
    answer, lacks a resource or has other versions of the libraries.
    """
    if scheduler is not None:
        with quiet(), connected(scheduler) as client:
            travel = check_cluster(client, scheduler.address, resources)
            if travel:
                from depthbench.suites.running.stage_calls import keep_model_file

                for spec in {spec.digest: spec for spec in models if spec.kind == "onnx"}.values():
                    keep_model_file(spec)
            yield Cluster(client, queue.SimpleQueue(), travel=travel)
    elif workers > 1:
        with ExitStack() as stack:
            yield LocalWorkers(workers, stack, progress)
    else:
        yield InProcess(progress)


class LocalWorkers:
    """Processes on this machine, started when there is something to do for them; what measures is done from this one."""

    def __init__(self, workers: int, stack: ExitStack, progress: Progress) -> None:
        self.count = workers
        self._progress = progress
        self._inbox: Inbox = queue.SimpleQueue()
        self._held: set[str] = set()
        self._cluster: Cluster | None = None
        self._stack = stack

    def free(self, call: Call) -> bool:
        """Whether a process has nothing to do, or what the call is to hold is free."""
        if call.resource is not None:
            return call.resource not in self._held
        return self._cluster is None or self._cluster.free(call)

    def submit(self, key: str, call: Call) -> None:
        """Begin a call: in one of the processes, or in a thread of this one when it measures."""
        if call.resource is not None:
            self._held.add(call.resource)
            threading.Thread(target=self._measure, args=(key, call), daemon=True).start()
            return
        if self._cluster is None:
            self._cluster = self._start()
        self._cluster.submit(key, call)

    def ready(self) -> bool:
        """Whether a call is over whose outcome was not asked for."""
        return not self._inbox.empty()

    def next(self) -> tuple[str, Done, bool]:
        """The next call that is over."""
        while True:
            try:
                key, outcome = self._inbox.get(timeout=1)
            except queue.Empty:
                if self._cluster is not None:
                    self._cluster.check()
                continue
            return key, *outcome()

    def _measure(self, key: str, call: Call) -> None:
        future: Future[Done] = Future()
        try:
            future.set_result(perform(call, *reporters(call, self._progress)))
        except BaseException as error:  # raised again where the outcome is asked for
            future.set_exception(error)
        self._inbox.put((key, lambda: self._release(call, future)))

    def _release(self, call: Call, future: Future[Done]) -> tuple[Done, bool]:
        assert call.resource is not None
        self._held.discard(call.resource)
        return future.result(), True

    def _start(self) -> Cluster:
        from distributed import Client

        self._stack.enter_context(quiet())
        cluster = self._stack.enter_context(local_cluster(self.count))
        return Cluster(self._stack.enter_context(Client(cluster, set_as_default=False)), self._inbox, travel=False)
