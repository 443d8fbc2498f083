from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from depthbench.baselines import MOBILEVIT, MobileViTDepth, build_mobilevit, load_mobilevit_checkpoint
from depthbench.baselines.mobilevit import Attention

if TYPE_CHECKING:
    from transformers import MobileViTForImageClassification

# apple/mobilevit-xx-small, -x-small and -small, as far as they differ from the defaults of transformers
PUBLISHED = {
    "mobilevit-xxs": {
        "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
        "hidden_sizes": [64, 80, 96],
        "expand_ratio": 2.0,
    },
    "mobilevit-xs": {"neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384], "hidden_sizes": [96, 120, 144]},
    "mobilevit-s": {"neck_hidden_sizes": [16, 32, 64, 96, 128, 160, 640], "hidden_sizes": [144, 192, 240]},
}


@pytest.fixture
def published(randomized) -> Callable[[str], MobileViTForImageClassification]:
    from transformers import MobileViTConfig, MobileViTForImageClassification  # takes seconds: not while collecting

    return lambda name: randomized(MobileViTForImageClassification(MobileViTConfig(num_labels=5, **PUBLISHED[name])))


def test_every_variant_is_compared():
    assert list(PUBLISHED) == list(MOBILEVIT)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prefix", [True, False])
def test_encoder_equals_transformers_given_a_checkpoint(name, prefix, published, picture, tmp_path):
    """Every stage's output, for RGB here and BGR there; 224 has a 7×7 map, which both resize to 8×8 and back."""
    reference = published(name)
    weights = reference.state_dict() if prefix else reference.mobilevit.state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    network = build_mobilevit(name).eval()
    load_mobilevit_checkpoint(network, tmp_path / "model.safetensors")
    for size in ((224, 224), (256, 320), (96, 160)):
        rgb = picture(*size)
        with torch.no_grad():
            features = network.encoder(rgb)
            expected = reference.mobilevit(rgb.flip(1), output_hidden_states=True).hidden_states
            other = network.encoder(rgb.flip(1))
        assert [f.shape[-1] for f in features] == [size[1] // stride for stride in (2, 4, 8, 16, 32)]
        assert len(expected) == 5
        for ours, theirs, swapped in zip(features, expected, other, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
            assert (swapped - theirs).abs().max() > 1e-2  # the order of the colours does matter


def test_checkpoint_leaves_decoder_alone(published, tmp_path):
    save_file(published("mobilevit-xxs").state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(0)
    network = build_mobilevit("mobilevit-xxs")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_mobilevit_checkpoint(network, str(tmp_path / "model.safetensors"))
    after = network.state_dict()
    for name, tensor in before.items():
        if name.startswith(("decoder.", "head.")):
            assert torch.equal(after[name], tensor), name
    changed = [n for n in before if n.startswith("encoder.") and before[n].is_floating_point()]
    assert not any(torch.equal(after[name], before[name]) for name in changed)


def spoil(weights: dict[str, torch.Tensor], how: str) -> str:
    key = "mobilevit.encoder.layer.2.transformer.layer.1.attention.attention.query.weight"
    match how:
        case "missing":
            del weights[key]
            return f"weight {key.removeprefix('mobilevit.')} is missing"
        case "shape":
            weights[key] = weights[key][:-1].contiguous()
            return f"weight {key.removeprefix('mobilevit.')} is (63, 64), this model's is (64, 64)"
        case _:
            weights["mobilevit.encoder.layer.5.extra"] = torch.zeros(1)
            return "weight encoder.layer.5.extra is unexpected"


@pytest.mark.parametrize("how", ["missing", "shape", "unexpected"])
def test_checkpoint_errors_name_the_weight_and_change_nothing(how, published, tmp_path):
    weights = published("mobilevit-xxs").state_dict()
    message = spoil(weights, how)
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    network = build_mobilevit("mobilevit-xxs")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}$"):
        load_mobilevit_checkpoint(network, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"not weights at all"])
def test_unreadable_checkpoint(content, tmp_path):
    path: Path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: not a readable safetensors file \(.+\)$"):
        load_mobilevit_checkpoint(build_mobilevit("mobilevit-xxs"), path)


COSTS = {  # millions of parameters and GMAC at 224×224: of the encoder, of the whole
    "mobilevit-xxs": ((0.92, 0.25), (0.96, 0.31)),
    "mobilevit-xs": ((1.90, 0.70), (1.94, 0.76)),
    "mobilevit-s": ((4.83, 1.41), (4.94, 1.50)),
}


@pytest.mark.parametrize("name", MOBILEVIT)
def test_costs(name, count_gmacs):
    network = build_mobilevit(name).eval()
    costs = tuple(
        (round(sum(p.numel() for p in part.parameters()) / 1e6, 2), round(count_gmacs(part), 2))
        for part in (network.encoder, network)
    )
    assert costs == COSTS[name]


@pytest.mark.parametrize("name", MOBILEVIT)
@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 32), (224, 224)])
def test_depth_has_the_input_size_and_range(name, height, width, picture):
    torch.manual_seed(0)
    network = build_mobilevit(name, max_depth=8.0).eval()
    depth = network(picture(height, width).repeat(2, 1, 1, 1))
    assert depth.shape == (2, 1, height, width)
    assert depth.dtype == torch.float32
    assert 0 < depth.min() < depth.max() < 8
    assert depth.mean().item() == pytest.approx(2.0, abs=0.3)  # a quarter of max_depth


def test_images_of_a_batch_do_not_mix(randomized, picture):
    network = randomized(build_mobilevit("mobilevit-xxs"))
    first, second = picture(96, 160), picture(96, 160).flip(2)
    with torch.no_grad():
        together = network(torch.cat([first, second]))
        torch.testing.assert_close(together, torch.cat([network(first), network(second)]), atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize("inner", [32, 16])
def test_attention_takes_the_width_of_a_head_from_its_weights(inner):
    """As it is, and after half of each head was pruned away: equal to torch's own attention."""
    torch.manual_seed(0)
    attention = Attention(32, heads=4)
    attention.query, attention.key, attention.value = (nn.Linear(32, inner) for _ in range(3))
    attention.out = nn.Linear(inner, 32)
    x = torch.randn(3, 10, 32)
    q, k, v = (
        layer(x).unflatten(2, (4, inner // 4)).transpose(1, 2)
        for layer in (attention.query, attention.key, attention.value)
    )
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected)


GOLDEN = {
    "mobilevit-xxs": [2.54543, 2.68639, 2.51594, 2.51507, 2.47292, 2.53265, 2.51019, 2.58868],
    "mobilevit-xs": [2.50544, 2.49182, 2.50669, 2.50044, 2.50281, 2.52154, 2.50919, 2.50406],
    "mobilevit-s": [2.50443, 2.49719, 2.50017, 2.50435, 2.50118, 2.50847, 2.50011, 2.50533],
}


@pytest.mark.parametrize("name", MOBILEVIT)
def test_golden_output(name, picture):
    torch.manual_seed(0)
    network = build_mobilevit(name).eval()
    with torch.no_grad():
        depth = network(picture(64, 96))
    values = [*depth[0, 0, ::21, ::32].flatten()[:7].tolist(), depth.mean().item()]
    assert values == pytest.approx(GOLDEN[name], abs=2e-5)


@pytest.mark.parametrize("name", MOBILEVIT)
def test_every_parameter_is_trained(name, picture):
    """All but the keys' biases, which add the same to every score of a query and vanish in the softmax."""
    torch.manual_seed(0)
    network = build_mobilevit(name).train()
    rgb = torch.cat([picture(64, 96), picture(64, 96).flip(3)])
    (network(rgb) * torch.linspace(0, 1, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    without = [n for n, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert [name for name in without if not name.endswith(".key.bias")] == []


@pytest.mark.parametrize(
    ("name", "size", "opset"),
    [
        *(("mobilevit-xxs", size, opset) for size in ((224, 224), (256, 320)) for opset in (17, 13)),
        ("mobilevit-xs", (224, 224), 13),
        ("mobilevit-s", (256, 320), 17),
    ],
)
def test_export_equals_eager(name, size, opset, randomized, exported_difference):
    difference, operators = exported_difference(randomized(build_mobilevit(name)), size, opset)
    assert difference < 1e-4
    assert not {"Shape", "Gather", "Loop", "If", "GridSample"} & set(operators)  # all sizes are constants
    assert operators.count("LayerNormalization") == (21 if opset == 17 else 0)
    assert operators.count("Resize") == 5


@pytest.mark.parametrize(("height", "width"), [(225, 224), (224, 100), (0, 32)])
def test_size_error(height, width):
    message = f"input is {height}x{width}: height and width must be multiples of 32"
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_mobilevit("mobilevit-xxs")(torch.zeros(1, 3, height, width))


def test_name_error():
    message = "unknown model 'mobilevit-xx'; did you mean mobilevit-xxs? "
    message += "(choices: mobilevit-s, mobilevit-xs, mobilevit-xxs)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_mobilevit("mobilevit-xx")


def test_max_depth_error():
    with pytest.raises(ValueError, match=r"^max_depth is -1\.0: must be above 0 m$"):
        build_mobilevit("mobilevit-xxs", max_depth=-1.0)


def test_decoder_widths_must_fit_the_stages():
    config = MOBILEVIT["mobilevit-xxs"]
    with pytest.raises(ValueError, match=r"^3 decoder widths: must be 4, for strides 16, 8, 4, 2$"):
        MobileViTDepth(
            stages=config.stages, tokens=config.tokens, decoder=config.decoder[:3], expand=config.expand, heads=4
        )
