"""MobileViT (Mehta and Rastegari, ICLR 2022) as the encoder of a depth network with a light decoder.

The encoder is the published one (its figure 1b): a stem, two stages of MobileNetV2 blocks, three stages with a
MobileViT block, at strides 2, 2, 4, 8, 16, 32; without dropout, and without the classifier and the 1×1 expansion before
it. The decoder is ours: top-down, bilinear upsampling, skips from strides 16, 8, 4 and 2, depthwise-separable
convolutions, one logit per pixel at stride 2, upsampled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.baselines.layers import (
    ConvNorm,
    DepthHead,
    check_name,
    check_size,
    init_weights,
    resize_bilinear,
    static_shape,
)

PATCH = 2  # side of a patch: pixels at the same place of every patch attend to each other
BLOCKS = (2, 4, 3)  # transformer layers of the last three stages


@dataclass(frozen=True)
class MobileViTConfig:
    """One size of the network: channels of the stem and the five stages, of the tokens, of the decoder.

    ``stages``: the stem (stride 2), then the stages at strides 2, 4, 8, 16, 32. ``tokens``: of the last three stages.
    ``decoder``: at strides 16, 8, 4, 2. ``expand``: width of an inverted residual's inside over its input.
    """

    stages: tuple[int, int, int, int, int, int]
    tokens: tuple[int, int, int]
    decoder: tuple[int, int, int, int]
    expand: int
    heads: int = 4


MOBILEVIT: Mapping[str, MobileViTConfig] = MappingProxyType(
    {
        "mobilevit-xxs": MobileViTConfig(
            stages=(16, 16, 24, 48, 64, 80), tokens=(64, 80, 96), decoder=(64, 64, 48, 32), expand=2
        ),
        "mobilevit-xs": MobileViTConfig(
            stages=(16, 32, 48, 64, 80, 96), tokens=(96, 120, 144), decoder=(80, 64, 48, 32), expand=4
        ),
        "mobilevit-s": MobileViTConfig(
            stages=(16, 32, 64, 96, 128, 160), tokens=(144, 192, 240), decoder=(128, 96, 64, 32), expand=4
        ),
    }
)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1×1, depthwise 3×3, reduce 1×1; residual when the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.expand = ConvNorm(inputs, inner, 1, act=nn.SiLU)
        self.depthwise = ConvNorm(inner, inner, 3, stride=stride, groups=inner, act=nn.SiLU)
        self.reduce = ConvNorm(inner, outputs, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        y: Tensor = self.reduce(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Attention(nn.Module):
    """Multi-head self-attention, written out; the width of a head follows from the projections' outputs."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        batch, count, _ = static_shape(x)
        q = self.query(x).reshape(batch, count, self.heads, -1).transpose(1, 2)  # (B, heads, N, d)
        k = self.key(x).reshape(batch, count, self.heads, -1).transpose(1, 2)  # (B, heads, N, d)
        v = self.value(x).reshape(batch, count, self.heads, -1).transpose(1, 2)  # (B, heads, N, d)
        scores = torch.matmul(q * static_shape(q)[-1] ** -0.5, k.transpose(-1, -2))  # (B, heads, N, N)
        y = torch.matmul(torch.softmax(scores, dim=-1), v)  # (B, heads, N, d)
        y = y.transpose(1, 2).reshape(batch, count, -1)  # (B, N, heads·d)
        projected: Tensor = self.out(y)
        return projected


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer: attention, then a feed-forward network of twice the width, each with a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, 2 * dim)
        self.mlp_out = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp_out(F.silu(self.mlp_in(self.norm2(x))))
        return x


class MobileViTStage(nn.Module):
    """A stride-2 inverted residual and one MobileViT block (section 3.1): local, global, fusion with the block's input.

    A feature map whose size is not a multiple of the patch is resized (bilinear) for the transformer and back.
    """

    def __init__(self, inputs: int, outputs: int, *, tokens: int, blocks: int, heads: int, expand: int) -> None:
        super().__init__()
        self.down = InvertedResidual(inputs, outputs, stride=2, expand=expand)
        self.local = ConvNorm(outputs, outputs, 3, act=nn.SiLU)
        self.to_tokens = nn.Conv2d(outputs, tokens, 1, bias=False)
        self.layers = nn.Sequential(*(TransformerLayer(tokens, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(tokens)
        self.from_tokens = ConvNorm(tokens, outputs, 1, act=nn.SiLU)
        self.fusion = ConvNorm(2 * outputs, outputs, 3, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/2, W/2)."""
        x = self.down(x)
        y = self.from_tokens(self.attend(self.to_tokens(self.local(x))))
        fused: Tensor = self.fusion(torch.cat((x, y), dim=1))
        return fused

    def attend(self, x: Tensor) -> Tensor:
        """The transformer over patches of ``x`` (B, D, H, W): unfold, attend across patches, fold back."""
        batch, _, height, width = static_shape(x)
        rows, columns = -(-height // PATCH), -(-width // PATCH)
        x = resize_bilinear(x, rows * PATCH, columns * PATCH)
        x = x.reshape(batch, -1, rows, PATCH, columns, PATCH)  # (B, D, rows, P, columns, P)
        x = x.permute(0, 3, 5, 2, 4, 1)  # (B, P, P, rows, columns, D)
        x = x.reshape(batch * PATCH * PATCH, rows * columns, -1)  # (B·P², rows·columns, D)
        x = self.norm(self.layers(x))
        x = x.reshape(batch, PATCH, PATCH, rows, columns, -1)  # (B, P, P, rows, columns, D)
        x = x.permute(0, 5, 3, 1, 4, 2)  # (B, D, rows, P, columns, P)
        x = x.reshape(batch, -1, rows * PATCH, columns * PATCH)  # (B, D, rows·P, columns·P)
        return resize_bilinear(x, height, width)


class MobileViTEncoder(nn.Module):
    """The published network up to its last stage."""

    def __init__(self, *, stages: Sequence[int], tokens: Sequence[int], expand: int, heads: int) -> None:
        super().__init__()
        self.stem = ConvNorm(3, stages[0], 3, stride=2, act=nn.SiLU)
        first = nn.Sequential(InvertedResidual(stages[0], stages[1], stride=1, expand=expand))
        second = nn.Sequential(
            InvertedResidual(stages[1], stages[2], stride=2, expand=expand),
            InvertedResidual(stages[2], stages[2], stride=1, expand=expand),
            InvertedResidual(stages[2], stages[2], stride=1, expand=expand),
        )
        rest = [
            MobileViTStage(inputs, outputs, tokens=dim, blocks=blocks, heads=heads, expand=expand)
            for inputs, outputs, dim, blocks in zip(stages[2:-1], stages[3:], tokens, BLOCKS, strict=True)
        ]
        self.stages = nn.ModuleList([first, second, *rest])

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five feature maps, (B, stages[i + 1], H/s, W/s) at strides s = 2, 4, 8, 16, 32."""
        x = self.stem(rgb)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Fuse(nn.Module):
    """One step up: project, upsample by 2, add the projected skip, refine with a depthwise-separable convolution."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.project = ConvNorm(inputs, outputs, 1, act=None)
        self.skip = ConvNorm(skip, outputs, 1, act=None)
        self.depthwise = ConvNorm(outputs, outputs, 3, groups=outputs, act=nn.SiLU)
        self.pointwise = ConvNorm(outputs, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``x`` (B, C, H, W) and ``skip`` (B, C', 2H, 2W) to (B, C", 2H, 2W)."""
        x = F.interpolate(self.project(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.pointwise(self.depthwise(F.silu(x + self.skip(skip))))
        return x


class MobileViTDepth(nn.Module):
    """A MobileViT encoder with the light depth decoder; arguments as in :class:`MobileViTConfig`."""

    def __init__(
        self,
        *,
        stages: Sequence[int],
        tokens: Sequence[int],
        decoder: Sequence[int],
        expand: int,
        heads: int,
        max_depth: float = 10.0,
    ) -> None:
        super().__init__()
        self.encoder = MobileViTEncoder(stages=stages, tokens=tokens, expand=expand, heads=heads)
        if len(decoder) != 4:
            raise ValueError(f"{len(decoder)} decoder widths: must be 4, for strides 16, 8, 4, 2")
        widths = (stages[-1], *decoder)
        self.decoder = nn.ModuleList(
            Fuse(inputs, skip, outputs)
            for inputs, skip, outputs in zip(widths[:-1], stages[-2:0:-1], widths[1:], strict=True)
        )
        self.head = DepthHead(widths[-1], max_depth)
        init_weights(self)

    def forward(self, rgb: Tensor) -> Tensor:
        """``rgb`` (B, 3, H, W) in [0, 1] to depth (B, 1, H, W) in metres, in (0, ``max_depth``).

        ``ValueError`` unless H and W are multiples of 32.
        """
        check_size(rgb)
        *skips, x = self.encoder(rgb)
        for fuse, skip in zip(self.decoder, reversed(skips), strict=True):
            x = fuse(x, skip)
        logits = F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head.depth(logits)


def build_mobilevit(name: str, max_depth: float = 10.0) -> MobileViTDepth:
    """An untrained MobileViT depth network by name, one of :data:`MOBILEVIT`; ``ValueError`` for another name."""
    check_name(name, MOBILEVIT)
    config = MOBILEVIT[name]
    return MobileViTDepth(
        stages=config.stages,
        tokens=config.tokens,
        decoder=config.decoder,
        expand=config.expand,
        heads=config.heads,
        max_depth=max_depth,
    )


# Ours to the published checkpoints' names, applied in this order.
_PUBLISHED_NAMES = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^stem\.", "conv_stem."),
        (r"^stages\.([01])\.", r"encoder.layer.\1.layer."),
        (r"^stages\.", "encoder.layer."),
        (r"\.layers\.", ".transformer.layer."),
        (r"\.to_tokens\.", ".conv_1x1.conv."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"^(encoder\.layer\.\d)\.norm\.", r"\1.layernorm."),
        (r"\.attention\.out\.", ".attention.output.dense."),
        (r"\.attention\.(query|key|value)\.", r".attention.attention.\1."),
        (r"\.mlp_in\.", ".intermediate.dense."),
        (r"\.mlp_out\.", ".output.dense."),
        (r"\.down\.", ".downsampling_layer."),
        (r"\.expand\.", ".expand_1x1."),
        (r"\.depthwise\.", ".conv_3x3."),
        (r"\.reduce\.", ".reduce_1x1."),
        (r"\.local\.", ".conv_kxk."),
        (r"\.from_tokens\.", ".conv_projection."),
        (r"\.conv\.", ".convolution."),
        (r"\.norm\.", ".normalization."),
    )
)
_CLASSIFIER = ("classifier.", "conv_1x1_exp.")  # the published classifier and the expansion before it: not used here


def _published_name(name: str) -> str:
    for pattern, replacement in _PUBLISHED_NAMES:
        name = pattern.sub(replacement, name)
    return name


def load_mobilevit_checkpoint(model: MobileViTDepth, path: str | Path) -> None:
    """Load a published MobileViT checkpoint (safetensors, with the names of ``transformers``) into ``model.encoder``.

    Names may have the prefix ``mobilevit.``; weights of the classifier are passed over; the decoder is left as it is.
    The published weights expect BGR images: the input channels of the first convolution are swapped, so that the loaded
    network takes RGB like every network here. ``ValueError`` when the file cannot be read, or naming the first weight
    that is missing, unexpected or wrongly shaped; the model is then unchanged.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    weights = {name.removeprefix("mobilevit."): tensor for name, tensor in tensors.items()}
    state: dict[str, Tensor] = {}
    for name, own in model.encoder.state_dict().items():
        published = _published_name(name)
        if published not in weights:
            raise ValueError(f"{path}: weight {published} is missing")
        tensor = weights.pop(published)
        if tensor.shape != own.shape:
            raise ValueError(f"{path}: weight {published} is {tuple(tensor.shape)}, this model's is {tuple(own.shape)}")
        state[name] = tensor
    for published in sorted(weights):
        if not published.startswith(_CLASSIFIER):
            raise ValueError(f"{path}: weight {published} is unexpected")
    state["stem.conv.weight"] = state["stem.conv.weight"].flip(1)  # BGR to RGB
    model.encoder.load_state_dict(state)
