"""Small networks and suites that the tests run for real."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the tests' own, shared by the tests of one process, never the user's."""
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("DEPTHBENCH_LOCKS", str(tmp_path_factory.getbasetemp() / "locks"))
