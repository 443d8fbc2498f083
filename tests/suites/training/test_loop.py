"""The training loop: determinism, resumption after kill -9, divergence, configuration."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from depthbench.suites.checkpoint import load_weights, read_tensors, save_weights, write_tensors
from depthbench.suites.data import Access, open_dataset
from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.training.config import Augment, TrainConfig, load_config
from depthbench.suites.training.data import Batches
from depthbench.suites.training.log import LOG, Status
from depthbench.suites.training.loop import Trained, train, train_model
from depthbench.suites.training.loss import objective
from depthbench.suites.training.state import CHECKPOINT, Watch

SHORT = {
    "samples": 48,
    "batch": 4,
    "mixture": {"folder": 1.0},
    "stages": [{"share": 0.5, "sizes": ["32x32"]}, {"share": 0.5, "sizes": ["64x64", "32x64"]}],
    "threads": 1,
    "checkpoint_samples": 16,
    "log_samples": 8,
}


def _network() -> nn.Module:
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


def _train(folder: Path, root: Path, module: nn.Module | None = None, report: Any = None, **changes: Any) -> Trained:
    config = load_config("train", {**SHORT, **changes})
    return train(config, module or _network(), folder, access={"folder": Access(root)}, report=report)


def _die_at_36(folder: Path, root: Path) -> None:
    """Train until sample 36, after the second checkpoint, and get killed; run in a process of its own."""

    def report(status: Status) -> None:
        if status.samples >= 36:
            os.kill(os.getpid(), signal.SIGKILL)

    _train(folder, root, report=report)


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


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_killed_and_resumed_is_bitwise_the_unbroken_training(tmp_path: Path, root: Path) -> None:
    whole = _train(tmp_path / "whole", root)
    code = "import runpy, sys; from pathlib import Path; runpy.run_path(sys.argv[1])['_die_at_36'](*map(Path, sys.argv[2:]))"
    killed = subprocess.run([sys.executable, "-c", code, __file__, tmp_path / "killed", root], check=False)
    assert killed.returncode == -signal.SIGKILL
    with (tmp_path / "killed" / LOG).open("a") as file:
        file.write('{"samples": 44, "to')  # as if killed while writing
    assert read_tensors(tmp_path / "killed" / CHECKPOINT)[1]["step"] == 8
    resumed = _train(tmp_path / "killed", root)
    assert _same(whole.module.state_dict(), resumed.module.state_dict())
    ends = [read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("whole", "killed")]
    assert _same(*ends)
    assert any(key.startswith("optimizer.") for key in ends[0])
    logs = [[json.loads(line) for line in (tmp_path / n / LOG).read_text().splitlines()] for n in ("whole", "killed")]
    assert [line["samples"] for line in logs[1]] == [8, 16, 24, 32, 40, 48]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    assert {line["size"] for line in logs[0]} == {"32x32", "64x64", "32x64"}


def test_finished_training_is_not_repeated(tmp_path: Path, root: Path) -> None:
    first = _train(tmp_path / "out", root)
    again = _train(tmp_path / "out", root, report=lambda _: pytest.fail("a step was made"))
    assert _same(first.module.state_dict(), again.module.state_dict())
    assert (again.samples, list(again.data)) == (48, ["folder"])


def test_batch_norm_statistics_fit_the_averaged_weights(tmp_path: Path, root: Path) -> None:
    module = _train(tmp_path / "out", root, augment={"crop": 1.0}).module
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
    runs = [_train(tmp_path / str(i), root, seed=seed).module.state_dict() for i, seed in enumerate((0, 0, 1))]
    assert _same(runs[0], runs[1])
    assert not _same(runs[0], runs[2])


def test_the_greatest_seed_trains(tmp_path: Path, root: Path) -> None:
    assert _train(tmp_path / "out", root, seed=2**32 - 1, samples=8).samples == 8


def test_loss_falls_and_the_average_is_what_is_kept(tmp_path: Path, root: Path) -> None:
    """Depth is 2 m everywhere, so there is something to learn."""
    for path in (root / "train").glob("*.png"):
        Image.fromarray(np.full((30, 40), 2000, np.uint16)).save(path)
    losses: list[float] = []
    still = {"crop": 1, "flip": False, "gamma": 0, "brightness": 0, "contrast": 0, "colour": 0, "gray": 0, "noise": 0}
    changes = {"augment": still, "lr": 0.01, "samples": 240, "loss": {"silog": 1, "gradient": 0, "edge": 0}}
    trained = _train(tmp_path / "out", root, report=lambda s: losses.append(s.loss), **changes)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    tensors, _ = read_tensors(tmp_path / "out" / CHECKPOINT)
    learned = dict(trained.module.named_parameters())  # batch norm's statistics are taken anew
    assert learned
    for key, value in learned.items():
        assert torch.equal(value, tensors[f"average.{key}"])
    assert not torch.equal(tensors["average.0.weight"], tensors["module.0.weight"])
    assert not trained.module.training


class _Breaks(nn.Module):
    """Gives nan from its ninth call on."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = _network(), 0

    def forward(self, rgb: Tensor) -> Tensor:
        self.calls += 1
        depth: Tensor = self.network(rgb)
        return depth * float("nan") if self.calls > 8 else depth


def test_divergence_stops_and_keeps_the_last_good_state(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "out"
    message = rf"^training diverged at sample 32: loss nan, gradient norm nan; {folder / CHECKPOINT} keeps the last good state$"
    with pytest.raises(FloatingPointError, match=message):
        _train(folder, root, _Breaks())
    tensors, metadata = read_tensors(folder / CHECKPOINT)
    assert metadata["step"] == 8
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_folder_of_another_training_is_refused(tmp_path: Path, root: Path) -> None:
    _train(tmp_path / "out", root)
    end = "use another folder or delete it$"
    with pytest.raises(
        ValueError, match=rf"^{tmp_path}/out/{CHECKPOINT}: a training that differs in samples, lr: {end}"
    ):
        _train(tmp_path / "out", root, lr=0.1, samples=52)
    (root / "train" / "3.jpg").unlink()
    (root / "train" / "3.png").unlink()
    with pytest.raises(ValueError, match=rf"differs in the data's content: {end}"):
        _train(tmp_path / "out", root)
    _train(tmp_path / "new", root)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": True}])
def test_faster_settings_train_alike(tmp_path: Path, root: Path, changes: dict[str, Any]) -> None:
    losses: dict[str, list[float]] = {"plain": [], "fast": []}
    for name, values in losses.items():
        network = nn.Sequential(*(layer for layer in _network().children() if not isinstance(layer, nn.Dropout2d)))
        _train(
            tmp_path / name,
            root,
            network,
            lambda status, values=values: values.append(status.loss),
            **(changes if name == "fast" else {}),
        )
    assert losses["fast"] == pytest.approx(losses["plain"], rel=0.05)


def test_train_model_writes_weights_with_their_history(tmp_path: Path, root: Path) -> None:
    config = load_config("train", {**SHORT, "samples": 8})
    path = train_model(
        "tiny", _network, config, tmp_path, access={"folder": Access(root)}, command="depthbench train tiny"
    )
    tensors, metadata = read_tensors(path)
    assert tensors["0.weight"].dtype == torch.float16
    assert (metadata["model"], metadata["samples"], metadata["command"]) == ("tiny", 8, "depthbench train tiny")
    assert TrainConfig.model_validate(metadata["config"]) == config
    assert set(metadata["data"]) == {"folder"}


def test_learning_rate_rises_then_falls(tmp_path: Path, root: Path) -> None:
    rates: list[float] = []
    _train(tmp_path / "out", root, report=lambda s: rates.append(s.lr), samples=80, warmup=0.2, log_samples=4, lr=0.01)
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(0.01)
    assert peak == 4
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.0002


def _plain() -> nn.Module:
    """Without dropout and batch norm, so that a step can be worked out beside it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Softplus())


def test_accumulation_steps_along_the_mean_gradient(tmp_path: Path, root: Path) -> None:
    changes = {"samples": 8, "accumulate": 2, "stages": [{"share": 1, "sizes": ["32x32"]}], "warmup": 0, "clip": 1e-3}
    config = load_config("train", {**SHORT, **changes})
    trained = train(config, _plain(), tmp_path / "out", access={"folder": Access(root)})
    assert trained.samples == 8
    stepped = read_tensors(tmp_path / "out" / CHECKPOINT)[0]

    module = _plain().to(memory_format=torch.channels_last)
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
        module = _train(
            tmp_path / str(scale), root, Net(), **changes
        ).module  # one step, which Adam makes as long as the lr
        moved[scale] = {name: float((value - start[name]).detach().norm()) for name, value in module.named_parameters()}
    for name, length in moved[1.0].items():
        assert moved[0.25][name] / length == pytest.approx(1 if name.startswith("conv") else 0.25, rel=0.02), name


class _Mixed(nn.Module):
    """What bfloat16 and ``transformer_lr`` treat in their own way: depthwise convolutions of both strides, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.local = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.ReLU(),
            nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False),
        )
        self.mix = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Softplus())

    def forward(self, rgb: Tensor) -> Tensor:
        mixed = self.mix(self.local(rgb).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, 1, H / 2, W / 2)
        depth: Tensor = self.up(mixed)
        return depth


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (_network, {"accumulate": 2}),
        (_Mixed, {"precision": "bf16", "transformer_lr": 0.3}),
        (_Mixed, {"precision": "bf16", "transformer_lr": 0.3, "channels_last": False, "accumulate": 2}),
    ],
    ids=["accumulated", "bf16", "bf16 accumulated"],
)
def test_interrupted_and_resumed_is_bitwise_the_unbroken_training(
    tmp_path: Path, root: Path, build: Callable[[], nn.Module], changes: dict[str, Any]
) -> None:
    def stop(status: Status) -> None:
        if status.samples >= 40:
            raise KeyboardInterrupt

    def state(folder: Path) -> dict[str, Tensor]:
        return _train(folder, root, build(), **changes).module.state_dict()

    whole = state(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "broken", root, build(), stop, **changes)
    assert read_tensors(tmp_path / "broken" / CHECKPOINT)[1]["step"] == 32 // (4 * changes.get("accumulate", 1))
    assert _same(whole, state(tmp_path / "broken"))
    assert _same(*(read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("whole", "broken")))
    if "precision" in changes:
        assert not _same(
            whole, _train(tmp_path / "fp32", root, build(), **changes | {"precision": "fp32"}).module.state_dict()
        )


def test_batches_prepared_ahead_change_nothing(tmp_path: Path, root: Path) -> None:
    alone, ahead = (_train(tmp_path / str(n), root, workers=n).module.state_dict() for n in (0, 3))
    assert _same(alone, ahead)


class _Explodes(nn.Module):
    """Gives ever smaller, finite depths from its 24th call on."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = _plain(), 0

    def forward(self, rgb: Tensor) -> Tensor:
        self.calls += 1
        depth: Tensor = self.network(rgb)
        return depth * math.exp(-40 * max(0, self.calls - 24)) if self.calls > 24 else depth


def test_an_exploding_loss_stops_and_keeps_the_last_good_state(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "out"
    losses: list[float] = []
    changes = {"samples": 400, "checkpoint_samples": 4, "log_samples": 4, "loss": {"variance_focus": 0}}
    message = (
        rf"^training diverged at sample \d+: the mean loss rose to [\d.]+, more than 5 times its lowest \([\d.]+\); "
        rf"{folder / CHECKPOINT} keeps the last good state$"
    )
    with pytest.raises(FloatingPointError, match=message):
        _train(folder, root, _Explodes(), lambda status: losses.append(status.loss), **changes)
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


def test_a_second_stretch_counts_on(tmp_path: Path, root: Path) -> None:
    config = load_config("train", {**SHORT, "samples": 8})
    access = {"folder": Access(root)}
    first = train_model("tiny", _network, config, tmp_path / "1", access=access, command="depthbench train tiny")

    def warm(path: Path) -> nn.Module:
        module = _network()
        load_weights(module, path)
        return module

    longer = config.model_copy(update={"samples": 16})
    second = train_model(
        "tiny", lambda: warm(first), longer, tmp_path / "2", access=access, start=first, command="and on"
    )
    _, metadata = read_tensors(second)
    assert (metadata["samples"], metadata["total_samples"]) == (16, 24)
    assert [(one["command"], one["samples"]) for one in metadata["lineage"]] == [
        ("depthbench train tiny", 8),
        ("and on", 16),
    ]
    assert metadata["lineage"][0]["start"] is None
    assert metadata["lineage"][1]["start"] == hashlib.sha256(first.read_bytes()).hexdigest()

    tensors, old = read_tensors(first)  # as the first version wrote it
    write_tensors(tmp_path / "old.safetensors", tensors, {k: old[k] for k in ("model", "samples", "command", "config")})
    third = train_model(
        "tiny", lambda: warm(first), config, tmp_path / "3", access=access, start=tmp_path / "old.safetensors"
    )
    assert read_tensors(third)[1]["total_samples"] == 16
    with pytest.raises(ValueError, match=r"a training that differs in the start weights: use another folder"):
        train_model("tiny", lambda: warm(second), config, tmp_path / "3", access=access, start=second)


def test_a_checkpoint_of_the_first_version_is_continued(tmp_path: Path, root: Path) -> None:
    whole = _train(tmp_path / "whole", root)
    with pytest.raises(FloatingPointError):
        _train(tmp_path / "old", root, _Breaks())
    tensors, metadata = read_tensors(tmp_path / "old" / CHECKPOINT)
    for key in ("origin", "watch", "scaler"):
        del metadata[key]
    for key in ("accumulate", "distill", "explosion", "workers"):
        del metadata["config"][key]
    del metadata["config"]["augment"]["blur"]
    renamed = {name.replace(".network.", "."): value for name, value in tensors.items()}
    write_tensors(tmp_path / "old" / CHECKPOINT, renamed, metadata)
    assert _same(whole.module.state_dict(), _train(tmp_path / "old", root).module.state_dict())


def _teacher(folder: Path) -> Path:
    path = folder / "teacher.safetensors"
    module = build_model(resolve_model("fastdepth-pruned"))
    save_weights(path, module.state_dict(), {"model": "fastdepth-pruned"})
    return path


def test_a_teacher_is_part_of_the_training(tmp_path: Path, root: Path) -> None:
    distill = {"teacher": str(_teacher(tmp_path)), "weight": 2.0}
    alone = _train(tmp_path / "alone", root, samples=8)
    taught = _train(tmp_path / "taught", root, samples=8, distill=distill)
    assert not _same(alone.module.state_dict(), taught.module.state_dict())
    origin = read_tensors(tmp_path / "taught" / CHECKPOINT)[1]["origin"]
    assert origin == {"the teacher": hashlib.sha256(_teacher(tmp_path).read_bytes()).hexdigest()}
    module = build_model(resolve_model("fastdepth-pruned"), seed=1)
    save_weights(
        tmp_path / "teacher.safetensors",
        {k: v + 1 for k, v in module.state_dict().items()},
        {"model": "fastdepth-pruned"},
    )
    with pytest.raises(ValueError, match=r"a training that differs in the teacher: use another folder or delete it$"):
        _train(tmp_path / "taught", root, samples=8, distill=distill)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device_is_said(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match=r"^device cuda: torch sees no CUDA device here; use device cpu$"):
        _train(tmp_path / "out", root, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_on_cuda_in_half_precision_from_rooms_without_end(tmp_path: Path, precision: str) -> None:
    losses: list[float] = []
    changes = {"device": "cuda", "precision": precision, "mixture": {"rooms": 1.0}, "samples": 96, "workers": 2}
    whole = _train(tmp_path / "out", tmp_path, _plain(), lambda status: losses.append(status.loss), **changes)
    assert all(math.isfinite(loss) for loss in losses)
    assert next(whole.module.parameters()).device.type == "cuda"
    again = _train(tmp_path / "out", tmp_path, _plain(), lambda _: pytest.fail("a step was made"), **changes)
    assert again.samples == 96
