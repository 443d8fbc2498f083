"""A training that was killed, stopped or finished: it goes on with the same bits, or says why it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from depthbench.suites.checkpoint import load_weights, read_tensors, write_tensors
from depthbench.suites.data import Access
from depthbench.suites.training.config import load_config
from depthbench.suites.training.log import LOG, Status
from depthbench.suites.training.loop import train_model
from depthbench.suites.training.state import CHECKPOINT
from tests.suites.training.conftest import SHORT, Breaks, network, run_training, same


def _die_at_36(folder: Path, root: Path) -> None:
    """Train until sample 36, after the second checkpoint, and get killed; run in a process of its own."""

    def report(status: Status) -> None:
        if status.samples >= 36:
            os.kill(os.getpid(), signal.SIGKILL)

    run_training(folder, root, report=report)


def test_killed_and_resumed_is_bitwise_the_unbroken_training(tmp_path: Path, root: Path) -> None:
    whole = run_training(tmp_path / "whole", root)
    code = "import runpy, sys; from pathlib import Path; runpy.run_path(sys.argv[1])['_die_at_36'](*map(Path, sys.argv[2:]))"
    killed = subprocess.run([sys.executable, "-c", code, __file__, tmp_path / "killed", root], check=False)
    assert killed.returncode == -signal.SIGKILL
    with (tmp_path / "killed" / LOG).open("a") as file:
        file.write('{"samples": 44, "to')  # as if killed while writing
    assert read_tensors(tmp_path / "killed" / CHECKPOINT)[1]["step"] == 8
    resumed = run_training(tmp_path / "killed", root)
    assert same(whole.module.state_dict(), resumed.module.state_dict())
    ends = [read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("whole", "killed")]
    assert same(*ends)
    assert any(key.startswith("optimizer.") for key in ends[0])
    logs = [[json.loads(line) for line in (tmp_path / n / LOG).read_text().splitlines()] for n in ("whole", "killed")]
    assert [line["samples"] for line in logs[1]] == [8, 16, 24, 32, 40, 48]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    assert {line["size"] for line in logs[0]} == {"32x32", "64x64", "32x64"}


def test_finished_training_is_not_repeated(tmp_path: Path, root: Path) -> None:
    first = run_training(tmp_path / "out", root)
    again = run_training(tmp_path / "out", root, report=lambda _: pytest.fail("a step was made"))
    assert same(first.module.state_dict(), again.module.state_dict())
    assert (again.samples, list(again.data)) == (48, ["folder"])


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
        (network, {"accumulate": 2}),
        (network, {"distill": {"teacher": "tst-t", "weight": 0.5}}),
        (_Mixed, {"precision": "bf16", "transformer_lr": 0.3}),
        (_Mixed, {"precision": "bf16", "transformer_lr": 0.3, "channels_last": False, "accumulate": 2}),
    ],
    ids=["accumulated", "distilled", "bf16", "bf16 accumulated"],
)
def test_interrupted_and_resumed_is_bitwise_the_unbroken_training(
    tmp_path: Path, root: Path, build: Callable[[], nn.Module], changes: dict[str, Any]
) -> None:
    def stop(status: Status) -> None:
        if status.samples >= 40:
            raise KeyboardInterrupt

    def state(folder: Path) -> dict[str, Tensor]:
        return run_training(folder, root, build(), **changes).module.state_dict()

    whole = state(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "broken", root, build(), stop, **changes)
    assert read_tensors(tmp_path / "broken" / CHECKPOINT)[1]["step"] == 32 // (4 * changes.get("accumulate", 1))
    assert same(whole, state(tmp_path / "broken"))
    assert same(*(read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("whole", "broken")))
    if "precision" in changes:
        assert not same(
            whole, run_training(tmp_path / "fp32", root, build(), **changes | {"precision": "fp32"}).module.state_dict()
        )


def test_a_second_stretch_counts_on(tmp_path: Path, root: Path) -> None:
    config = load_config("train", {**SHORT, "samples": 8})
    access = {"folder": Access(root)}
    first = train_model("tiny", network, config, tmp_path / "1", access=access, command="depthbench train tiny")

    def warm(path: Path) -> nn.Module:
        module = network()
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
    whole = run_training(tmp_path / "whole", root)
    with pytest.raises(FloatingPointError):
        run_training(tmp_path / "old", root, Breaks())
    tensors, metadata = read_tensors(tmp_path / "old" / CHECKPOINT)
    for key in ("origin", "watch", "scaler"):
        del metadata[key]
    for key in ("accumulate", "distill", "explosion", "workers"):
        del metadata["config"][key]
    del metadata["config"]["augment"]["blur"]
    renamed = {name.replace(".network.", "."): value for name, value in tensors.items()}
    write_tensors(tmp_path / "old" / CHECKPOINT, renamed, metadata)
    assert same(whole.module.state_dict(), run_training(tmp_path / "old", root).module.state_dict())


def test_folder_of_another_training_is_refused(tmp_path: Path, root: Path) -> None:
    run_training(tmp_path / "out", root)
    end = "use another folder or delete it$"
    with pytest.raises(
        ValueError, match=rf"^{tmp_path}/out/{CHECKPOINT}: a training that differs in samples, lr: {end}"
    ):
        run_training(tmp_path / "out", root, lr=0.1, samples=52)
    (root / "train" / "3.jpg").unlink()
    (root / "train" / "3.png").unlink()
    with pytest.raises(ValueError, match=rf"differs in the data's content: {end}"):
        run_training(tmp_path / "out", root)
    run_training(tmp_path / "new", root)


def test_a_network_of_other_shapes_does_not_go_on(tmp_path: Path, root: Path) -> None:
    run_training(tmp_path / "out", root)
    other = network()
    other[4] = nn.Conv2d(8, 1, 3, padding=1)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/out/{CHECKPOINT}: a training that differs in the model: use"):
        run_training(tmp_path / "out", root, other)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "out").mkdir()
    write_tensors(tmp_path / "out" / CHECKPOINT, network().state_dict(), {"step": 3})
    with pytest.raises(ValueError, match=rf"^{tmp_path}/out/{CHECKPOINT}: not a checkpoint of a training: use another"):
        run_training(tmp_path / "out", root)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ({"config": {"newer": 1}}, "written by another version of depthbench"),
        ({"step": "x"}, "not a checkpoint of a training"),
        ("average.", "not a whole checkpoint of a training"),
        ("optimizer.", "not a whole checkpoint of a training"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path, root: Path, edit: Any, fault: str) -> None:
    run_training(tmp_path / "out", root)
    path = tmp_path / "out" / CHECKPOINT
    tensors, metadata = read_tensors(path)
    if isinstance(edit, dict):
        metadata |= edit
    else:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(edit)}
    write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=rf"^{path}: {fault}: use another folder or delete it$"):
        run_training(tmp_path / "out", root)
