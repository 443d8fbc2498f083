"""Accuracy of both files on the pinned images, per image, so that the difference can be judged in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from depthbench.suites.data import DepthDataset, dataset_info, open_dataset
from depthbench.suites.evaluate import evaluate_onnx
from depthbench.suites.gating.config import ACCURACY, Images
from depthbench.suites.models import file_sha256
from depthbench.suites.plan import digest, library_versions
from depthbench.suites.storage.store import Store


class Scorer:
    """Scores files on the first images of a data set; a file's scores are kept in the cache by content."""

    def __init__(self, images: Images, root: Path | None) -> None:
        self.protocol = images.protocol or dataset_info(images.name).protocol
        self.dataset: DepthDataset = open_dataset(
            images.name, images.split, root=root, limit=images.limit, depth_scale=images.depth_scale
        )

    @property
    def label(self) -> str:
        """What the numbers are of."""
        return f"{len(self.dataset)} images of {self.dataset.name} {self.dataset.split}, protocol {self.protocol}"

    def score(self, path: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, list[float]]:
        """Metric: one value per image, nan without ground truth. ``ValueError`` for a file that is no depth network."""
        key = digest(
            {
                "file": file_sha256(path),
                "data": self.dataset.digest,
                "protocol": self.protocol,
                "versions": library_versions(),
            }
        )

        def build(_: Path) -> dict[str, Any]:
            result = evaluate_onnx(path, self.dataset, self.protocol, samples=1, progress=progress)
            return {"metrics": {name: result.to_json()["metrics"][name] for name in ACCURACY}}

        return per_image(Store("gate-scores").make(key, build).meta)


def per_image(evaluation: Mapping[str, Any]) -> dict[str, list[float]]:
    """The per-image values of a stored evaluation, nan where it has none."""
    metrics = evaluation["metrics"]
    return {
        name: [math.nan if value is None else value for value in metrics[name]] for name in ACCURACY if name in metrics
    }
