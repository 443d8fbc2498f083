"""What a recipe's precision step may ask of the suite: calibration images, a score on them, and a place to keep values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthbench.suites.plan import digest, library_versions
from depthbench.suites.source import CALIBRATION_IMAGES, DataSource
from depthbench.suites.storage.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from depthbench.suites.protocols import Prepared

SCORES = ("delta1", "rmse_m", "abs_rel")


@dataclass
class FileContext:
    """The :class:`depthbench.compression.precision_steps.PrecisionContext` of one file.

    ``source``: whose calibration split is used; ``size``: height and width of the file's input; ``calibration_digest``: of the
    images, by which values are kept; None for a file that needs none.
    """

    source: DataSource
    size: tuple[int, int]
    calibration_digest: str | None
    _inputs: list[NDArray[np.float32]] = field(default_factory=list)

    def calibration(self) -> list[NDArray[np.float32]]:
        """Network inputs (1, 3, H, W) of the calibration split, prepared as for evaluation."""
        if not self._inputs:
            self._inputs = list(self.source.calibration(self.size))
        return self._inputs

    def score(self, model: Path | InferenceSession, places: Sequence[int] | None = None) -> dict[str, float]:
        """Mean delta1, rmse_m and abs_rel of a file or a session on the calibration images, or on those at ``places``.

        nan where none of them has ground truth.
        """
        from depthbench.suites.evaluate import open_session

        session = open_session(model) if isinstance(model, Path) else model
        name = session.get_inputs()[0].name
        prepared = [self._prepared[i] for i in places] if places is not None else self._prepared
        rows = [image.score(session.run(None, {name: image.input})[0]) for image in prepared]
        found = {metric: [row[metric] for row in rows if not np.isnan(row[metric])] for metric in SCORES}
        return {metric: float(np.mean(values)) if values else float("nan") for metric, values in found.items()}

    def cached(self, key: Any, build: Callable[[], Any]) -> Any:
        """``build()``, kept by the digest of ``key``, of the images and how they are scored, and of the libraries."""
        identity = {
            "key": key,
            "data": [self.calibration_digest, self.source.protocol, list(self.size)],
            "versions": library_versions(),
        }
        return Store("steps").make(digest(identity), lambda _folder: {"value": build()}).meta["value"]

    @cached_property
    def _prepared(self) -> list[Prepared]:
        from depthbench.suites.protocols import PROTOCOLS

        dataset = self.source.open("calibration", CALIBRATION_IMAGES)
        return [PROTOCOLS[self.source.protocol].prepare(dataset[i], self.size) for i in range(len(dataset))]
