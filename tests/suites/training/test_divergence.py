"""A training that diverges: it stops, and the last good state is kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.training.log import Status
from depthbench.suites.training.state import CHECKPOINT, Watch
from tests.suites.training.conftest import Breaks, plain, run_training


def test_divergence_stops_and_keeps_the_last_good_state(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "out"
    message = rf"^training diverged at sample 32: loss nan, gradient norm nan; {folder / CHECKPOINT} keeps the last good state$"
    with pytest.raises(FloatingPointError, match=message):
        run_training(folder, root, Breaks())
    tensors, metadata = read_tensors(folder / CHECKPOINT)
    assert metadata["step"] == 8
    assert all(torch.isfinite(value).all() for value in tensors.values())


class _Explodes(nn.Module):
    """Gives ever smaller, finite depths from its 24th call on."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = plain(), 0

    def forward(self, rgb: Tensor) -> Tensor:
        self.calls += 1
        depth: Tensor = self.network(rgb)
        return depth * math.exp(-40 * max(0, self.calls - 24)) if self.calls > 24 else depth


def test_an_exploding_loss_stops_and_keeps_the_last_good_state(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "out"
    losses: list[float] = []
    held_back: list[bool] = []

    def note(status: Status) -> None:
        losses.append(status.loss)
        held_back.append(status.held_back)

    changes = {"samples": 400, "checkpoint_samples": 4, "log_samples": 4, "loss": {"variance_focus": 0}}
    message = (
        rf"^training diverged at sample \d+: the mean loss rose to [\d.]+, more than 5 times its lowest \([\d.]+\); "
        rf"{folder / CHECKPOINT} keeps the last good state$"
    )
    with pytest.raises(FloatingPointError, match=message):
        run_training(folder, root, _Explodes(), note, **changes)
    assert held_back[-1]
    assert not any(held_back[:24])
    assert all(math.isfinite(loss) for loss in losses)
    tensors, metadata = read_tensors(folder / CHECKPOINT)
    assert metadata["step"] >= 24  # saved up to where the loss began to rise,
    assert metadata["step"] < len(losses)  # and not since
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_watch_does_not_take_noise_for_an_explosion() -> None:
    watch = Watch()
    rng = np.random.default_rng(0)
    for loss in [0.0, *rng.uniform(0.1, 0.5, 200), *rng.uniform(0.5, 1.0, 200)]:
        watch.add(float(loss))
        assert not watch.above(5)
    for _ in range(200):
        watch.add(3.0)
    assert watch.above(5)
