"""The training loop: determinism, configuration, what is kept in the end."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from depthbench.suites.checkpoint import read_tensors, save_weights
from depthbench.suites.data import Access, open_dataset
from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.training.config import Augment, TrainConfig, load_config
from depthbench.suites.training.data import Batches
from depthbench.suites.training.loop import train, train_model
from depthbench.suites.training.loss import objective
from depthbench.suites.training.state import CHECKPOINT
from tests.suites.training.conftest import SHORT, network, plain, run_training, same


def test_batch_norm_statistics_fit_the_averaged_weights(tmp_path: Path, root: Path) -> None:
    module = run_training(tmp_path / "out", root, augment={"crop": 1.0}).module
    norm, seen = module[1], []
    module[0].register_forward_hook(lambda _module, _inputs, out: seen.append(out.mean((0, 2, 3))))
    data = open_dataset("folder", "train", root=root)
    batches = Batches([data], {"folder": 1.0}, Augment(crop=1.0), batch=4, seed=0)
    with torch.no_grad():
        for step in range(12, 24):  # as many as it was trained on
            module(batches(step, [(64, 64), (32, 64)])[0])
    torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(0), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    assert not module.training


def test_seed_decides(tmp_path: Path, root: Path) -> None:
    runs = [run_training(tmp_path / str(i), root, seed=seed).module.state_dict() for i, seed in enumerate((0, 0, 1))]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_the_greatest_seed_trains(tmp_path: Path, root: Path) -> None:
    assert run_training(tmp_path / "out", root, seed=2**32 - 1, samples=8).samples == 8


def test_loss_falls_and_the_average_is_what_is_kept(tmp_path: Path, root: Path) -> None:
    """Depth is 2 m everywhere, so there is something to learn."""
    for path in (root / "train").glob("*.png"):
        Image.fromarray(np.full((30, 40), 2000, np.uint16)).save(path)
    losses: list[float] = []
    still = {"crop": 1, "flip": False, "gamma": 0, "brightness": 0, "contrast": 0, "colour": 0, "gray": 0, "noise": 0}
    changes = {"augment": still, "lr": 0.01, "samples": 240, "loss": {"silog": 1, "gradient": 0, "edge": 0}}
    trained = run_training(tmp_path / "out", root, report=lambda s: losses.append(s.loss), **changes)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    tensors, _ = read_tensors(tmp_path / "out" / CHECKPOINT)
    learned = dict(trained.module.named_parameters())  # batch norm's statistics are taken anew
    assert learned
    for key, value in learned.items():
        assert torch.equal(value, tensors[f"average.{key}"])
    assert not torch.equal(tensors["average.0.weight"], tensors["module.0.weight"])
    assert not trained.module.training


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": True}])
def test_faster_settings_train_alike(tmp_path: Path, root: Path, changes: dict[str, Any]) -> None:
    losses: dict[str, list[float]] = {"plain": [], "fast": []}
    for name, values in losses.items():
        still = nn.Sequential(*(layer for layer in network().children() if not isinstance(layer, nn.Dropout2d)))
        run_training(
            tmp_path / name,
            root,
            still,
            lambda status, values=values: values.append(status.loss),
            **(changes if name == "fast" else {}),
        )
    assert losses["fast"] == pytest.approx(losses["plain"], rel=0.05)


def test_train_model_writes_weights_with_their_history(tmp_path: Path, root: Path) -> None:
    config = load_config("train", {**SHORT, "samples": 8})
    path = train_model(
        "tiny", network, config, tmp_path, access={"folder": Access(root)}, command="depthbench train tiny"
    )
    tensors, metadata = read_tensors(path)
    assert tensors["0.weight"].dtype == torch.float16
    assert (metadata["model"], metadata["samples"], metadata["command"]) == ("tiny", 8, "depthbench train tiny")
    assert TrainConfig.model_validate(metadata["config"]) == config
    assert set(metadata["data"]) == {"folder"}


def test_learning_rate_rises_then_falls(tmp_path: Path, root: Path) -> None:
    rates: list[float] = []
    run_training(
        tmp_path / "out", root, report=lambda s: rates.append(s.lr), samples=80, warmup=0.2, log_samples=4, lr=0.01
    )
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(0.01)
    assert peak == 4
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.0002


def test_accumulation_steps_along_the_mean_gradient(tmp_path: Path, root: Path) -> None:
    changes = {"samples": 8, "accumulate": 2, "stages": [{"share": 1, "sizes": ["32x32"]}], "warmup": 0, "clip": 1e-3}
    config = load_config("train", {**SHORT, **changes})
    trained = train(config, plain(), tmp_path / "out", access={"folder": Access(root)})
    assert trained.samples == 8
    stepped = read_tensors(tmp_path / "out" / CHECKPOINT)[0]

    module = plain().to(memory_format=torch.channels_last)
    data = open_dataset("folder", "train", root=root)
    batches = Batches([data], {"folder": 1.0}, config.augment, batch=4, seed=0)
    loss = objective(config, module)
    for number in range(2):
        rgb, depth = batches(number, [(32, 32)])
        (loss(module(rgb), depth, rgb) / 2).backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
    torch.optim.AdamW(
        [
            {"params": [p for p in module.parameters() if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in module.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=config.lr,
    ).step()
    for name, value in module.named_parameters():
        torch.testing.assert_close(stepped[f"module.{name}"], value.detach(), rtol=1e-4, atol=1e-6)


def test_transformers_take_smaller_steps(tmp_path: Path, root: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.softplus(self.linear(self.norm(self.conv(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)

    start = dict(Net().named_parameters())
    moved = {}
    for scale in (1.0, 0.25):
        changes = {"samples": 4, "warmup": 0, "weight_decay": 0, "lr": 1e-4, "transformer_lr": scale}
        module = run_training(
            tmp_path / str(scale), root, Net(), **changes
        ).module  # one step, which Adam makes as long as the lr
        moved[scale] = {name: float((value - start[name]).detach().norm()) for name, value in module.named_parameters()}
    for name, length in moved[1.0].items():
        assert moved[0.25][name] / length == pytest.approx(1 if name.startswith("conv") else 0.25, rel=0.02), name


def test_batches_prepared_ahead_change_nothing(tmp_path: Path, root: Path) -> None:
    alone, ahead = (run_training(tmp_path / str(n), root, workers=n).module.state_dict() for n in (0, 3))
    assert same(alone, ahead)


def _teacher(folder: Path) -> Path:
    path = folder / "teacher.safetensors"
    module = build_model(resolve_model("fastdepth-pruned"))
    save_weights(path, module.state_dict(), {"model": "fastdepth-pruned"})
    return path


def test_a_teacher_is_part_of_the_training(tmp_path: Path, root: Path) -> None:
    distill = {"teacher": str(_teacher(tmp_path)), "weight": 2.0}
    alone = run_training(tmp_path / "alone", root, samples=8)
    taught = run_training(tmp_path / "taught", root, samples=8, distill=distill)
    assert not same(alone.module.state_dict(), taught.module.state_dict())
    origin = read_tensors(tmp_path / "taught" / CHECKPOINT)[1]["origin"]
    assert origin == {"the teacher": hashlib.sha256(_teacher(tmp_path).read_bytes()).hexdigest()}
    module = build_model(resolve_model("fastdepth-pruned"), seed=1)
    save_weights(
        tmp_path / "teacher.safetensors",
        {k: v + 1 for k, v in module.state_dict().items()},
        {"model": "fastdepth-pruned"},
    )
    with pytest.raises(ValueError, match=r"a training that differs in the teacher: use another folder or delete it$"):
        run_training(tmp_path / "taught", root, samples=8, distill=distill)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device_is_said(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match=r"^device cuda: torch sees no CUDA device here; use device cpu$"):
        run_training(tmp_path / "out", root, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_on_cuda_in_half_precision_from_rooms_without_end(tmp_path: Path, precision: str) -> None:
    losses: list[float] = []
    changes = {"device": "cuda", "precision": precision, "mixture": {"rooms": 1.0}, "samples": 96, "workers": 2}
    whole = run_training(tmp_path / "out", tmp_path, plain(), lambda status: losses.append(status.loss), **changes)
    assert all(math.isfinite(loss) for loss in losses)
    assert next(whole.module.parameters()).device.type == "cuda"
    again = run_training(tmp_path / "out", tmp_path, plain(), lambda _: pytest.fail("a step was made"), **changes)
    assert again.samples == 96
