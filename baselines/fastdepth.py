"""FastDepth (Wofk et al., "FastDepth: Fast Monocular Depth Estimation on Embedded Systems", ICRA 2019).

A MobileNetV1 encoder, and the decoder "NNConv5" with depthwise-separable 5×5 convolutions, nearest-neighbour
upsampling and additive skips. Two sets of widths: the full network, and the one that NetAdapt left.

One difference to the publication: the last 1×1 convolution there is followed by batch norm and ReLU and is unbounded;
here it has a bias and ends in ``max_depth · sigmoid``, as all networks of this package do, so that they are trained and
compared alike. Convolutions and their order are the published ones, and so are the costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.baselines.layers import ConvNorm, DepthHead, check_name, check_size, init_weights

STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the stem and the 13 separable convolutions of MobileNetV1
SKIPS = {1: 5, 2: 3, 3: 1}  # decoder layer: the encoder layer added to its upsampled output


@dataclass(frozen=True)
class FastDepthWidths:
    """Output channels of the 14 encoder layers (the stem first) and of the 5 decoder layers before the last one."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]


FASTDEPTH: Mapping[str, FastDepthWidths] = MappingProxyType(
    {
        "fastdepth": FastDepthWidths(
            encoder=(32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024),
            decoder=(512, 256, 128, 64, 32),
        ),
        "fastdepth-pruned": FastDepthWidths(
            encoder=(16, 56, 88, 120, 144, 256, 408, 376, 272, 288, 296, 328, 480, 512),
            decoder=(200, 256, 120, 56, 16),
        ),
    }
)


class Separable(nn.Sequential):
    """Depthwise convolution, then pointwise convolution, each with batch norm and activation (MobileNetV1, table 1)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, act: type[nn.Module]) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, kernel, stride=stride, groups=inputs, act=act)
        self.pointwise = ConvNorm(inputs, outputs, 1, act=act)


class FastDepth(nn.Module):
    """FastDepth of any widths; see :class:`FastDepthWidths` and :data:`FASTDEPTH`.

    ``ValueError`` when the number of widths is wrong or a skip's two ends differ in width.
    """

    def __init__(self, *, encoder: Sequence[int], decoder: Sequence[int], max_depth: float = 10.0) -> None:
        super().__init__()
        if (len(encoder), len(decoder)) != (14, 5):
            raise ValueError(f"{len(encoder)} encoder and {len(decoder)} decoder widths: must be 14 and 5")
        for to, source in SKIPS.items():
            if decoder[to] != encoder[source]:
                raise ValueError(
                    f"decoder[{to}] is {decoder[to]} and encoder[{source}] is {encoder[source]}: "
                    "they are added, so they must be equal"
                )
        layers: list[nn.Module] = [ConvNorm(3, encoder[0], 3, stride=STRIDES[0], act=nn.ReLU6)]
        for inputs, outputs, stride in zip(encoder[:-1], encoder[1:], STRIDES[1:], strict=True):
            layers.append(Separable(inputs, outputs, 3, stride=stride, act=nn.ReLU6))
        self.encoder = nn.ModuleList(layers)
        widths = (encoder[-1], *decoder)
        self.decoder = nn.ModuleList(Separable(inputs, outputs, 5, act=nn.ReLU) for inputs, outputs in pairwise(widths))
        self.head = DepthHead(widths[-1], max_depth)
        init_weights(self)

    def forward(self, rgb: Tensor) -> Tensor:
        """``rgb`` (B, 3, H, W) in [0, 1] to depth (B, 1, H, W) in metres, in (0, ``max_depth``).

        ``ValueError`` unless H and W are multiples of 32.
        """
        check_size(rgb)
        x, features = rgb, []
        for layer in self.encoder:
            x = layer(x)
            features.append(x)
        for index, layer in enumerate(self.decoder):
            x = F.interpolate(layer(x), scale_factor=2.0, mode="nearest")  # (B, D, h, w) to (B, D', 2h, 2w)
            if index in SKIPS:
                x = x + features[SKIPS[index]]
        return self.head.depth(self.head(x))


def build_fastdepth(name: str, max_depth: float = 10.0) -> FastDepth:
    """An untrained FastDepth by name, one of :data:`FASTDEPTH`; ``ValueError`` for another name."""
    check_name(name, FASTDEPTH)
    widths = FASTDEPTH[name]
    return FastDepth(encoder=widths.encoder, decoder=widths.decoder, max_depth=max_depth)
