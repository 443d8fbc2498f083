"""The options of steps on the network, and every fault that can be named before anything runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from depthbench.compression.options import finetune_options, prune_options, step_faults
from depthbench.compression.steps import STEPS


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({"macs_ratio": 0.5}, []),
        ({"latency_ratio": 0.3, "board": "jetson-nano", "importance": "taylor", "scope": "sensitivity"}, []),
        ({"params_ratio": 0.5, "iterations": 3, "finetune": {"samples": 800, "lr": 0.001}}, []),
        (
            {},
            ["exactly one of macs_ratio, params_ratio, latency_ratio is needed, the share to remove (none given)"],
        ),
        (
            {"macs_ratio": 0.3, "params_ratio": 0.3},
            [
                "exactly one of macs_ratio, params_ratio, latency_ratio is needed, the share to remove "
                "(macs_ratio and params_ratio given)"
            ],
        ),
        (
            {"macs_ratio": 1.0, "round_to": 0},
            ["macs_ratio: 1 is not in (0, 1)", "round_to: Input should be greater than or equal to 1"],
        ),
        ({"macs_ratio": 0.0}, ["macs_ratio: 0 is not in (0, 1)"]),
        ({"macs_ratio": 0.3, "max_channel_ratio": 1}, ["max_channel_ratio: 1 is not in (0, 1)"]),
        (
            {"macs_ratio": 0.3, "importance": "tailor"},
            ["importance: unknown choice 'tailor'; did you mean taylor? (choices: bn, l1, l2, lamp, random, taylor)"],
        ),
        (
            {"macs_ratio": 0.3, "scope": "local"},
            ["scope: unknown choice 'local'; did you mean global? (choices: global, sensitivity, uniform)"],
        ),
        (
            {"latency_ratio": 0.3},
            ["latency_ratio and board belong together: the latency is the one predicted for that board"],
        ),
        (
            {"macs_ratio": 0.3, "finetune": {}},
            ["finetune: trains between passes, and iterations is 1; add a step finetune instead"],
        ),
        ({"macs_ratio": 0.3, "size": [0, 224]}, ["size: [0, 224] is not a height and a width in pixels"]),
        (
            {"macs_ratio": 0.3, "iterations": 2, "finetune": {"distill": {"teachr": "parent"}}},
            ["finetune.distill.teachr: unknown option 'teachr'; did you mean teacher? (choices: teacher, weight)"],
        ),
        ([0.3], ["[0.3] is not a mapping of options to values"]),
    ],
)
def test_prune_faults(options: Any, faults: list[str]) -> None:
    assert step_faults("prune", options) == faults


def test_an_unknown_option_gets_the_nearest() -> None:
    [fault] = step_faults("prune", {"macs_ratio": 0.3, "roundto": 8})
    assert fault.startswith("roundto: unknown option 'roundto'; did you mean round_to? (choices: board, ")


def test_an_unknown_step_gets_the_nearest() -> None:
    assert step_faults("prun", {}) == ["unknown step 'prun'; did you mean prune? (choices: finetune, prune)"]
    assert all(step_faults(kind, {"macs_ratio": 0.5} if kind == "prune" else {}) == [] for kind in STEPS)


def test_the_target_is_the_ratio_that_is_given() -> None:
    assert prune_options({"params_ratio": 0.25}).target == ("params_ratio", "params", 0.25)
    with pytest.raises(ValueError, match=r"^prune: macs_ratio: 7 is not in \(0, 1\)$"):
        prune_options({"macs_ratio": 7})


def test_finetuning_passes_the_trainings_fields_on() -> None:
    assert finetune_options({}).training == {}
    given = finetune_options({"samples": 800, "lr": 0.001, "distill": {}}).training
    assert given == {"samples": 800, "lr": 0.001, "distill": {"teacher": "parent", "weight": 0.5}}


def test_options_are_checked_without_torch() -> None:
    code = "import sys, depthbench.compression.options; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
