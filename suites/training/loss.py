"""What a training minimizes: the depth loss, and with a teacher the distance to what the teacher says."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from depthbench.compression.options import PARENT
from depthbench.compression.shapes import state_digest
from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.training.config import Distill, TrainConfig
from depthbench.tst import TST
from depthbench.tst.losses import SMALLEST, DepthLoss


@dataclass(frozen=True)
class Teacher:
    """A trained network in eval mode on the training's device, the digest of its weights, and its weight in the loss."""

    module: nn.Module
    digest: str
    weight: float

    def __call__(self, prediction: Tensor, rgb: Tensor) -> Tensor:
        """The weighted mean of |ln(prediction / teacher's prediction)|: a scalar.

        ``prediction`` (B, 1, H, W) in metres, of ``rgb`` (B, 3, H, W) in [0, 1]. All pixels count: the teacher has an
        opinion where the ground truth has holes (Hinton et al. 2015, with the logarithm of depth in place of logits).
        """
        with torch.no_grad():
            said = self.module(rgb).float().clamp_min(SMALLEST).log()
        distance: Tensor = (prediction.clamp_min(SMALLEST).log() - said).abs().mean()
        return self.weight * distance


@dataclass(frozen=True)
class Objective:
    """The training loss: :class:`DepthLoss`, plus the teacher's term when there is one."""

    depth: DepthLoss
    teacher: Teacher | None = None

    def __call__(self, prediction: Tensor, depth: Tensor, rgb: Tensor) -> Tensor:
        """Arguments as for :class:`DepthLoss`; a scalar."""
        loss = self.depth(prediction, depth, rgb)
        return loss if self.teacher is None else loss + self.teacher(prediction, rgb)


def objective(config: TrainConfig, module: nn.Module, parent: nn.Module | None = None) -> Objective:
    """The objective of ``config``; without the edge-aware term for a TST whose ablation flag ``edge_loss`` is off.

    ``parent``: the network that ``module`` was pruned from, the teacher where the recipe says ``parent``.
    """
    depth = DepthLoss(**config.loss.model_dump())
    if isinstance(module, TST) and not module.config.edge_loss:
        depth = replace(depth, edge=0.0)
    return Objective(depth, open_teacher(config.distill, config, parent) if config.distill else None)


def open_teacher(distill: Distill, config: TrainConfig, parent: nn.Module | None = None) -> Teacher:
    """The teacher that a recipe names; ``ValueError`` when it has no weights or its file cannot be read."""
    if distill.teacher == PARENT:
        if parent is None:
            raise ValueError("distill.teacher: parent is the unpruned network, which only a recipe that compresses has")
        return Teacher(_placed(copy.deepcopy(parent), config), state_digest(parent), distill.weight)
    path = Path(distill.teacher)
    if path.suffix == ".safetensors":
        _, metadata = read_tensors(path)
        if "model" not in metadata:
            raise ValueError(f"{path}: does not say which model its weights are of; train it with depthbench train")
        spec = resolve_model(metadata["model"], weights=path)
    else:
        spec = resolve_model(distill.teacher)
    if spec.kind == "onnx" or spec.path is None:
        raise ValueError(f"distill.teacher: {distill.teacher} has no weights to learn from; name a weights file")
    return Teacher(_placed(build_model(spec), config), spec.digest, distill.weight)


def _placed(module: nn.Module, config: TrainConfig) -> nn.Module:
    """A network as a teacher: in eval mode on the training's device, never trained."""
    layout = torch.channels_last if config.channels_last else torch.preserve_format
    # torch's stubs do not know this overload of nn.Module.to
    placed: nn.Module = module.eval().to(device=config.device, memory_format=layout)  # type: ignore[call-overload]
    return placed.requires_grad_(False)
