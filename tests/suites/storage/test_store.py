"""The store: whole entries or none, each made once, damage noticed whatever byte it hits."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.results import read_json, write_json
from depthbench.suites.storage import store as store_module
from depthbench.suites.storage.disk import FullDiskError
from depthbench.suites.storage.store import META, Builder, Store

SPAWN = multiprocessing.get_context("spawn")


class Counted:
    def __init__(self, text: str = "content") -> None:
        self.text, self.calls = text, 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        (folder / "file.txt").write_text(self.text)
        return {"number": self.calls}


def entries(store: Store) -> list[str]:
    """What lies in the store's folder and in its place for work."""
    return sorted(path.name for path in [*store.root.glob("[!.]*"), *store.root.glob(".work/*")])


def test_made_once() -> None:
    build = Counted()
    first = Store("once").make("key", build)
    second = Store("once").make("key", build)
    assert build.calls == 1
    assert first == second
    assert first.meta == {"number": 1}
    assert (first.folder / "file.txt").read_text() == "content"
    assert first.seconds is not None
    assert list(Store("once")) == ["key"]
    assert Store("once").holds("key")
    assert not Store("once").holds("other")


def test_a_failed_build_leaves_nothing() -> None:
    store = Store("failed")

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"^no$"):
        store.make("key", fail)
    assert store.get("key") is None
    assert entries(store) == []


def test_folders_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path))

    def build(folder: Path) -> dict[str, Any]:
        (folder / "below").mkdir()
        (folder / "below" / "file").write_bytes(b"1")
        return {}

    entry = Store("deep").make("key", build)
    (entry.folder / "below" / "file").write_bytes(b"2")
    assert Store("deep").fault("key") == "below/file differs"


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_damage_is_warned_of_and_mended(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store, build = Store(f"{damage}s"), Counted()
    path = store.make("0123456789abcdef", build).folder / "file.txt"
    if damage == "flip":
        path.write_text("c0ntent")
    else:
        path.unlink()
    entry = store.make("0123456789abcdef", build)
    fault = {"flip": "differs", "delete": "is missing"}[damage]
    assert [record.getMessage() for record in caplog.records] == [
        f"{damage} 01234567… is damaged (file.txt {fault}): made again"
    ]
    assert caplog.records[0].levelno == logging.WARNING
    assert (entry.folder / "file.txt").read_text() == "content"
    assert build.calls == 2
    assert store.fault("0123456789abcdef") is None


def test_every_byte_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path))
    store = Store("bytes")
    folder = store.make("key", Counted()).folder
    for name in ("file.txt", META):
        whole = (folder / name).read_bytes()
        for place in range(len(whole)):
            (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert store.fault("key") == f"{name} differs", (name, place)
        (folder / name).write_bytes(whole)
        assert store.fault("key") is None
        for cut in (whole[:-1], whole + b"\n", b""):
            (folder / name).write_bytes(cut)
            assert store.fault("key") == f"{name} differs"
        (folder / name).write_bytes(whole)


def test_entries_are_described_without_their_files_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path))
    store = Store("many")
    made = [store.make(key, Counted()) for key in "abc"]
    (made[0].folder / "file.txt").write_text("other")
    (made[1].folder / META).write_text("{")
    assert list(store.described()) == [made[0], made[2]]


def test_an_entry_of_the_first_version_is_read() -> None:
    store = Store("old")
    folder = store.make("key", Counted()).folder
    stored = read_json(folder / META)
    write_json(folder / META, {"meta": stored["meta"], "files": stored["files"]})
    found = store.get("key")
    assert found is not None
    assert (found.meta, found.seconds) == ({"number": 1}, None)


def test_reading_is_use() -> None:
    store = Store("used")
    folder = store.make("key", Counted()).folder
    os.utime(folder, (1000, 1000))
    assert store.get("key") is not None
    assert time.time() - folder.stat().st_mtime < 60


@pytest.mark.parametrize(
    "name", ["../key", "/etc/key", "a/b", "", ".", "..", ".locks", "key\n", "a b", "k;ls", "x" * 201]
)
def test_a_key_names_nothing_outside(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot name a file here \(letters, digits, '_', '-' and '\.' only\)$"):
        Store("safe").make(name, Counted())
    with pytest.raises(ValueError, match="cannot name a file here"):
        Store("safe").get(name)
    with pytest.raises(ValueError, match="cannot name a file here"):
        Store(name)


def test_several_are_made_together() -> None:
    store = Store("together")
    store.make("b", Counted("old"))
    asked: list[Sequence[str]] = []

    def plan(missing: Sequence[str]) -> Mapping[str, Builder]:
        asked.append(missing)
        return {key: Counted(key) for key in missing if key != "c"}

    found = store.make_all(["c", "b", "a", "d", "a"], plan)
    assert asked == [["a", "c", "d"]]
    assert {key: (entry.folder / "file.txt").read_text() for key, entry in found.items()} == {
        "a": "a",
        "b": "old",
        "d": "d",
    }
    assert store.make_all(["a", "b"], plan) == {key: found[key] for key in ("a", "b")}
    assert len(asked) == 1


def _slow(cache: str, log: str, begin: Any, keys: Sequence[str]) -> None:
    """In a process of its own: make entries, noting each build in ``log``."""
    os.environ["DEPTHBENCH_CACHE"] = cache

    def build(folder: Path) -> dict[str, Any]:
        time.sleep(0.3)
        with Path(log).open("a") as file:
            file.write(f"{folder.name.split('@')[0]}\n")
        return {}

    begin.wait()
    Store("race").make_all(keys, lambda missing: dict.fromkeys(missing, build))


def test_processes_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    begin, log = SPAWN.Barrier(3), tmp_path / "builds"
    orders = (["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"])
    processes = [
        SPAWN.Process(target=_slow, args=(str(tmp_path / "cache"), str(log), begin, order)) for order in orders
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(log.read_text().split()) == ["a", "b", "c"]


def _hang(cache: str, ready: str) -> None:
    """In a process of its own: begin an entry and never finish it."""
    os.environ["DEPTHBENCH_CACHE"] = cache

    def build(folder: Path) -> dict[str, Any]:
        (folder / "half").write_bytes(b"half")
        Path(ready).touch()
        time.sleep(600)
        return {}

    Store("killed").make("key", build)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which a process was killed while it made ``key``."""
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    process = SPAWN.Process(target=_hang, args=(str(tmp_path / "cache"), str(tmp_path / "ready")))
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store = Store("killed")
    assert store.tidy() == []  # it is alive
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [name.split("@")[0] for name in entries(store)] == ["key"]
    return store


def test_a_killed_builder_leaves_no_entry_and_its_work_goes(killed: Store) -> None:
    assert killed.get("key") is None
    build = Counted()
    assert killed.make("key", build).meta == {"number": 1}
    assert entries(killed) == ["key"]


def test_what_the_killed_left_can_be_tidied(killed: Store) -> None:
    [left] = killed.tidy()
    assert left.name.startswith("key@")
    assert entries(killed) == []


def _patient(cache: str, begun: str, go: str) -> None:
    """In a process of its own: make an entry that is not finished before ``go`` exists."""
    os.environ["DEPTHBENCH_CACHE"] = cache

    def build(_folder: Path) -> dict[str, Any]:
        Path(begun).touch()
        while not Path(go).exists():
            time.sleep(0.005)
        return {}

    Store("race").make("key", build)


class _Answer(logging.Handler):
    """Writes a file as soon as anything is said."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, _record: logging.LogRecord) -> None:
        self.path.touch()


def test_waiting_for_another_process_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "_PATIENCE_S", 0.05)
    begun, answer = tmp_path / "begun", _Answer(tmp_path / "go")
    process = SPAWN.Process(target=_patient, args=(str(tmp_path / "cache"), str(begun), str(answer.path)))
    process.start()
    while not begun.exists():
        assert process.is_alive()
        time.sleep(0.005)
    store_module.log.addHandler(answer)
    try:
        build = Counted()
        assert Store("race").make("key", build).meta == {}
    finally:
        store_module.log.removeHandler(answer)
    process.join()
    assert build.calls == 0
    assert caplog.messages == ["race key is being made by another process: waiting"]


def test_removed() -> None:
    store, build = Store("removed"), Counted()
    store.make("key", build)
    store.remove("key")
    store.remove("never")
    assert entries(store) == []
    store.make("key", build)
    assert build.calls == 2


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path))
    store = Store("full")

    def build(folder: Path) -> dict[str, Any]:
        (folder / "half").write_bytes(b"half")
        try:
            Path("/dev/full").write_bytes(b"x")
        except OSError as error:
            raise RuntimeError("the exporter failed") from error
        return {}

    with pytest.raises(FullDiskError) as caught:
        store.make("key", build)
    assert str(caught.value) == (
        f"{store.root}: no space left on its disk; what was finished is kept: make room (depthbench cache gc) and run the "
        "same command again to go on"
    )
    assert entries(store) == []


def test_the_description_is_json_for_other_programs() -> None:
    folder = Store("json").make("key", Counted()).folder
    value = json.loads((folder / META).read_text())
    assert list(value) == ["meta", "files", "seconds", "sha256"]
