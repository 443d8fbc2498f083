"""What a measurement was taken on: processor, load, memory, libraries, threads."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil


def now() -> str:
    """The time as an ISO 8601 string in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cpu_model() -> str:
    """Name of the processor as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """The environment of a measurement, JSON-ready; what cannot be read is None."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    frequency = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "cpu_mhz": int(frequency.read_text()) / 1e3 if frequency.is_file() else None,
        "load_1min": os.getloadavg()[0],
        "memory_total_mb": psutil.virtual_memory().total / 1e6,
        "memory_free_mb": psutil.virtual_memory().available / 1e6,
        "system": platform.platform(),
        "python": platform.python_version(),
        "timer_resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "git_revision": _git_revision(),
        "argv": [_movable(argument) for argument in sys.argv[1:]],
    }


def _movable(argument: str) -> str:
    """An argument without the folders of an absolute path: what a run says of itself holds wherever it is moved."""
    return re.sub(r"(^|=)/(?:.*/)?", r"\1", argument)


def _git_revision() -> str | None:
    """Revision of the checkout that this package runs from; None for an installed wheel or without git."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
