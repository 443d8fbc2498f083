"""What pytest-benchmark's files need for a gate to read them: the libraries, and raw times."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Times under another runtime are not compared."""
    del config
    machine_info["libraries"] = {name: version(name) for name in ("onnxruntime", "torch", "numpy")}
