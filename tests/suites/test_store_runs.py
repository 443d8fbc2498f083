"""Runs and the store they share: damage found and mended, two runs at once, a run that is moved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from depthbench.suites.results import Record, RunFolder
from depthbench.suites.runner import Outcome, Request, run
from depthbench.suites.schema import load_suite
from depthbench.suites.storage.store import META, Store
from depthbench.suites.targets import desktop_cpu
from depthbench.suites.targets.desktop_cpu import MeasureProfile
from tests.benchmarks.broken_runs import prepare, timeless

TINY = MeasureProfile(seconds=0.05, samples=10, block_s=0.01, warmup_s=0.01, warmup_runs=10)
KINDS = {"trained": 1, "networks": 1, "artefacts": 5, "evaluations": 5}
"""Entries that the suite has of each kind."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the suite, its network and its images; the cache is the test's own."""
    folder = tmp_path / "work"
    prepare(folder)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("tiny_net", None)


def go(work: Path, out: Path) -> Outcome:
    suite, base = load_suite(str(work / "kills.yaml"))
    return run(Request(suite, out, base, work / "images"), lambda *_: None)


def flip(path: Path, place: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1
    path.write_bytes(whole)


def without_times(records: list[Record]) -> list[object]:
    return [timeless(record.to_json()) for record in records]


def test_one_flipped_byte_in_any_file_is_found_and_what_it_was_in_is_made_again(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = go(work, tmp_path / "first")
    files = {}
    for kind, count in KINDS.items():
        entries = [Store(kind).root / key for key in Store(kind)]
        assert len(entries) == count, kind
        files[kind] = sorted(path.name for path in entries[0].iterdir())
    assert files == {
        "trained": ["log.jsonl", META, "weights.safetensors"],
        "networks": [META, "network.safetensors"],
        "artefacts": [META, "model.onnx"],
        "evaluations": [META, "metrics.json", "samples.npz"],
    }
    for turn in range(max(map(len, files.values()))):
        expected = []
        for kind, names in files.items():
            name = names[turn % len(names)]
            for key in Store(kind):
                flip(Store(kind).root / key / name, 1009 * (turn + 1))
                assert Store(kind).fault(key) == f"{name} differs"
                label = kind.removesuffix("s")
                expected.append(f"{label} {key[:8]}… is damaged ({name} differs): made again")
        caplog.clear()
        again = go(work, tmp_path / f"again-{turn}")
        assert sorted(caplog.messages) == sorted(expected)
        assert {kind: len(list(Store(kind))) for kind in KINDS} == KINDS
        assert [Store(kind).fault(key) for kind in KINDS for key in Store(kind)] == [None] * sum(KINDS.values())
        assert without_times(again.records) == without_times(first.records)


DRIVER = """
import os, sys
from depthbench.suites.storage import store
from depthbench.suites.cli import running
from depthbench.suites.cli.app import invoke
from depthbench.suites.targets import desktop_cpu

build = store.Store._build

def counted(self, key, *rest):
    with open(sys.argv[1], "a") as file:
        file.write(f"{self.kind} {key}\\n")
    return build(self, key, *rest)

store.Store._build = counted
desktop_cpu.PROFILES["quick"] = desktop_cpu.MeasureProfile(0.05, 10, block_s=0.01, warmup_s=0.01, warmup_runs=10)
running._report_if_changed = lambda run: run
sys.exit(invoke(["run", "kills.yaml", "--out", sys.argv[2], "--data-root", "images", "--workers", "1", "--json"]))
"""


def test_two_runs_at_once_make_each_artefact_once(work: Path, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(builds), str(tmp_path / name)],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert [json.loads(output)["computed"] for output, _ in said] == [7, 7]
    made = Counter(builds.read_text().splitlines())
    assert set(made.values()) == {1}, made
    assert Counter(line.split()[0] for line in made) == {**KINDS, "checked": 2}  # test and training split
    one, two = (list(RunFolder(tmp_path / name).records()) for name in ("one", "two"))
    assert without_times(one) == without_times(two)


def test_a_run_that_is_moved_still_reports(work: Path, tmp_path: Path) -> None:
    outcome = go(work, tmp_path / "run")
    for path in sorted((tmp_path / "run").rglob("*")):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    elsewhere = tmp_path / "elsewhere" / "a run"
    elsewhere.parent.mkdir()
    (tmp_path / "run").rename(elsewhere)
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(work)
    command = [
        sys.executable,
        "-c",
        "from depthbench.suites.cli import main; main()",
        "report",
        str(elsewhere),
        "--json",
    ]
    environment = {**os.environ, "DEPTHBENCH_CACHE": str(tmp_path / "other"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    page = Path(json.loads(done.stdout)["report"])
    assert page == elsewhere / "report" / "report.html"
    text = page.read_text()
    assert all(record.model in text for record in outcome.records)
    assert str(tmp_path / "run") not in text


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the script finds with a few kills, and with full disks where file systems may be mounted."""
    folder = tmp_path_factory.mktemp("kills")
    mounts = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs tmpfs {folder}"]
    may_mount = subprocess.run(mounts, capture_output=True, check=False).returncode == 0
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    command = [sys.executable, str(script), "--kills", "3", "--full-disks", "1" if may_mount else "0"]
    done = subprocess.run(
        [*command, "--out", str(folder / "found.json")], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode in {0, 1}, done.stderr
    value: dict[str, object] = json.loads((folder / "found.json").read_text())
    return value


def test_a_killed_run_ends_as_an_unbroken_one(killed: dict[str, object]) -> None:
    assert killed["wrong"] == []
    assert killed["by_stage"] == {"train": 1, "export": 1, "evaluate": 1}
    assert killed["cells"] == 7


def test_a_full_disk_loses_nothing(killed: dict[str, object]) -> None:
    if not killed["full_disks"]:
        pytest.skip("file systems cannot be mounted here (neither root nor unshare -rm)")
    [found] = killed["full_disks"]  # type: ignore[misc]
    assert len(found["said"]) == 1
    assert found["said"][0].startswith("depthbench: ")
    assert "no space left on its disk; what was finished is kept" in found["said"][0]
