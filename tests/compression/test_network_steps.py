"""The steps on the network, and how they refuse what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import nn

from depthbench.compression.options import STEP_OPTIONS
from depthbench.compression.steps import STEPS

Build = Callable[[str], nn.Module]


class Loop:
    """A training loop that only notes what it was asked."""

    asked: Mapping[str, Any] | None = None

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        self.asked = options
        return module, {"samples": 3}

    def renew_norms(self, _module: nn.Module, _size: tuple[int, int]) -> None:
        pass


def test_every_step_has_its_options() -> None:
    assert set(STEPS) == set(STEP_OPTIONS)


def test_prune_step_counts_at_its_size(build: Build) -> None:
    child, report = STEPS["prune"](build("dense"), {"macs_ratio": 0.3, "size": [64, 96], "round_to": 4}, Loop())
    assert report["size"] == [64, 96]
    assert report["macs_ratio_achieved"] == pytest.approx(0.3, abs=0.02)
    assert child.e1[0].weight.shape[0] < 16  # type: ignore[union-attr,index]
    _, report = STEPS["prune"](build("dense"), {"macs_ratio": 0.3, "round_to": 4}, Loop())
    assert report["size"] == [224, 224]


def test_steps_name_everything_that_is_wrong() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        STEPS["prune"](nn.Conv2d(3, 1, 1), {"macs_ratio": 30, "round_to": 0}, Loop())
    assert str(error.value) == (
        "prune: macs_ratio: 30 is not in (0, 1); round_to: Input should be greater than or equal to 1"
    )
    with pytest.raises(ValueError, match=r"^finetune: distill\.weight: Input should be greater than 0$"):
        STEPS["finetune"](nn.Conv2d(3, 1, 1), {"distill": {"weight": 0}}, Loop())


def test_finetune_step_uses_the_callers_loop() -> None:
    loop, network = Loop(), nn.Conv2d(3, 1, 1)
    assert STEPS["finetune"](network, {"samples": 3}, loop) == (network, {"samples": 3})
    assert loop.asked == {"samples": 3}
