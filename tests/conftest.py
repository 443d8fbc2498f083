"""Real images, for the tests that need some."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A file or folder below ``DEPTHBENCH_DATA``; where it is not there, the test that asks for it skips and says so."""

    def find(name: str) -> Path:
        base = os.environ.get("DEPTHBENCH_DATA")
        if not base:
            pytest.skip(f"DEPTHBENCH_DATA is not set: no {name}")
        path = Path(base) / name
        if not path.exists():
            pytest.skip(f"DEPTHBENCH_DATA has no {name}")
        return path

    return find
