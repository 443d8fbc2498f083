"""Pruned networks are rebuilt from tensors alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from depthbench.compression.options import prune_options
from depthbench.compression.prune import prune
from depthbench.compression.shapes import shape_like

Build = Callable[[str], nn.Module]


def test_through_a_file(build: Build, tmp_path: Path) -> None:
    parent = build("tokens")
    child, _ = prune(parent, prune_options({"macs_ratio": 0.3, "size": (64, 64)}))
    save_file(child.state_dict(), tmp_path / "child.safetensors")
    rebuilt = shape_like(parent, load_file(tmp_path / "child.safetensors"))
    rgb = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(rebuilt(rgb), child(rgb))
    assert repr(rebuilt) == repr(child)  # channel counts, groups and normalized shapes follow the weights
    assert [p.requires_grad for p in rebuilt.parameters()] == [p.requires_grad for p in parent.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(parent.parameters(), build("tokens").parameters(), strict=True))


def test_every_kind_of_layer_follows() -> None:
    def network(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.Conv2d(width, width, 3, groups=width),
            nn.ConvTranspose2d(width, 2 * width, 2),
            nn.ConvTranspose2d(2 * width, 2 * width, 2, groups=2 * width),
            nn.Conv2d(2 * width, 2 * width, 1, groups=4),
            nn.GroupNorm(4, 2 * width),
            nn.BatchNorm2d(2 * width, affine=False),
            nn.PReLU(2 * width),
            nn.Flatten(2),
            nn.Linear(100, width),
            nn.LayerNorm(width),
        )

    narrow = network(8)
    rebuilt = shape_like(network(16), narrow.state_dict())
    assert repr(rebuilt) == repr(narrow)
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rebuilt.eval()(x), narrow.eval()(x))
    embedding = shape_like(nn.Embedding(5, 16), nn.Embedding(4, 8).state_dict())
    assert repr(embedding) == "Embedding(4, 8)"


def test_keys_that_do_not_fit_are_named() -> None:
    conv = nn.Conv2d(3, 8, 1)
    weight, bias = conv.weight.detach(), conv.bias.detach()  # type: ignore[union-attr]
    for state, message in (
        ({"weight": weight, "bias": bias, "scale": bias}, "state: unknown key 'scale' (1 in all) for Conv2d"),
        ({"weight": weight}, "state: missing key 'bias' (1 in all) for Conv2d"),
        ({"weight": bias, "bias": bias}, "state: 'weight' has shape (8,), expected 4 dimensions"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
            shape_like(conv, state)
        assert str(error.value) == message


def test_groups_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match=r"^state: 'weight' has shape \(7, 4, 1, 1\), no 2 groups$"):
        shape_like(nn.Conv2d(8, 8, 1, groups=2, bias=False), {"weight": torch.zeros(7, 4, 1, 1)})
