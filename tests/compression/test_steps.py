"""The tables of steps, and how they refuse what they cannot do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from depthbench.compression.recipes import PRECISIONS, RECIPES
from depthbench.compression.steps import PRECISION_STEPS, STEPS

Build = Callable[[str], nn.Module]


class Loop:
    """A training loop that only notes what it was asked."""

    asked: Mapping[str, Any] | None = None

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        self.asked = options
        return module, {"samples": 3}


def test_every_recipe_can_be_carried_out() -> None:
    assert {step.kind for recipe in RECIPES.values() for step in recipe.steps} == set(STEPS)
    assert set(PRECISION_STEPS) == set(PRECISIONS)


def test_prune_step_counts_at_its_size(build: Build) -> None:
    child, report = STEPS["prune"](build("dense"), {"macs_ratio": 0.3, "size": [64, 96], "round_to": 4}, Loop())
    assert report["size"] == [64, 96]
    assert report["macs_ratio_achieved"] == pytest.approx(0.3, abs=0.02)
    assert child.e1[0].weight.shape[0] < 16  # type: ignore[union-attr,index]
    _, report = STEPS["prune"](build("dense"), {"macs_ratio": 0.3, "round_to": 4}, Loop())
    assert report["size"] == [224, 224]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "prune: option 'macs_ratio' is missing, the share of MACs to remove"),
        (
            {"macs_ratio": 0.3, "ratio": 0.3},
            "prune: unknown option 'ratio': choose from "
            "importance, macs_ratio, max_channel_ratio, round_to, scope, size",
        ),
        ({"macs_ratio": 30}, "macs_ratio: 30 is not in (0, 1)"),
    ],
)
def test_prune_step_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        STEPS["prune"](nn.Conv2d(3, 1, 1), options, Loop())
    assert str(error.value) == message


def test_finetune_step_uses_the_callers_loop() -> None:
    loop, network = Loop(), nn.Conv2d(3, 1, 1)
    assert STEPS["finetune"](network, {"samples": 3}, loop) == (network, {"samples": 3})
    assert loop.asked == {"samples": 3}


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_precision_steps_write_the_file(
    precision: str, exported: Callable[[str, int], Path], calibration: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    source, out = exported("dense", 13), tmp_path / "new" / "out.onnx"
    report = PRECISION_STEPS[precision](source, out, iter(calibration))
    assert isinstance(report, dict)
    assert (out.read_bytes() == source.read_bytes()) == (precision == "fp32")


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_precision_steps_refuse_a_truncated_file(
    precision: str, calibration: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    source = tmp_path / "truncated.onnx"
    source.write_bytes(b"\x08\x08\x12\x07pytorch\x1a")
    with pytest.raises(ValueError, match=r"truncated\.onnx: not a whole ONNX model \("):
        PRECISION_STEPS[precision](source, tmp_path / "out.onnx", calibration)


def test_files_are_quantized_without_torch() -> None:
    code = "import sys, depthbench.compression.steps; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
