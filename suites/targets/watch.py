"""What else the machine does while something is measured on it: other processes, clocks, energy."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

FOREIGN_CORES = 0.25
FOREIGN_SHARE = 0.1
FOREIGN_MOST = 0.75
"""A round is busy when other processes keep more than a quarter of a core, or a tenth of all, at work; always when they keep
more than three quarters of a core, so that one working process is seen on any machine."""

CONTAMINATED = 0.1
"""A measurement is contaminated when more than this share of its rounds was busy."""

DROPPED = 0.95
"""Clocks have dropped when the median of the second half of the rounds is below this share of the first half's."""

RAPL = Path("/sys/class/powercap")


def busy_s() -> float:
    """Seconds that all processors together have been busy since the start, whoever used them."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests' time is counted in user's already
    return float(sum(value for name, value in times.items() if name not in idle))


class ForeignLoad:
    """How much of the machine others use, from its making on."""

    def __init__(self) -> None:
        self._busy, self._wall, self._own = busy_s(), time.perf_counter(), time.process_time()

    def cores(self, used_s: float) -> float:
        """Cores that other processes have kept at work; ``used_s``: processor seconds that the measured ones took meanwhile."""
        used = used_s + time.process_time() - self._own
        return max(0.0, (busy_s() - self._busy - used) / (time.perf_counter() - self._wall))


def is_busy(foreign_cores: float) -> bool:
    """Whether others used so much in a round that it counts as busy."""
    return foreign_cores > min(max(FOREIGN_CORES, FOREIGN_SHARE * (os.cpu_count() or 1)), FOREIGN_MOST)


def contaminated(foreign_cores: Sequence[float]) -> bool:
    """Whether too many rounds had foreign load, from the cores that others used in each."""
    return sum(is_busy(cores) for cores in foreign_cores) > CONTAMINATED * len(foreign_cores)


def cpu_mhz(root: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """The highest clock that a processor has now, in MHz; None where it cannot be read."""
    clocks = [int(path.read_text()) / 1e3 for path in root.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max(clocks) if clocks else None


def throttled(clocks_mhz: Sequence[float]) -> bool:
    """Whether the clocks fell between the first and the second half of a measurement."""
    if len(clocks_mhz) < 4:
        return False
    half = len(clocks_mhz) // 2
    first, second = sorted(clocks_mhz[:half]), sorted(clocks_mhz[half:])
    return second[len(second) // 2] < DROPPED * first[len(first) // 2]


def _is_package(zone: Path) -> bool:
    name = zone / "name"
    return not name.is_file() or name.read_text().startswith("package")


class EnergyCounter:
    """RAPL's counter of the processor packages. ``absent``: why there is none, or None."""

    def __init__(self, root: Path = RAPL) -> None:
        self.absent: str | None = None
        # beside packages there may be psys, which holds them
        packages = [path for path in root.glob("intel-rapl:[0-9]*") if path.name.count(":") == 1 and _is_package(path)]
        self._files = sorted(path / "energy_uj" for path in packages)
        if not self._files:
            self.absent = "this machine offers no energy counter (no RAPL)"
        elif not all(os.access(path, os.R_OK) for path in self._files):
            self.absent = "the energy counter (RAPL) may be read by root alone"

    def read_uj(self) -> list[int]:
        """Microjoules of each package since some moment; empty without a counter."""
        return [] if self.absent else [int(path.read_text()) for path in self._files]

    def spent_mj(self, before: Sequence[int]) -> float:
        """Millijoules of all packages since ``before``; a counter that has run over begins at its range again."""
        total = 0
        for path, old, new in zip(self._files, before, self.read_uj(), strict=True):
            wrapped = int((path.parent / "max_energy_range_uj").read_text()) if new < old else 0
            total += new + wrapped - old
        return total / 1e3
