"""Rooms are rendered also where no process may be started: by a worker of a Dask cluster."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from depthbench.suites.data import rooms_dataset
from depthbench.suites.data.rooms_dataset import RoomsDataset


def _prepare() -> None:
    RoomsDataset("test", 20).prepare()


def test_a_process_without_children_renders_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(rooms_dataset, "_render_chunk", lambda split, start, path: _note(path, f"{split} {start}"))
    process = multiprocessing.get_context("fork").Process(target=_prepare, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    files = sorted(RoomsDataset("test", 20).folder.iterdir())
    assert [path.read_text() for path in files] == ["test 0", "test 16"]


def _note(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
