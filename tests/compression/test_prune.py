"""Pruning to a target cost, on small networks of every construction and on the catalogue's models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.compression.options import prune_options
from depthbench.compression.prune import prune
from depthbench.compression.prune_costs import count_macs, count_params
from depthbench.compression.shapes import shape_like
from depthbench.suites.models import MODELS

Build = Callable[[str], nn.Module]

TOYS = ("tokens", "dense", "unfold")
EXAMPLE = torch.zeros(1, 3, 64, 64)


def pruned(parent: nn.Module, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return prune(parent, prune_options({"size": (64, 64), **options}))


def test_macs_and_parameters_of_layers_with_known_cost() -> None:
    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.depthwise(self.depthwise(self.conv(x))).flatten(2).transpose(1, 2)  # (B, N, 8)
            x = self.linear(x)
            return x @ x.transpose(1, 2)

    pixels = 16 * 16
    network = Known()
    network.linear.eval()
    modes = [part.training for part in network.modules()]
    conv, depthwise, linear, product = pixels * 27 * 8, pixels * 25 * 8, pixels * 8 * 4, pixels * pixels * 4
    assert count_macs(network, torch.zeros(1, 3, 32, 32)) == conv + 2 * depthwise + linear + product
    assert [part.training for part in network.modules()] == modes == [True, True, True, False]
    assert count_params(network) == 28 * 8 + 26 * 8 + 36


def test_the_network_that_is_pruned_is_neither_run_nor_changed() -> None:
    class Counting(nn.Sequential):
        runs = 0

        def forward(self, rgb: Tensor) -> Tensor:
            self.runs += 1
            return super().forward(rgb)  # type: ignore[no-any-return]

    parent = Counting(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 3, padding=1))
    for ratio in (0.001, 0.4):  # with the first nothing is near enough to go
        child, _ = pruned(parent, macs_ratio=ratio, round_to=16)
        assert child is not parent
        assert child.runs > 0
    assert parent.runs == 0
    assert all(part.training for part in parent.modules())


def check(parent: nn.Module, tolerance: float) -> nn.Module:
    before = {key: value.clone() for key, value in parent.state_dict().items()}
    child, report = pruned(parent, macs_ratio=0.3)
    assert all(torch.equal(value, before[key]) for key, value in parent.state_dict().items())
    macs = count_macs(child, EXAMPLE)
    assert report["macs_ratio_achieved"] == pytest.approx(1 - macs / count_macs(parent, EXAMPLE), abs=1e-5)
    assert report["macs_ratio_achieved"] == pytest.approx(0.3, abs=tolerance)
    assert report["gmacs_after"] == macs / 1e9
    assert report["params_m_after"] == count_params(child) / 1e6 < report["params_m_before"]
    assert report["channels"]
    for name, (old, new) in report["channels"].items():
        assert new == child.get_submodule(name).weight.shape[0] < old
    assert not child.training
    for size in ((64, 64), (96, 160)):
        rgb = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            depth = child(rgb)
            assert depth.shape == (2, 1, *size)
            assert (depth - parent(rgb)).abs().mean() > 1e-4
            assert torch.equal(shape_like(parent, child.state_dict())(rgb), depth)
    return child


@pytest.mark.parametrize("name", TOYS)
def test_toys_reach_the_target(name: str, build: Build) -> None:
    check(build(name), 0.02)


@pytest.mark.parametrize("name", list(MODELS))
def test_catalogue_reaches_the_target(name: str, build: Build) -> None:
    parent = build(name)
    child = check(parent, 0.02)
    shared = [name for name, _ in child.named_parameters()]  # a block that is applied several times stays one
    assert shared == [name for name, _ in parent.named_parameters()]


def test_a_block_applied_three_times_stays_one(build: Build) -> None:
    parent = build("tokens")
    child, _ = pruned(parent, macs_ratio=0.3)
    assert [name for name, _ in child.named_parameters()] == [name for name, _ in parent.named_parameters()]
    applied = []
    child.block.register_forward_hook(lambda *_: applied.append(1))  # type: ignore[union-attr]
    child(EXAMPLE)
    assert len(applied) == 3


def test_attention_keeps_its_heads_and_loses_the_same_dimensions_in_each(build: Build) -> None:
    parent = build("unfold")
    child, _ = pruned(parent, macs_ratio=0.4, round_to=4)
    block, old = child.blocks[0], parent.blocks[0]  # type: ignore[index]
    assert block.q.weight.shape[0] == block.k.weight.shape[0] == block.v.weight.shape[0] == block.out.weight.shape[1]
    assert block.q.weight.shape[0] < old.q.weight.shape[0]
    heads, dimensions = 4, block.q.weight.shape[0] // 4
    kept = block.norm1.weight.shape[0]
    assert block.q.weight.shape == (heads * dimensions, kept)
    # the rows that stay are rows of the parent's, head by head, at the same places in every head
    places = []
    for head in range(heads):
        mine = block.q.bias.view(heads, -1)[head]
        theirs = old.q.bias.view(heads, -1)[head]
        places.append([int((theirs == value).nonzero()[0, 0]) for value in mine])
    assert all(place == places[0] for place in places)


def test_dead_channels_go_first_and_the_output_stays(build: Build) -> None:
    """Channels that add nothing are found across residuals, depthwise layers and a concatenation's offsets."""
    parent = build("dense")
    with torch.no_grad():
        for layer in parent.modules():
            if isinstance(layer, nn.Conv2d) and layer.out_channels > 1:
                layer.weight[1::2] = 0
            elif isinstance(layer, nn.BatchNorm2d):
                layer.weight[1::2] = 0
                layer.bias[1::2] = 0
    child, report = pruned(parent, macs_ratio=0.4, round_to=4)
    assert len(report["channels"]) > 10
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(child(rgb), parent(rgb), rtol=1e-5, atol=1e-5)


def test_fixed_filters_and_the_output_are_left_alone(build: Build) -> None:
    parent = build("tokens")
    child, report = pruned(parent, macs_ratio=0.5)
    assert torch.equal(child.sobel.weight, parent.sobel.weight)  # type: ignore[union-attr,arg-type]
    assert child.head.weight.shape[0] == 1  # type: ignore[union-attr,index]
    # the edge map is the last input of the refinement, and its weights are still the last ones
    assert torch.equal(
        child.refine[0].weight[:, -1].flatten(),  # type: ignore[index]
        parent.refine[0].weight[kept(parent.refine[0], child.refine[0]), -1].flatten(),  # type: ignore[index]
    )
    assert "fuse1.0" in report["channels"]


def kept(old: nn.Module, new: nn.Module) -> list[int]:
    """Which output channels of ``old`` are those of ``new``, told by their weights on the last input."""
    theirs = old.weight[:, -1].flatten(1)  # type: ignore[index]
    return [int((theirs == row).all(1).nonzero()[0, 0]) for row in new.weight[:, -1].flatten(1)]  # type: ignore[index]


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_the_least_important_channels_go(scope: str, importance: str) -> None:
    torch.manual_seed(0)
    parent = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))
    with torch.no_grad():
        for i in range(32):
            parent[0].weight[i] *= 1 + i
            parent[2].weight[:, i] *= 1 + i
    child, report = pruned(parent, macs_ratio=0.5, importance=importance, scope=scope)
    assert torch.equal(child[0].weight, parent[0].weight[16:])
    assert (report["importance"], report["scope"], report["round_to"]) == (importance, scope, 16)
    assert "round_to_asked" not in report


def test_pruning_is_reproducible(build: Build) -> None:
    first, second = (pruned(build("dense"), macs_ratio=0.3)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_narrow_layers_are_rounded_finer_and_the_report_says_so() -> None:
    torch.manual_seed(0)
    parent = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 1, 1)).train()
    child, report = pruned(parent, macs_ratio=0.3)
    assert (report["round_to_asked"], report["round_to"]) == (16, 2)
    assert report["channels"] == {"0": [20, 14]}
    assert child.training


def test_a_ratio_out_of_reach_names_the_nearest() -> None:
    parent = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 1, 1))
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        pruned(parent, macs_ratio=0.9)
    assert str(error.value) == (
        "macs_ratio: 0.9 cannot be met; the nearest is 0.750 with at most 75% of the channels of a layer removed"
    )


def test_constants_among_features_are_refused() -> None:
    class Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(33, 1, 1)

        def forward(self, rgb: Tensor) -> Tensor:
            return self.head(torch.cat([F.relu(rgb[:, :1]), self.conv(rgb)], 1))

    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        pruned(Edges(), macs_ratio=0.3)
    assert str(error.value) == (
        "Edges cannot be pruned: it concatenates channels that no weight has made with features; "
        "they must come last, behind one tensor"
    )
