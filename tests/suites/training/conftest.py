"""A small training that the tests of the loop share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from depthbench.suites.data import Access
from depthbench.suites.training.config import load_config
from depthbench.suites.training.loop import Trained, train

SHORT = {
    "samples": 48,
    "batch": 4,
    "mixture": {"folder": 1.0},
    "stages": [{"share": 0.5, "sizes": ["32x32"]}, {"share": 0.5, "sizes": ["64x64", "32x64"]}],
    "threads": 1,
    "checkpoint_samples": 16,
    "log_samples": 8,
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.Conv2d(8, 1, 1),
        nn.Upsample(scale_factor=2),
        nn.Softplus(),
    )


def run_training(
    folder: Path, root: Path, module: nn.Module | None = None, report: Any = None, **changes: Any
) -> Trained:
    config = load_config("train", {**SHORT, **changes})
    return train(config, module or network(), folder, access={"folder": Access(root)}, report=report)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "pairs" / "test").mkdir(parents=True)
    (tmp_path / "pairs" / "train").mkdir()
    for i in range(4):
        path = tmp_path / "pairs" / "train" / str(i)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path.with_suffix(".jpg"))
        Image.fromarray(rng.integers(500, 9000, (30, 40)).astype(np.uint16)).save(path.with_suffix(".png"))
    return tmp_path / "pairs"


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def plain() -> nn.Module:
    """Without dropout and batch norm, so that a step can be worked out beside it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Softplus())


class Breaks(nn.Module):
    """Gives nan from its ninth call on."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = network(), 0

    def forward(self, rgb: Tensor) -> Tensor:
        self.calls += 1
        depth: Tensor = self.network(rgb)
        return depth * float("nan") if self.calls > 8 else depth
