"""The objective of a training: ablation flag and teacher."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from depthbench.suites.checkpoint import save_weights
from depthbench.suites.training.config import load_config
from depthbench.suites.training.loss import Objective, Teacher, objective
from depthbench.tst import build_tst
from depthbench.tst.losses import DepthLoss


class Says(nn.Module):
    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, rgb: Tensor) -> Tensor:
        return torch.full_like(rgb[:, :1], self.depth)


def test_the_ablation_flag_leaves_the_edge_term_out() -> None:
    config = load_config("train", {"loss": {"edge": 0.2}})
    assert objective(config, build_tst("tst-t")).depth.edge == 0.2
    assert objective(config, nn.Conv2d(3, 1, 1)).depth.edge == 0.2
    ablated = objective(config, build_tst("tst-t", edge_loss=False)).depth
    assert (ablated.edge, ablated.silog) == (0.0, 1.0)


def test_the_teachers_term_is_the_mean_log_distance() -> None:
    rgb = torch.rand(2, 3, 4, 4)
    prediction = torch.full((2, 1, 4, 4), 2.0)
    prediction[0] = 8.0
    prediction.requires_grad_()
    teacher = Teacher(Says(4.0), "digest", 0.5)
    term = teacher(prediction, rgb)
    assert float(term.detach()) == pytest.approx(0.5 * math.log(2))  # twice and half as far are equally wrong
    depth = torch.zeros(2, 1, 4, 4)  # nothing measured: the teacher alone speaks
    loss = Objective(DepthLoss(), teacher)(prediction, depth, rgb)
    assert float(loss.detach()) == pytest.approx(float(term.detach()))
    loss.backward()
    assert prediction.grad is not None
    assert (prediction.grad[0] > 0).all()
    assert (prediction.grad[1] < 0).all()


def test_a_catalogue_model_teaches() -> None:
    teacher = objective(load_config("train", {"distill": {"teacher": "fastdepth"}}), nn.Conv2d(3, 1, 1)).teacher
    assert teacher is not None
    assert teacher.weight == 0.5
    assert not teacher.module.training
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())


def test_teachers_that_cannot_teach(tmp_path: Path) -> None:
    def opened(teacher: str) -> object:
        return objective(load_config("train", {"distill": {"teacher": teacher}}), nn.Conv2d(3, 1, 1))

    with pytest.raises(
        ValueError, match=r"^distill.teacher: tst-source has no weights to learn from; name a weights file$"
    ):
        opened("tst-source")
    with pytest.raises(ValueError, match=r"^unknown model 'tst-x'"):
        opened("tst-x")
    path = tmp_path / "nameless.safetensors"
    with pytest.raises(ValueError, match=rf"^{path}: no such file$"):
        opened(str(path))
    save_weights(path, {"a": torch.zeros(2, 2)}, {})
    with pytest.raises(ValueError, match=rf"^{path}: does not say which model its weights are of"):
        opened(str(path))
