"""Where the images of a run come from, and those that quantization is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from depthbench.suites.data import Access, DepthDataset

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class DataSource:
    """Where images come from: a data set's name, and the protocol that prepares them.

    ``root``, ``depth_scale``, ``skip_broken``: as in :class:`depthbench.suites.data.Access`. ``others``: how other data sets,
    by name, are reached by what is trained.
    """

    name: str
    protocol: str
    root: Path | None = None
    depth_scale: float | None = None
    skip_broken: int = 0
    others: Mapping[str, Access] = field(default_factory=dict)

    @property
    def access(self) -> dict[str, Access]:
        """How the data sets are reached, by name."""
        from depthbench.suites.data import Access

        return {**self.others, self.name: Access(self.root, self.depth_scale, self.skip_broken)}

    def open(self, split: str, limit: int | None = None) -> DepthDataset:
        """The first ``limit`` images of a split."""
        return self.access[self.name].open(self.name, split, limit)

    def calibration(self, size: tuple[int, int], n: int = CALIBRATION_IMAGES) -> Iterator[NDArray[np.float32]]:
        """Network inputs (1, 3, H, W) of the calibration split, prepared as for evaluation."""
        from depthbench.suites.protocols import PROTOCOLS

        dataset = self.open("calibration", n)
        for i in range(len(dataset)):
            yield PROTOCOLS[self.protocol].prepare(dataset[i], size).input
