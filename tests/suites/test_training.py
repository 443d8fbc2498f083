"""The training loop: determinism, resumption after kill -9, divergence, configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.data import open_dataset
from depthbench.suites.training import (
    BATCH_NORM_SAMPLES,
    CHECKPOINT,
    LOG,
    Status,
    Trained,
    finetune,
    loss_for,
    progress_bar,
    train,
    train_model,
)
from depthbench.suites.training_config import TrainConfig, load_config
from depthbench.suites.training_data import Augment, Batches
from depthbench.tst import build_tst

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
    return train(config, module or _network(), folder, roots={"folder": root}, report=report)


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
        for step in range(12, 12 + BATCH_NORM_SAMPLES // 4):
            module(batches(step, [(64, 64), (32, 64)])[0])
    torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(0), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    assert not module.training


def test_the_ablation_flag_leaves_the_edge_term_out() -> None:
    config = load_config("train", {"loss": {"edge": 0.2}})
    assert loss_for(config, build_tst("tst-t")).edge == 0.2
    assert loss_for(config, nn.Conv2d(3, 1, 1)).edge == 0.2
    ablated = loss_for(config, build_tst("tst-t", edge_loss=False))
    assert (ablated.edge, ablated.silog) == (0.0, 1.0)


def test_seed_decides(tmp_path: Path, root: Path) -> None:
    runs = [_train(tmp_path / str(i), root, seed=seed).module.state_dict() for i, seed in enumerate((0, 0, 1))]
    assert _same(runs[0], runs[1])
    assert not _same(runs[0], runs[2])


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
    path = train_model("tiny", _network, config, tmp_path, roots={"folder": root}, command="depthbench train tiny")
    tensors, metadata = read_tensors(path)
    assert tensors["0.weight"].dtype == torch.float16
    assert (metadata["model"], metadata["samples"], metadata["command"]) == ("tiny", 8, "depthbench train tiny")
    assert TrainConfig.model_validate(metadata["config"]) == config
    assert set(metadata["data"]) == {"folder"}


def test_finetune_continues_from_the_given_weights(root: Path) -> None:
    module = _network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    tuned = finetune(module, {**SHORT, "samples": 8, "lr": 1e-6}, roots={"folder": root})
    assert torch.allclose(tuned.state_dict()["0.weight"], before["0.weight"], atol=1e-4)
    assert not torch.equal(tuned.state_dict()["0.weight"], before["0.weight"])


def test_progress_bar_takes_every_status(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("tiny") as report:
        report(Status(8, 16, 0.5, 0.1, 1.0, "32x32", 12.5, 3.0))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "8/16" in captured.err


def test_learning_rate_rises_then_falls(tmp_path: Path, root: Path) -> None:
    rates: list[float] = []
    _train(tmp_path / "out", root, report=lambda s: rates.append(s.lr), samples=80, warmup=0.2, log_samples=4, lr=0.01)
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(0.01)
    assert peak == 4
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.0002


def test_shipped_recipe() -> None:
    config, child = load_config("train"), load_config("finetune")
    assert set(config.mixture) == {"rooms", "nyu-labeled"}
    assert config.samples <= 40_000
    assert child.samples < config.samples
    assert child.mixture == config.mixture
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lrr": 1}, "lrr: unknown key (choices: augment, batch, "),
        ({"augment": {"crop": 1.4}}, "augment.crop: Input should be less than or equal to 1"),
        ({"augment": {"crob": 1}}, "augment.crob: unknown key (choices: brightness, colour, "),
        ({"mixture": {"nyu": 1}}, "mixture: 'nyu' is not one of folder, nyu-labeled, rooms"),
        ({"mixture": {"rooms": 0}}, "mixture: rooms: 0.0 is not above 0"),
        ({"stages": [{"share": 0.5, "sizes": ["64x64"]}]}, "stages: the shares add up to 0.5, not to 1"),
        ({"stages": [{"share": 1, "sizes": ["64x50"]}]}, "stages.0.sizes: 64x50 is not HxW with multiples of 32"),
        ({"batch": "many", "lr": -1}, "lr: Input should be greater than 0"),
    ],
)
def test_faults_are_named_with_their_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^training.yaml: ") as caught:
        load_config("train", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {samples: 10, lr: 0.1}\nfinetune: {lr: 0.01}\n")
    assert load_config("finetune", {"batch": 2}, path).model_dump(include={"samples", "lr", "batch"}) == {
        "samples": 10,
        "lr": 0.01,
        "batch": 2,
    }
    for text, message in (
        ("trian: {}", "expected the sections train and finetune"),
        ("train: [1]", "a section must be a mapping of keys to values"),
        ("train: {", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"^{path}: {message}"):
            load_config("train", None, path)
    with pytest.raises(ValueError, match=r"no.yaml: no such file$"):
        load_config("train", None, tmp_path / "no.yaml")


def test_stage_follows_the_share_of_samples() -> None:
    config = load_config("train", SHORT)
    assert config.steps == 12
    assert [config.sizes_at(step) for step in (0, 5)] == [[(32, 32)]] * 2
    assert [config.sizes_at(step) for step in (6, 11)] == [[(64, 64), (32, 64)]] * 2
