"""Shapes, bounds, sharing, ablations and golden outputs of the TST variants."""

import pytest
import torch

from depthbench.tst import VARIANTS, build_tst
from depthbench.tst.losses import DepthLoss


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    """A smooth colour pattern (batch, 3, height, width) in [0, 1], the same on every machine."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    planes = [(torch.sin((3 + i) * x + 5 * y + i) + 1) / 2 for i in range(3)]
    return torch.stack(planes).expand(batch, -1, -1, -1).contiguous()


def seeded(name: str, **overrides) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_tst(name, **overrides).eval()


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 160), (224, 224)])
@torch.no_grad()
def test_depth_has_the_input_size_and_stays_between_bounds(name, height, width):
    depth = seeded(name)(image(height, width, batch=2))
    assert depth.shape == (2, 1, height, width)
    assert depth.dtype == torch.float32
    assert depth.min() > 0
    assert depth.max() < 10


GOLDEN = {  # mean, standard deviation, three pixels, in metres
    "tst-t": [2.496319, 0.004741, 2.493455, 2.495886, 2.495927],
    "tst-s": [2.507466, 0.009188, 2.515787, 2.496528, 2.498375],
    "tst-b": [2.493038, 0.007905, 2.504526, 2.489211, 2.495562],
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_seeded_golden_output(name):
    depth = seeded(name)(image(64, 96))[0, 0]
    seen = [depth.mean(), depth.std(), depth[0, 0], depth[31, 40], depth[63, 95]]
    torch.testing.assert_close(torch.stack(seen), torch.tensor(GOLDEN[name]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(100, 64), (64, 72), (16, 32), (0, 32), (225, 224)])
def test_other_sizes_are_refused(height, width):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        seeded("tst-t")(torch.zeros(1, 3, height, width))
    assert str(error.value) == f"input is {height}x{width}: height and width must be multiples of 32"


@pytest.mark.parametrize("max_depth", [10.0, 80.0])
def test_an_untrained_network_says_about_a_quarter_of_max_depth(max_depth):
    for seed in range(3):
        torch.manual_seed(seed)
        model = build_tst("tst-s", max_depth=max_depth).train()
        depth = model(torch.rand(2, 3, 64, 64))
        assert 0.2 * max_depth < depth.mean() < 0.3 * max_depth


@pytest.mark.parametrize("overrides", [{}, {"share_tokens": False}, {"fusion": False}], ids=str)
def test_gradient_reaches_every_parameter(overrides):
    model, rgb = seeded("tst-t", **overrides), torch.rand(2, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(rgb)  # batch norm adopts the statistics of this batch
    model.eval()  # in training mode it would take away every constant, and so the gradient of the biases before it
    DepthLoss()(model(rgb), 1 + 4 * torch.rand(2, 1, 64, 64), rgb).backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-8}
    # A key bias adds the same to all scores of a query, which softmax takes away: its gradient is 0 by construction.
    assert {name for name in still if not name.endswith("attention.key.bias")} == set()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@torch.no_grad()
def test_number_of_tokens_does_not_depend_on_the_input_size():
    model = seeded("tst-t")
    seen = []
    model.tokenizers[0].blocks[0].register_forward_hook(lambda _m, args, _out: seen.append(tuple(args[0].shape)))
    for height, width in [(32, 32), (64, 128), (224, 224)]:
        model(image(height, width))
    assert set(seen) == {(1, 16, 128)}
    assert len(seen) == 3 * model.config.layers  # the one block is applied layers times


@torch.no_grad()
def test_grid_sets_the_number_of_tokens():
    for grid in (2, 6):
        model = seeded("tst-t", grid=grid)
        _, tokens = model.tokenize(image(64, 64))
        assert [tuple(t.shape) for t in tokens] == [(1, 128, grid, grid)] * 4
        assert model(image(64, 64)).shape == (1, 1, 64, 64)


@torch.no_grad()
def test_tokens_reach_every_scale():
    """Moving the one token map moves the output of every injection at every position."""
    model = seeded("tst-t")
    maps, tokens = model.tokenize(image(64, 64))
    assert len({id(t) for t in tokens}) == 1
    for inject, x, token in zip(model.injections, maps, tokens, strict=True):
        moved = (inject(x, token + 1) - inject(x, token)).abs().amax((0, 1))
        assert moved.min() > 0


def test_share_layers_off_stores_one_block_per_layer():
    shared, own = seeded("tst-t"), seeded("tst-t", share_layers=False)
    block = parameters(shared.tokenizers[0].blocks[0])
    assert len(shared.tokenizers[0].blocks) == 1
    assert len(own.tokenizers[0].blocks) == own.config.layers
    assert parameters(own) == parameters(shared) + (own.config.layers - 1) * block


@torch.no_grad()
def test_share_tokens_off_gives_each_scale_tokens_of_its_own():
    shared, own = seeded("tst-t"), seeded("tst-t", share_tokens=False)
    config, rest = own.config, parameters(shared.tokenizers) - sum(shared.config.channels) * shared.config.dim
    assert len(own.tokenizers) == 4
    assert parameters(own.tokenizers) == 4 * rest + sum(config.channels) * config.dim
    maps, tokens = own.tokenize(image(64, 64))
    for i in range(4):
        changed = [x.clone() for x in maps]
        changed[i] += 1
        differs = [
            not torch.equal(tokenizer([x]), token)
            for tokenizer, x, token in zip(own.tokenizers, changed, tokens, strict=True)
        ]
        assert differs == [i == j for j in range(4)]


@torch.no_grad()
def test_fusion_off_averages_one_map_per_scale():
    fused, separate = seeded("tst-t"), seeded("tst-t", fusion=False, refinement=False)
    assert (len(fused.heads), len(separate.heads)) == (1, 4)
    assert parameters(seeded("tst-t", fusion=False)) == parameters(fused) + 3 * (fused.config.decoder + 1)
    for i, head in enumerate(separate.heads):  # constant maps of logits 0, 4, 8, 12: their mean is 6
        head.weight.zero_()
        head.bias.fill_(4.0 * i)
    depth = separate(image(64, 64))
    torch.testing.assert_close(depth, 10 * torch.full_like(depth, 6.0).sigmoid())


@torch.no_grad()
def test_refinement_off_removes_its_parameters_and_the_input_edges():
    refined, plain = seeded("tst-t"), seeded("tst-t", refinement=False)
    assert plain.refinement is None
    assert parameters(plain) == parameters(refined) - parameters(refined.refinement)
    assert plain(image(64, 64)).shape == (1, 1, 64, 64)


def test_edge_loss_flag_leaves_the_network_as_it_is():
    on, off = seeded("tst-t"), seeded("tst-t", edge_loss=False)
    assert on.config.edge_loss
    assert not off.config.edge_loss
    assert all(torch.equal(a, b) for a, b in zip(on.state_dict().values(), off.state_dict().values(), strict=True))
