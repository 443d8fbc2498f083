"""What ``tegrastats`` prints, of every JetPack from 4 to 6: loads, clocks, temperatures and power, a line a sample.

``GR3D_FREQ 99%@921`` (JetPack 4), ``99%@[1377]`` or ``99%@[1300,1300]`` (5, 6), without a clock where it needs root;
``POM_5V_IN 1750/1628`` (JetPack 4: milliwatts now/average), ``VDD_IN 4970mW/4970mW`` (5, 6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GPU = re.compile(r"GR3D_FREQ (\d+)%(?:@\[?(\d+))?")
_MEMORY = re.compile(r"EMC_FREQ \d+%@\[?(\d+)")
_RAM = re.compile(r"RAM (\d+)/(\d+)MB")
_TEMPERATURE = re.compile(r"(\w+)@(-?\d+(?:\.\d+)?)C\b")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
_BOARD_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails that hold all others; without one of them the power is the sum of the rails."""

BUSY = 50
"""GPU load in per cent from which a sample counts as taken during inference."""

DROPPED = 0.95
"""Clocks below this share of the highest one, of the run or of the board's power mode, have dropped."""


@dataclass(frozen=True)
class Sample:
    """One line: GPU load in %, GPU and memory (EMC) clock in MHz, RAM in MB, °C by sensor, milliwatts by rail."""

    gpu_load: int
    gpu_mhz: int | None
    emc_mhz: int | None
    ram_mb: int
    temperatures: Mapping[str, float]
    rails_mw: Mapping[str, int]

    @property
    def power_mw(self) -> int | None:
        """What the board draws, in mW; None when no rail is shown."""
        for rail in _BOARD_RAILS:
            if rail in self.rails_mw:
                return self.rails_mw[rail]
        return sum(self.rails_mw.values()) if self.rails_mw else None


def parse(text: str) -> list[Sample]:
    """The samples of a log; lines that are not samples (a warning, a line cut short) are left out."""
    samples = []
    for line in text.splitlines():
        gpu, ram, memory = _GPU.search(line), _RAM.search(line), _MEMORY.search(line)
        if gpu is None or ram is None:
            continue
        samples.append(
            Sample(
                gpu_load=int(gpu[1]),
                gpu_mhz=int(gpu[2]) if gpu[2] else None,
                emc_mhz=int(memory[1]) if memory else None,
                ram_mb=int(ram[1]),
                temperatures={name: float(value) for name, value in _TEMPERATURE.findall(line)},
                rails_mw={name: int(value) for name, value in _RAIL.findall(line)},
            )
        )
    return samples


def busy(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that were taken while the GPU worked."""
    return [sample for sample in samples if sample.gpu_load >= BUSY]


def clocks_dropped(samples: Sequence[Sample], allowed_mhz: float = 0.0) -> tuple[float, float] | None:
    """Lowest GPU clock of the busy samples and the one it should have had, in MHz, when it fell below; else None.

    It should have the highest that was seen or, where it is known, ``allowed_mhz``: that of the board's power mode.
    """
    clocks = [sample.gpu_mhz for sample in busy(samples) if sample.gpu_mhz]
    if not clocks or min(clocks) >= DROPPED * max(*clocks, allowed_mhz):
        return None
    return min(clocks), max(*clocks, allowed_mhz)


def mean_power_mw(samples: Sequence[Sample]) -> float | None:
    """Mean power in mW; None when the board shows none."""
    values = [sample.power_mw for sample in samples]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
