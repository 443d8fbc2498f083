"""``depthbench run`` as a process: Ctrl-C, going on, what fails, its status from outside; and ``depthbench cluster``."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.console import Console

from depthbench.suites.cli.app import invoke
from depthbench.suites.cli.live import LiveRun, PlainRun, line
from depthbench.suites.runner import Outcome, Request, run
from depthbench.suites.running.cluster import Scheduler
from depthbench.suites.running.status import AtWork, Stage, Status
from depthbench.suites.schema import load_suite

STANDINS = Path(__file__).parents[1] / "cluster_standins"
SUITE = """
name: ours
data: {name: folder}
matrix:
  - models: [a.onnx, b.onnx]
    recipes: [fp16]
    sizes: [32x32]
    targets: [jetson-nano, stand-in-a]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite, its files and images."""
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEPTHBENCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import cluster_standins  # type: ignore[import-not-found]

    for number, name in enumerate("ab"):
        cluster_standins.network(tmp_path / f"{name}.onnx", 4.0 + number)
    (tmp_path / "images").mkdir()
    for i in range(16):
        Image.fromarray(np.full((32, 32, 3), 60 + i, np.uint8)).save(tmp_path / "images" / f"{i}.jpg")
        Image.fromarray(np.full((32, 32), 2000 + i, np.uint16)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "ours.yaml").write_text(SUITE)
    return tmp_path


def start(place: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from depthbench.suites.cli import main; main()", *words],
        cwd=place,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


RUN = ("run", "ours.yaml", "--out", "run", "--data-root", "images")


def status(place: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert invoke(["status", str(place / "run"), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def status_with(place: Path, capsys: pytest.CaptureFixture[str], ok: int) -> dict[str, Any]:
    """The status as soon as so many cells are ok."""
    end = time.monotonic() + 30
    while (found := status(place, capsys))["cells"]["ok"] < ok and time.monotonic() < end:
        time.sleep(0.02)
    return found


def gone_on(place: Path, scheduler: Scheduler | None = None) -> Outcome:
    """The rest of the run, without its report."""
    suite, base = load_suite(str(place / "ours.yaml"))
    return run(Request(suite, place / "run", base, place / "images", scheduler=scheduler), lambda *_: None)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_stopped_by_ctrl_c_and_gone_on_with(place: Path, capsys: pytest.CaptureFixture[str], workers: str) -> None:
    process = start(place, *RUN, "--workers", workers, STANDIN_EACH_S="60")
    wait_for(place / "a.begun", process)
    during = status_with(place, capsys, ok=2)  # with two workers, what is predicted may come after the board has begun
    assert during["state"] == "running"
    assert during["pid"] == process.pid
    assert during["cells"] == {"total": 4, "ok": 2, "failed": 0, "skipped": 0, "left": 2}
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the run
    output, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    assert messages.splitlines()[-2:] == [
        "depthbench: stopping; once more to stop at once",
        "depthbench: interrupted; what was finished is kept, run the same command again to go on",
    ]
    assert "Traceback" not in messages
    after = status(place, capsys)
    assert after["state"] == "stopped"
    assert after["cells"] == during["cells"]
    assert after["running"] == []

    outcome = gone_on(place)
    assert (len(outcome.records), outcome.computed) == (4, 2)
    assert {record.status for record in outcome.records} == {"ok"}
    assert status(place, capsys)["state"] == "finished"


def test_a_second_ctrl_c_ends_at_once(place: Path) -> None:
    process = start(place, *RUN, STANDIN_EACH_S="60", STANDIN_DEAF="1")
    wait_for(place / "a.begun", process)
    process.send_signal(signal.SIGINT)
    wait_for(place / "a.deaf", process)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 130
    assert messages.endswith("depthbench: stopping; once more to stop at once\n")


def test_a_killed_run_is_said_to_be_stopped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(place, *RUN, STANDIN_EACH_S="60")
    wait_for(place / "a.begun", process)
    process.kill()
    process.communicate()
    found = status(place, capsys)
    assert (found["state"], found["running"], found["eta_s"]) == ("stopped", [], None)


def test_what_failed_is_named_and_the_code_is_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = onnx.load(place / "b.onnx")
    broken.graph.node[0].op_type = "Nowhere"  # a whole file of a network that nothing runs
    onnx.save(broken, place / "b.onnx")
    process = start(place, *RUN)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 1, messages
    named = [line for line in messages.splitlines() if line.startswith("failed: ")]
    assert named, messages
    assert [line.partition(": artefacts: ")[0] for line in named] == [
        "failed: b/fp16/32x32/jetson-nano",
        "failed: b/fp16/32x32/stand-in-a",
    ]
    found = status(place, capsys)
    assert found["cells"] == {"total": 4, "ok": 2, "failed": 2, "skipped": 0, "left": 0}
    assert [failure["reason"].startswith("artefacts: ") for failure in found["failures"]] == [True, True]
    assert invoke(["status", str(place / "run")]) == 0
    assert capsys.readouterr().out.startswith("finished: 4 cells, 2 ok, 2 failed, 0 skipped, 0 left\nfailed: ")


LAB = """
name: lab
data: {name: rooms}
boards: {lab-nano: {host: 192.0.2.7, board: jetson-nano}}
matrix: [{models: [tst-t], recipes: [fp16], sizes: [224x224], targets: [lab-nano]}]
"""


@pytest.fixture
def cluster(place: Path) -> Iterator[str]:
    """The address of a cluster that was started by the command."""
    (place / "lab.yaml").write_text(LAB)
    boards = ("--board", "stand-in-a", "--board", "lab-nano", "--suite", "lab.yaml")
    process = start(place, "cluster", "up", "--workers", "1", *boards, "--port", "0", "--json")
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, process.communicate()
        text += line
    said = json.loads(text)
    assert (said["workers"], said["boards"]) == (1, ["stand-in-a", "lab-nano"])
    yield said["address"]
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert messages.splitlines()[-1] == "the cluster has ended"


def test_a_run_on_a_cluster_of_the_command(place: Path, cluster: str) -> None:
    outcome = gone_on(place, Scheduler(cluster))
    assert [record.status for record in outcome.records] == ["ok"] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--scheduler", "10.0.0.1:8786"),
            "--scheduler 10.0.0.1:8786: not of the form tcp://HOST:PORT or tls://HOST:PORT",
        ),
        (
            ("--scheduler", "tcp://10.0.0.1:8786", "--workers", "2"),
            "--workers 2: not with --scheduler, whose cluster has workers of its own",
        ),
        (("--tls-ca", "a"), "--tls-ca, --tls-cert and --tls-key are for --scheduler tls://HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert invoke(["run", str(place / "ours.yaml"), "--out", str(place / "run"), *words]) == 2
    assert " ".join(capsys.readouterr().err.split()) == f"depthbench: {message}"


def test_a_board_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["cluster", "up", "--board", "nano-7"]) == 2
    assert capsys.readouterr().err.startswith("depthbench: unknown board 'nano-7'")


def test_no_run_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["status", str(tmp_path)]) == 2
    assert "no run here (there is no run.json)" in capsys.readouterr().err


@pytest.fixture
def halfway() -> Status:
    """A run of ten cells at half past."""
    stages = {"accuracy": Stage(total=4, done=2, failed=1, running=1, seconds=60.0), "latency": Stage(total=1)}
    status = Status(
        10, 2, stages=stages, running={"a": AtWork("accuracy", "accuracy of 2 files on rooms", time.time())}
    )
    status.cells.update({"ok": 3, "kept": 2, "failed": 1, "skipped": 1})
    return status


def test_what_a_terminal_shows(halfway: Status) -> None:
    view = LiveRun()
    view.look(halfway)
    view("training full-seed0", 0.25, 1)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(view)
    shown = [" ".join(text.split()) for text in console.export_text().splitlines()]
    assert shown == [
        "cells: 7 of 10, 4 done, 1 failed, 2 from before, 1 at work, 45 s left",  # half of one task's 30 s, and 30 s
        "done running failed cached left",
        "accuracy 2 1 1 1",
        "latency 1",
        "accuracy of 2 files on rooms",
        "training full-seed0: 25%",
    ]


def test_what_is_said_elsewhere(halfway: Status, capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainRun()
    for share in (0.0, 0.05, 0.1, 0.11, 0.3, 1.0, 1.0):
        view("images", share, 1)
    view.look(halfway)
    halfway.cells["ok"] += 1
    view.look(halfway)
    halfway.cells["ok"] += 2
    halfway.running.clear()
    view.look(halfway)
    said = capsys.readouterr().err.splitlines()
    assert said[:4] == ["images: 0%", "images: 10%", "images: 30%", "images: 100%"]
    assert said[4].startswith("cells: 7 of 10, ")
    assert said[5].startswith("cells: 8 of 10, ")
    assert said[6:] == ["cells: 10 of 10, 7 done, 1 failed, 2 from before"]
    assert line(Status(3, 1)) == "cells: 0 of 3, 0 done, 0 failed"
