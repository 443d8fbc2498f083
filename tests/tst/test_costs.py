"""Multiply-accumulates of the variants, counted here by hooks and once more by fvcore."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from depthbench.tst import VARIANTS, build_tst

# fvcore scripts its losses when it is imported, and torch traces the model for it: both are announced as deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
]

LIMITS = {"tst-t": 0.12, "tst-s": 0.25, "tst-b": 0.55}
MULTIPLYING = {"conv", "linear", "matmul", "bmm", "addmm"}
OTHER = {"batch_norm", "layer_norm", "upsample_nearest2d", "upsample_bilinear2d"}  # fvcore counts them, MACs do not


def by_fvcore(model: nn.Module, rgb: torch.Tensor):
    from fvcore.nn import FlopCountAnalysis

    return FlopCountAnalysis(model, rgb).unsupported_ops_warnings(False).uncalled_modules_warnings(False)


class Products(TorchDispatchMode):
    """Counts the multiply-accumulates of every matrix product that reaches the dispatcher, linear layers included."""

    macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.macs += out.numel() * args[0].shape[-1]
        elif func is torch.ops.aten.addmm.default:
            self.macs += out.numel() * args[1].shape[-1]
        elif func is torch.ops.aten.convolution.default:
            self.macs += out.numel() * args[1][0].numel()
        return out


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_variants_keep_their_budget(name):
    model, rgb = build_tst(name).eval(), torch.zeros(1, 3, 224, 224)
    with Products() as ours:
        model(rgb)
    assert 0.8 * LIMITS[name] < ours.macs / 1e9 <= LIMITS[name]

    count = by_fvcore(model, rgb)
    theirs = count.by_operator()
    assert set(theirs) <= MULTIPLYING | OTHER
    assert sum(theirs[operator] for operator in MULTIPLYING & set(theirs)) == ours.macs
    assert not {"aten::scaled_dot_product_attention", "aten::einsum"} & set(count.unsupported_ops())


def test_parameters_in_millions():
    millions = {n: sum(p.numel() for p in build_tst(n).parameters()) / 1e6 for n in (*VARIANTS, "tst-source")}
    expected = {"tst-t": 0.589, "tst-s": 1.475, "tst-b": 3.269, "tst-source": 1.667}
    assert millions == pytest.approx(expected, abs=5e-4)


@torch.no_grad()
def test_transformer_costs_the_same_at_every_resolution():
    model = build_tst("tst-t").eval()
    blocks = []
    for size in (64, 224):
        blocks.append(by_fvcore(model, torch.zeros(1, 3, size, size)).by_module()["tokenizers.0.blocks"])
    assert blocks[0] == blocks[1] > 0


def test_only_the_stem_and_its_first_expansion_are_wide_at_half_resolution():
    """Nothing runs at full resolution, and convolutions at 1/2 are few: this is what keeps latency low."""
    model, seen = build_tst("tst-s").eval(), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _a, out, name=name: seen.append((name, out.shape[-1])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert max(width for _, width in seen) == 32
    half = [name for name, width in seen if width == 32]
    assert half == ["stem.0", "stages.0.0.expand.0", "refinement.edges.0", "refinement.residual"]
