"""A real Dask cluster on loopback, with two stand-in boards as its resources: the same records as in this process."""

from __future__ import annotations

import importlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depthbench.suites.results import Record
from depthbench.suites.runner import Outcome, Request, run
from depthbench.suites.running.cluster import Cluster, Scheduler
from depthbench.suites.running.execution import Call
from depthbench.suites.running.local_cluster import local_cluster
from depthbench.suites.running.parcels import pack
from depthbench.suites.schema import parse_suite
from depthbench.suites.storage.store import Store

STANDINS = Path(__file__).parents[1] / "cluster_standins"
SUITE = """
name: clustered
data: {{name: folder}}
matrix:
  - models: [{models}]
    recipes: [fp16]
    sizes: [32x32]
    targets: [stand-in-a, stand-in-b, jetson-nano]
  - models: [{models}]
    recipes: [fp32]
    sizes: [32x32]
    targets: [stand-in-cpu]
"""


@pytest.fixture(autouse=True)
def _standins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DEPTHBENCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / f"{i}.jpg", quality=95)
        Image.fromarray(rng.integers(500, 8000, (32, 32), dtype=np.uint16)).save(root / f"{i}.png")
    return root


def go(
    out: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: Scheduler | None = None,
    files: int = 3,
) -> Outcome:
    """Run the suite on so many files, which lie beside the run."""
    standins = importlib.import_module("cluster_standins")
    names = [standins.network(out.parent / f"net{i}.onnx", 4.0 + i).name for i in range(files)]
    monkeypatch.setenv("STANDIN_LOG", str(out.with_suffix(".log")))
    suite = parse_suite(SUITE.format(models=", ".join(names)), "clustered.yaml", out.parent)
    return run(Request(suite, out, out.parent, data_root=images, scheduler=scheduler), lambda *_: None)


def without_times(record: Record) -> dict[str, Any]:
    return replace(record, timings=None, finished=None, started=None).to_json()


def log_of(out: Path) -> list[tuple[str, float, float]]:
    rows = (line.split() for line in out.with_suffix(".log").read_text().splitlines())
    return [(target, float(begun), float(ended)) for target, _, begun, ended in rows]


def assert_measured_apart(records: Sequence[Record]) -> None:
    """By the records' own times: groups of cells on one board or machine, of which none overlaps another."""
    spans = {}
    for record in records:
        if record.latency is not None and record.latency.kind == "measured":
            assert record.timings is not None
            times = record.timings
            where = record.target if record.target_kind == "board" else times.host
            spans[where, record.target, times.started_s, times.finished_s] = None
    assert spans
    for (place, _, begun, ended), (other, _, b, e) in combinations(spans, 2):
        assert place != other or ended <= b or e <= begun


def assert_cpu_alone(records: Sequence[Record]) -> None:
    """While the machine itself was measured nothing else of the run was, boards included: they are driven from it."""
    times = {(r.target, r.timings.started_s, r.timings.finished_s) for r in records if r.timings is not None}
    for _, begun, ended in [one for one in times if one[0] == "stand-in-cpu"]:
        assert all(ended <= b or e <= begun or name == "stand-in-cpu" for name, b, e in times)


def kill_who_measures(begun: Path, killed: list[int]) -> None:
    """Kill the process that measures a board as soon as it says that it has begun."""
    while not begun.exists() or not begun.read_text().endswith("\n"):
        time.sleep(0.005)
    killed.append(int(begun.read_text().split()[0]))
    os.kill(killed[0], signal.SIGKILL)


def test_a_cluster_gives_the_records_of_one_process(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machines have a cache of their own, which the files travel to; a process is killed while it measures."""
    alone = go(tmp_path / "alone", images, monkeypatch)
    assert [record.status for record in alone.records] == ["ok"] * 12
    (tmp_path / "a.begun").unlink()
    killed: list[int] = []
    killer = threading.Thread(target=kill_who_measures, args=(tmp_path / "a.begun", killed), daemon=True)
    killer.start()
    with ExitStack() as stack:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("DEPTHBENCH_CACHE", str(tmp_path / "theirs"))
            elsewhere.setenv("STANDIN_LOG", str(tmp_path / "run.log"))
            cluster = stack.enter_context(local_cluster(3, ["stand-in-a", "stand-in-b"], measure=True))
        monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "ours"))
        together = go(tmp_path / "run", images, monkeypatch, Scheduler(cluster.scheduler_address))
        killer.join()
    assert list(map(without_times, together.records)) == list(map(without_times, alone.records))
    assert_measured_apart(together.records)
    assert_cpu_alone(together.records)
    pids = {(record.target, record.timings.pid) for record in together.records if record.timings is not None}
    assert os.getpid() not in {pid for _, pid in pids}
    assert ("stand-in-a", killed[0]) not in pids
    assert len((tmp_path / "a.begun").read_text().split()) == 2  # begun again, by another process
    rows = log_of(tmp_path / "run")
    assert len(rows) >= 9
    for (place, begun, ended), (other, b, e) in combinations(rows, 2):  # as the boards themselves saw it
        assert place != other or ended <= b or e <= begun
    for digest in {record.evaluation for record in together.records}:
        assert digest is not None
        one, two = (outcome.folder.evaluation_path(digest).read_bytes() for outcome in (alone, together))
        assert one == two
    for cache in ("theirs", "ours"):
        assert len(list((tmp_path / cache / "artefacts").glob("[!.]*/model.onnx"))) == 6


@pytest.fixture(scope="module")
def bare() -> Iterator[str]:
    """A cluster of one worker without resources."""
    with local_cluster(1) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_that_cannot_measure_is_refused(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, bare: str
) -> None:
    with pytest.raises(
        ValueError, match=r"no worker has the resource board:stand-in-a, .*--resources 'board:stand-in-a=1'$"
    ):
        go(tmp_path / "run", images, monkeypatch, Scheduler(bare))


def test_other_versions_are_refused(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, bare: str) -> None:
    monkeypatch.setattr("depthbench.suites.running.cluster.library_versions", lambda: {"torch": "1.0"})
    monkeypatch.setattr("depthbench.suites.runner.resource_of", lambda _: "x")
    monkeypatch.setattr("depthbench.suites.running.workers.check_cluster", lambda *a: check(*a[:2], ()))
    from depthbench.suites.running.cluster import check_cluster as check

    with pytest.raises(ValueError, match=r"^tcp://127\.0\.0\.1:\d+ has torch [\d.+a-z]+; this run needs torch 1\.0$"):
        go(tmp_path / "run", images, monkeypatch, Scheduler(bare))


def test_where_nothing_answers(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthbench.suites.running.cluster.CONNECT_S", 1)
    with pytest.raises(ValueError, match=r"^tcp://127\.0\.0\.1:1: no Dask scheduler answers \("):
        go(tmp_path / "run", images, monkeypatch, Scheduler("tcp://127.0.0.1:1"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", names, "-keyout", files[1], "-out", files[0]], check=True, capture_output=True)
    return files


def test_a_worker_dies_while_an_entry_of_the_store_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped first, so that the entry cannot have arrived; the entry goes to the worker that takes its place."""
    from distributed import Client

    place = ("artefacts", "0" * 20)
    Store(place[0]).make(place[1], network)
    with ExitStack() as stack:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("DEPTHBENCH_CACHE", str(tmp_path / "theirs"))
            cluster = stack.enter_context(local_cluster(1))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        [worker] = client.run(os.getpid).values()
        os.kill(worker, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
        workers = Cluster(client, queue.SimpleQueue(), travel=True)
        workers.submit("read", Call("reading", pack, (place,), needs=(place,)))
        key, done, again = workers.next()
        assert (key, done.reason, again) == ("read", None, True)
        assert done.value.files == {"model.onnx": b"a network"}
        assert done.timings.pid != worker


def test_where_no_worker_comes_back_the_run_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client

    place = ("artefacts", "0" * 20)
    Store(place[0]).make(place[1], network)
    monkeypatch.setattr("depthbench.suites.running.cluster.PATIENCE_S", 0.5)
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        workers = Cluster(client, queue.SimpleQueue(), travel=True)
        cluster.scale(0)
        cluster.sync(cluster._correct_state)
        with pytest.raises(ValueError, match=r"worker.*what was finished is kept: run the same command again$"):
            workers.submit("read", Call("reading", pack, (place,), needs=(place,)))


def network(folder: Path) -> dict[str, Any]:
    """Write an entry of the store."""
    (folder / "model.onnx").write_bytes(b"a network")
    return {}


def test_tls(certificate: tuple[Path, Path]) -> None:
    from depthbench.suites.running.cluster import check_cluster, connected

    cert, key = certificate
    with_files = Scheduler("tls://127.0.0.1:0", cert, cert, key)
    with local_cluster(1, security=with_files.security()) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with connected(replace(with_files, address=cluster.scheduler_address)) as client:
            assert check_cluster(client, cluster.scheduler_address, ()) is False
        plain = cluster.scheduler_address.replace("tls", "tcp")
        with pytest.raises(ValueError, match="no Dask scheduler answers"), connected(Scheduler(plain)):
            pass


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (Scheduler("tls://h:1"), "tls://h:1: needs --tls-ca, --tls-cert, --tls-key"),
        (
            Scheduler("tcp://h:1", Path("a")),
            "--tls-ca: for an address that begins with tls://, not for tcp://h:1",
        ),
        (Scheduler("tls://h:1", Path("/no/a"), Path("/no/b"), Path("/no/c")), "--tls-ca /no/a: no such file"),
    ],
)
def test_faults_of_tls_options(scheduler: Scheduler, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        scheduler.security()
