"""Where the images of a run come from, and those that quantization is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class DataSource:
    """Where images come from: a data set's name, the root given by the user, and the protocol that prepares them."""

    name: str
    protocol: str
    root: Path | None = None

    @property
    def roots(self) -> dict[str, Path]:
        """The root given by the user, by data set."""
        return {self.name: self.root} if self.root else {}

    def calibration(self, size: tuple[int, int], n: int = CALIBRATION_IMAGES) -> Iterator[NDArray[np.float32]]:
        """Network inputs (1, 3, H, W) of the calibration split, prepared as for evaluation."""
        from depthbench.suites.data import open_dataset
        from depthbench.suites.protocols import PROTOCOLS

        dataset = open_dataset(self.name, "calibration", root=self.root, limit=n)
        for i in range(len(dataset)):
            yield PROTOCOLS[self.protocol].prepare(dataset[i], size).input
