"""The store: whole entries or none, each made once, damage noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.store import Store


class Builder:
    def __init__(self, text: str = "content") -> None:
        self.text, self.calls = text, 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        (folder / "file.txt").write_text(self.text)
        return {"number": self.calls}


def test_made_once() -> None:
    build = Builder()
    first = Store("once").make("key", build)
    second = Store("once").make("key", build)
    assert build.calls == 1
    assert first == second
    assert first.meta == {"number": 1}
    assert (first.folder / "file.txt").read_text() == "content"


def test_a_failed_build_leaves_nothing() -> None:
    store = Store("failed")

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"^no$"):
        store.make("key", fail)
    assert store.get("key") is None
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_damage_is_noticed_and_mended(damage: str) -> None:
    store, build = Store(f"damage-{damage}"), Builder()
    path = store.make("key", build).folder / "file.txt"
    if damage == "flip":
        path.write_text("c0ntent")
    else:
        path.unlink()
    assert store.get("key") is None
    assert (store.make("key", build).folder / "file.txt").read_text() == "content"
    assert build.calls == 2


def test_another_process_was_faster() -> None:
    store = Store("race")
    inner, outer = Builder("inner"), Builder("outer")

    def build(folder: Path) -> dict[str, Any]:
        store.make("key", inner)
        return outer(folder)

    assert (store.make("key", build).folder / "file.txt").read_text() == "inner"
    assert [path.name for path in store.root.iterdir()] == ["key"]
