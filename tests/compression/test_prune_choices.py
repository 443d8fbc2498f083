"""What pruning is told: importance, scope, target, heads, passes; and what it asks of its context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from depthbench.compression.options import prune_options
from depthbench.compression.prune import prune
from depthbench.compression.prune_costs import count_macs, count_params
from depthbench.compression.prune_groups import find_groups
from depthbench.compression.sensitivity import scan_network
from depthbench.compression.shapes import head_count, shape_like

Build = Callable[[str], nn.Module]
SIZE = (64, 64)
IMPORTANCES = ("l1", "l2", "bn", "taylor", "lamp", "random")


class Images:
    """A context whose ground truth is what the parent says, and whose board takes as long as the network has parameters."""

    def __init__(self, parent: nn.Module) -> None:
        self.rgb = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            self.truth = parent.eval()(self.rgb)
        self.kept: dict[str, Any] = {}
        self.built: list[str] = []
        self.trained: list[dict[str, Any]] = []
        self.ticks: list[tuple[int, int]] = []

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        self.trained.append({"macs": count_macs(module, self.rgb[:1]), **options})
        return module, {"samples": options["samples"]}

    def score(self, module: nn.Module, _size: tuple[int, int]) -> dict[str, float]:
        with torch.no_grad():
            error = module.eval()(self.rgb) - self.truth
        rmse = float(error.square().mean().sqrt())
        return {"delta1": 1 - rmse, "rmse_m": rmse, "abs_rel": rmse}

    def gradients(self, module: nn.Module, _size: tuple[int, int]) -> Iterator[None]:
        for rgb, truth in zip(self.rgb.split(2), self.truth.split(2), strict=True):
            module.zero_grad(set_to_none=False)
            (module(rgb) - 1.1 * truth).abs().mean().backward()
            yield

    def renew_norms(self, module: nn.Module, _size: tuple[int, int]) -> None:
        module.renewed = True  # type: ignore[assignment]

    def latency(self, module: nn.Module, _size: tuple[int, int], board: str, precision: str) -> float:
        assert (board, precision) == ("jetson-nano", "fp16")
        return count_params(module) / 1e3

    def cached(self, key: Any, build: Callable[[], Any]) -> Any:
        if str(key) not in self.kept:
            self.kept[str(key)] = build()
            self.built.append(str(key))
        return self.kept[str(key)]

    def progress(self, done: int, total: int) -> None:
        self.ticks.append((done, total))


def pruned(parent: nn.Module, context: Images | None = None, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return prune(parent, prune_options({"size": SIZE, "round_to": 8, **options}), context)


def wide(scales: Tensor | None = None) -> nn.Module:
    """Convolution, batch norm, convolution: channel i of 32 weighs ``scales[i]``."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 1, 1)
    )
    if scales is not None:
        with torch.no_grad():
            network[0].weight.copy_(network[0].weight[:1].expand(32, -1, -1, -1) * scales.view(-1, 1, 1, 1))
            network[1].weight.copy_(scales)
            network[3].weight.copy_(network[3].weight[:, :1].expand(-1, 32, -1, -1) * scales.view(1, -1, 1, 1))
    return network.eval()


@pytest.mark.parametrize("importance", [name for name in IMPORTANCES if name != "random"])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_what_matters_least_goes(importance: str, scope: str) -> None:
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    parent = wide((order + 1) / 32)
    child, report = pruned(parent, Images(parent), macs_ratio=0.5, importance=importance, scope=scope)
    assert torch.equal(child[0].weight, parent[0].weight[order >= 16])  # type: ignore[index]
    assert (report["importance"], report["scope"], report["macs_ratio_achieved"]) == (importance, scope, 0.5)


def test_random_pruning_is_another_one_for_each_seed_and_the_same_for_one() -> None:
    parent = wide()
    first, again, other = (
        pruned(parent, macs_ratio=0.5, importance="random", seed=seed)[0][0].weight  # type: ignore[index]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_taylor_finds_the_channel_that_the_loss_does_not_see() -> None:
    """Large weights that the next layer ignores: no norm of a group finds them as surely as the loss does."""
    parent = wide(torch.ones(32))
    with torch.no_grad():
        parent[0].weight[8:24] *= 5  # type: ignore[index]
        parent[3].weight[:, 8:24] = 0  # type: ignore[index]
    child, _ = pruned(parent, Images(parent), macs_ratio=0.5, importance="taylor")
    assert torch.equal(child[0].weight, parent[0].weight[[*range(8), *range(24, 32)]])  # type: ignore[index]
    by_norm, _ = pruned(parent, macs_ratio=0.5, importance="l2")
    assert not torch.equal(by_norm[0].weight, child[0].weight)  # type: ignore[index]


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_importance_prunes_every_construction(importance: str, build: Build) -> None:
    for name in ("tokens", "dense", "unfold"):
        parent = build(name)
        child, report = pruned(parent, Images(parent), macs_ratio=0.4, importance=importance)
        assert report["macs_ratio_achieved"] == pytest.approx(0.4, abs=0.02)
        off = {layer for layer, (_, count) in report["channels"].items() if count % 8}
        assert set(report.get("off_grid", ())) == off
        assert ("without_batch_norm" in report) == (importance == "bn" and name != "dense")
        with torch.no_grad():
            assert child(torch.zeros(1, 3, *SIZE)).shape == (1, 1, *SIZE)


def test_channels_off_the_grid_are_named() -> None:
    torch.manual_seed(0)
    narrow = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 1, 1))
    _, report = pruned(narrow, macs_ratio=0.3)
    assert report["off_grid"] == {"0": 14}
    assert "off_grid" not in pruned(wide(), macs_ratio=0.5)[1]


def test_parameters_as_the_target(build: Build) -> None:
    parent = build("dense")
    child, report = pruned(parent, params_ratio=0.5, scope="global")
    assert report["params_ratio_achieved"] == pytest.approx(0.5, abs=0.02)
    assert 1 - count_params(child) / count_params(parent) == pytest.approx(report["params_ratio_achieved"], abs=1e-5)
    assert report["macs_ratio_achieved"] != report["params_ratio_achieved"]


def test_a_boards_latency_as_the_target(build: Build) -> None:
    parent = build("dense")
    child, report = pruned(parent, Images(parent), latency_ratio=0.3, board="jetson-nano")
    assert report["latency_ratio_achieved"] == pytest.approx(0.3, abs=0.02)
    assert report["latency_ms_before"] == count_params(parent) / 1e3
    assert report["latency_ms_after"] == pytest.approx(count_params(child) / 1e3)
    assert (report["board"], report["precision"]) == ("jetson-nano", "fp16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"latency_ratio": 0.3, "board": "jetson-nano"},
            "latency_ratio: needs a prediction for the board, which only a recipe's context has",
        ),
        (
            {"macs_ratio": 0.3, "importance": "taylor"},
            "importance: taylor needs a training loss, which only a recipe's context has",
        ),
        (
            {"macs_ratio": 0.3, "scope": "sensitivity"},
            "scope: sensitivity needs images to score on, which only a recipe's context has",
        ),
        (
            {"macs_ratio": 0.3, "iterations": 2, "finetune": {}},
            "finetune: needs a training loop, which only a recipe's context has",
        ),
        (
            {"macs_ratio": 0.99},
            "macs_ratio: 0.99 cannot be met; the nearest is 0.750 with at most 75% of the channels of a layer removed",
        ),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
        pruned(wide(), **options)
    assert str(error.value) == message


def test_bn_without_batch_norms_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^importance: bn needs batch norms, and Sequential has none that can be pruned$"
    ):
        pruned(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 1, 1)), macs_ratio=0.5, importance="bn")


@torch.no_grad()
def weaken(parent: nn.Module, head: int, factor: float) -> list[str]:
    """Scale the weights of one head in every attention module; the modules' names."""
    names = [name for name, owner in parent.named_modules() if head_count(owner) is not None]
    for name in names:
        owner = parent.get_submodule(name)
        *inputs, out = [layer for layer in owner.children() if isinstance(layer, nn.Linear)][:4]
        width = out.in_features // (head_count(owner) or 1)
        for layer in inputs:
            layer.weight[head * width : (head + 1) * width] *= factor
        out.weight[:, head * width : (head + 1) * width] *= factor
    return names


@pytest.mark.parametrize("name", ["tokens", "unfold", "mobilevit-xxs", "tst-t"])
def test_whole_heads_may_go(name: str, build: Build) -> None:
    parent = build(name)
    attention = weaken(parent, 1, 0.1)
    child, report = pruned(parent, macs_ratio=0.5, heads=True)
    assert set(report["heads"]) <= set(attention)
    assert len(report["heads"]) > len(attention) / 2
    for owner, (before, after) in report["heads"].items():
        assert before > after == head_count(child.get_submodule(owner)) >= 1
    heads = {owner: after for owner, (_, after) in report["heads"].items()}
    rgb = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(shape_like(parent, child.state_dict(), heads)(rgb), child(rgb))
    assert "heads" not in pruned(parent, macs_ratio=0.5)[1]


def test_the_head_that_does_nothing_goes_whole(build: Build) -> None:
    """Without its dead head the network says the same."""
    parent = build("unfold")
    block = parent.blocks[0]  # type: ignore[index]
    with torch.no_grad():
        for layer in (block.q, block.k, block.v):
            layer.weight[12:24] = 0
            layer.bias[12:24] = 0
        block.out.weight[:, 12:24] = 0
    groups, _ = find_groups(parent, torch.zeros(1, 3, *SIZE), prune_options({"macs_ratio": 0.5, "heads": True}), 4)
    [group] = [group for group in groups if group.attention == "blocks.0"]
    assert group.chunks[0] == tuple(range(12, 24))
    assert group.heads[0] == 3


def test_passes_with_training_between_them(build: Build) -> None:
    parent = build("dense")
    context = Images(parent)
    child, report = pruned(parent, context, macs_ratio=0.5, iterations=3, finetune={"samples": 8}, round_to=4)
    before = count_macs(parent, torch.zeros(1, 3, *SIZE))
    gone = [1 - training["macs"] / before for training in context.trained]
    assert gone == pytest.approx([1 - 0.5 ** (1 / 3), 1 - 0.5 ** (2 / 3)], abs=0.05)
    assert [entry["samples"] for entry in report["finetuned"]] == [8, 8]
    assert [entry["macs_ratio"] for entry in report["finetuned"]] == pytest.approx(gone, abs=1e-5)
    assert report["iterations"] == 3
    assert report["macs_ratio_achieved"] == pytest.approx(0.5, abs=0.02)
    for name, (old, new) in report["channels"].items():
        assert new >= 0.25 * old - 1, name  # the largest share that may go is of the parent's channels
    assert count_macs(child, torch.zeros(1, 3, *SIZE)) == report["gmacs_after"] * 1e9


def test_batch_norms_are_measured_anew_unless_told_not_to() -> None:
    parent = wide()
    child, report = pruned(parent, Images(parent), macs_ratio=0.5)
    assert child.renewed
    assert report["norms_renewed"] is True
    child, report = pruned(parent, Images(parent), macs_ratio=0.5, renew_norms=False)
    assert not hasattr(child, "renewed")
    assert report["norms_renewed"] is False


# --- sensitivity ---------------------------------------------------------------------------------------------------------


def two_branches() -> nn.Module:
    """Two equal branches, of which only the first reaches the output."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.used, self.idle = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(3, 32, 3, padding=1)
            self.a, self.b = nn.Conv2d(32, 1, 1), nn.Conv2d(32, 1, 1)
            nn.init.zeros_(self.b.weight)

        def forward(self, rgb: Tensor) -> Tensor:
            return self.a(self.used(rgb).relu()) + self.b(self.idle(rgb).relu())

    return Branches().eval()


def test_the_scan_tells_what_each_group_is_worth_and_is_kept() -> None:
    parent = two_branches()
    context = Images(parent)
    options = prune_options({"macs_ratio": 0.4, "size": SIZE, "round_to": 8, "scope": "sensitivity"})
    progress: list[tuple[int, int]] = []
    found = scan_network(parent, options, context, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(i, 6) for i in range(1, 7)]
    assert [point.ratio for point in found.groups["used"]] == [0.25, 0.5, 0.75]
    assert [point.channels for point in found.groups["used"]] == [8, 16, 24]
    assert found.whole.score["rmse_m"] == 0
    used, idle = ([point.score["rmse_m"] for point in found.groups[name]] for name in ("used", "idle"))
    assert 0 < used[0] < used[1] < used[2]
    assert idle == pytest.approx([0, 0, 0], abs=1e-6)
    saved = [1 - point.macs / found.whole.macs for point in found.groups["idle"]]
    assert saved == pytest.approx([0.125, 0.25, 0.375], abs=1e-6)
    assert len(context.built) == 7
    scan_network(parent, options, context)
    assert len(context.built) == 7  # nothing is measured twice
    with torch.no_grad():
        parent.a.weight.mul_(2)  # type: ignore[union-attr,operator]
    scan_network(parent, options, context)
    assert len(context.built) == 14  # another network


def test_sensitivity_drives_the_shares() -> None:
    parent = two_branches()
    context = Images(parent)
    child, report = pruned(parent, context, macs_ratio=0.375, scope="sensitivity")
    assert report["channels"] == {"idle": [32, 8]}
    assert context.score(child, SIZE)["rmse_m"] == pytest.approx(0, abs=1e-6)
    assert context.ticks[-1] == (6, 6)
    uniform, report = pruned(parent, context, macs_ratio=0.375)
    assert set(report["channels"]) == {"used", "idle"}
    assert context.score(uniform, SIZE)["rmse_m"] > 0.01
