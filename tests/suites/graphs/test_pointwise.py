"""1×1 convolutions of small batches: the same numbers and gradients, and nothing is left behind."""

import pytest
import torch
from torch import nn

from depthbench.suites.graphs.pointwise import rows_as_images


@pytest.mark.parametrize("shape", [(8, 6, 4, 4), (8, 6, 7, 5), (2, 6, 10, 3), (1, 6, 3, 3), (16, 6, 4, 4)], ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
def test_outputs_and_gradients_are_the_same(shape, layout):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 1, bias=False)
    )
    x = torch.randn(shape).contiguous(memory_format=layout)
    results = []
    for _ in range(2):
        network.zero_grad()
        given = x.clone().requires_grad_()
        with rows_as_images(network):
            patched = network[0].forward
            out = network(given)
        results.append([out, *torch.autograd.grad(out.square().sum(), [given, *network.parameters()])])
        assert patched is not network[0].forward
    plain_in = x.clone().requires_grad_()
    plain = network(plain_in)
    expected = [plain, *torch.autograd.grad(plain.square().sum(), [plain_in, *network.parameters()])]
    for ours, again, theirs in zip(*results, expected, strict=True):
        assert torch.equal(ours, again)
        torch.testing.assert_close(ours, theirs)


def test_only_plain_pointwise_convolutions_are_touched():
    network = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 1, stride=2),
            nn.Conv2d(4, 4, 1, groups=2),
            nn.Conv2d(4, 4, 3),
            nn.Linear(4, 4),
        ]
    )
    with rows_as_images(network):
        assert ["forward" in vars(part) for part in network] == [True, False, False, False, False]
    assert not any("forward" in vars(part) for part in network)


def test_an_error_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(4, 4, 1))
    with pytest.raises(RuntimeError), rows_as_images(network):
        network(torch.zeros(1, 3, 8, 8))
    assert "forward" not in vars(network[0])
