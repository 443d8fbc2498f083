"""depthbench cache: what is listed, what goes, what is found damaged."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthbench.suites.cli.app import invoke
from depthbench.suites.storage import caches
from depthbench.suites.storage.caches import Item, chosen
from depthbench.suites.storage.store import Store

DAY = 86400.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with something in every part that there is."""
    root = tmp_path / "cache"
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(root))
    for kind, size in (("artefacts", 3000), ("evaluations", 2000), ("gate", 1000), ("sweeps", 500)):
        for key in ("a" * 20, "b" * 20):
            Store(kind).make(key, lambda place, size=size: _write(place, size))  # type: ignore[misc]
    environment = root / "gate" / "environments" / "e1"
    environment.mkdir(parents=True)
    (environment / ".complete").touch()
    (root / "rooms" / "v1" / "test").mkdir(parents=True)
    np.save(root / "rooms" / "v1" / "test" / "000000.npy", np.zeros(10))
    (root / "decoded").mkdir()
    np.save(root / "decoded" / "one.npy", np.zeros(20))
    (root / "calibration").mkdir()
    (root / "calibration" / "desktop-cpu.json").write_text("{}")
    return root


def _write(place: Path, size: int) -> dict[str, Any]:
    (place / "file").write_bytes(bytes(size))
    links = [
        {"stage": "weights", "digest": "d", "options": {"model": "tst-t"}},
        {"stage": "onnx", "digest": "d", "options": {"opset": 17, "size": [64, 96]}},
        {"stage": "int8", "digest": "d", "options": {}},
    ]
    return {"lineage": links}


def say(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert invoke(["cache", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{row['area']}/{row['name'][:1]}" for row in rows)


def test_ls(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    value = say(capsys, "ls")
    assert value["cache"] == str(folder)
    counts = {part["area"]: part["items"] for part in value["areas"]}
    assert counts == {
        "artefacts": 2,
        "calibration": 1,
        "decoded": 1,
        "evaluations": 2,
        "gate": 2,
        "gate/environments": 1,
        "rooms": 1,
        "sweeps": 2,
    }
    items = say(capsys, "ls", "artefacts")["items"]
    assert [item["about"] for item in items] == ["tst-t 64x96 int8"] * 2
    assert all(item["size_mb"] >= 0.003 and item["seconds"] is not None for item in items)
    assert invoke(["cache", "ls"]) == 0
    assert "12 items, " in capsys.readouterr().out
    assert invoke(["cache", "ls", "rooms"]) == 0
    assert "v1/test" in capsys.readouterr().out


def test_an_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["cache", "ls", "artefact"]) == 2
    assert "unknown part of the cache 'artefact'; did you mean artefacts?" in capsys.readouterr().err


def test_gc_by_age(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    old = time.time() - 40 * DAY
    for path in (folder / "artefacts" / ("a" * 20), folder / "evaluations" / ("b" * 20)):
        os.utime(path, (old, old))
    for path in [*(folder / "rooms").rglob("*"), *(folder / "calibration").rglob("*")]:
        os.utime(path, (old, old))
    left = folder / "sweeps" / ".work" / "c@1"
    left.mkdir(parents=True)
    begun, dead = folder / "decoded" / ".one.npy.1.tmp", folder / "decoded" / ".one.npy.2.tmp"
    for path, when in ((begun, time.time()), (dead, old)):
        path.touch()
        os.utime(path, (when, when))
    wanted = ["artefacts/a", "evaluations/b", "rooms/v"]
    assert names(say(capsys, "gc", "--older-than", "30d", "--dry-run")["removed"]) == wanted
    assert (folder / "rooms" / "v1" / "test").exists()
    assert left.exists()
    value = say(capsys, "gc", "--older-than", "30d")
    assert names(value["removed"]) == wanted
    assert value["half_made"] == 2
    assert (left.exists(), dead.exists(), begun.exists()) == (False, False, True)
    assert not Store("artefacts").holds("a" * 20)
    assert Store("artefacts").holds("b" * 20)
    assert not (folder / "rooms" / "v1" / "test").exists()
    assert (folder / "calibration" / "desktop-cpu.json").exists()
    assert say(capsys, "gc", "--older-than", "30d")["removed"] == []
    assert invoke(["cache", "gc", "--older-than", "0m"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("8 items removed, ")
    assert [item.area for item in caches.contents()] == ["calibration"]


def test_gc_by_size_takes_the_longest_unused_first_and_spares_the_last_day() -> None:
    items = [Item("rooms", str(i), Path(), 100, used=i * DAY) for i in range(5)]
    now = 4.5 * DAY
    assert [item.name for item in chosen(items, max_bytes=250, now=now)] == ["0", "1", "2"]
    assert [item.name for item in chosen(items, max_bytes=0, now=now)] == ["0", "1", "2", "3"]
    assert chosen(items, max_bytes=500, now=now) == []
    both = chosen(items, older_than_s=4 * DAY, max_bytes=400, now=now)
    assert [item.name for item in both] == ["0"]
    kept = [Item("calibration", "x", Path(), 100, used=0.0)]
    assert chosen(kept, older_than_s=0, max_bytes=0, now=now) == []


def test_gc_says_when_it_cannot_reach_the_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["cache", "gc", "--max-size", "0.001MB"]) == 0
    assert "still more than 0.001MB: the rest was used in the last day or is never removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "cache gc: give --older-than (30d), --max-size (20GB) or both"),
        (["--older-than", "a month"], "--older-than a month: give a number with a unit (m, h, d, w), for example 30d"),
        (["--max-size", "5"], "--max-size 5: give a number with a unit (MB, GB, TB), for example 20GB"),
        (["--max-size", "-5GB"], "--max-size -5GB: give a number with a unit (MB, GB, TB), for example 20GB"),
    ],
)
def test_gc_refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert invoke(["cache", "gc", *arguments]) == 2
    assert capsys.readouterr().err == f"depthbench: {said}\n"


def test_verify(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert say(capsys, "verify") == {"checked": 12, "damaged": [], "deleted": False}
    before = (folder / "gate" / ("a" * 20)).stat().st_mtime
    for path in (
        folder / "artefacts" / ("a" * 20) / "file",
        folder / "gate" / ("b" * 20) / "meta.json",
        folder / "rooms" / "v1" / "test" / "000000.npy",
    ):
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    damaged = say(capsys, "verify", code=1)["damaged"]
    assert {f"{one['area']}/{one['name'][:1]}": one["fault"] for one in damaged} == {
        "artefacts/a": "file differs",
        "gate/b": "meta.json differs",
        "rooms/v": "000000.npy cannot be read",
    }
    assert (folder / "gate" / ("a" * 20)).stat().st_mtime == before  # to verify is not to use
    assert say(capsys, "verify", "evaluations")["checked"] == 2
    assert invoke(["cache", "verify", "--delete"]) == 1
    assert "12 items checked, 3 damaged and removed" in capsys.readouterr().out
    assert say(capsys, "verify") == {"checked": 9, "damaged": [], "deleted": False}


def test_no_cache_yet(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "none"))
    assert say(capsys, "ls")["areas"] == []
    assert say(capsys, "verify")["checked"] == 0
