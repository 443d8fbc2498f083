"""The configuration of a training: the recipe that ships, a user's file, and faults named with their key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.data import DATASETS
from depthbench.suites.training.config import config_faults, load_config

STAGED = {
    "samples": 48,
    "batch": 4,
    "stages": [{"share": 0.5, "sizes": ["32x32"]}, {"share": 0.5, "sizes": ["64x64", "32x64"]}],
}


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
        ({"lrr": 1}, "lrr: unknown key 'lrr'; did you mean lr? (choices: accumulate, augment, batch, "),
        ({"augment": {"crop": 1.4}}, "augment.crop: Input should be less than or equal to 1"),
        ({"augment": {"crob": 1}}, "augment.crob: unknown key 'crob'; did you mean crop? (choices: blur, brightness, "),
        ({"mixture": {"nyu": 1}}, f"mixture: 'nyu' is not one of {', '.join(sorted(DATASETS))}"),
        ({"mixture": {"rooms": 0}}, "mixture: rooms: 0.0 is not above 0"),
        ({"stages": [{"share": 0.5, "sizes": ["64x64"]}]}, "stages: the shares add up to 0.5, not to 1"),
        ({"stages": [{"share": 1, "sizes": ["64x50"]}]}, "stages.0.sizes: 64x50 is not HxW with multiples of 32"),
        ({"precision": "fp16"}, "precision: fp16 needs device cuda; use bf16 on the CPU"),
        ({"max_depth": 1000}, "max_depth: 1000 is beyond the 655 m that depth is kept to"),
        (
            {"max_depth": 400, "augment": {"crop": 0.5}},
            "max_depth: 400 in crops of 0.5 is beyond the 655 m that depth is kept to",
        ),
        ({"seed": 2**32}, "seed: Input should be less than 4294967296"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"device": "gpu"}, "device: String should match pattern"),
        (
            {"distill": {"teachr": "tst-b"}},
            "distill.teachr: unknown key 'teachr'; did you mean teacher?",
        ),
        ({"distill": {"teacher": "tst-b", "weight": 0}}, "distill.weight: Input should be greater than 0"),
        ({"accumulate": 0}, "accumulate: Input should be greater than or equal to 1"),
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
    config = load_config("train", STAGED)
    assert config.steps == 12
    assert [config.sizes_at(step) for step in (0, 5)] == [[(32, 32)]] * 2
    assert [config.sizes_at(step) for step in (6, 11)] == [[(64, 64), (32, 64)]] * 2


def test_accumulated_batches_count_as_samples() -> None:
    config = load_config("train", {**STAGED, "accumulate": 3})
    assert (config.step_samples, config.steps) == (12, 4)
    assert [config.sizes_at(step)[0] for step in range(4)] == [(32, 32), (32, 32), (64, 64), (64, 64)]


def test_faults_without_a_file() -> None:
    assert config_faults({"lr": 0.1}) == []
    assert config_faults({"lr": -1, "augment": {"crob": 1}})[0].startswith("lr: ")
    assert len(config_faults({"lr": -1, "augment": {"crob": 1}})) == 2


def test_batches_are_prepared_ahead_for_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((2, 2), (64, 8), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert load_config("train", {"device": "cuda"}).ahead == threads
        assert load_config("train", {"device": "cuda:1", "workers": 3}).ahead == 3
        assert load_config("train", {"device": "cuda", "workers": 0}).ahead == load_config("train").ahead == 0


def test_loads_no_torch() -> None:
    code = "import sys, depthbench.suites.training.config, depthbench.suites.variants; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "False"
