"""Configuration of the Token-Sharing Transformer: its numbers, its ablation flags, its published variants."""

from __future__ import annotations

import math
from dataclasses import dataclass

STRIDES = (4, 8, 16, 32)
"""Strides of the four pyramid stages, relative to the input."""

START_LOGIT = math.log(0.25 / 0.75)
"""Logit of an untrained network: a quarter of ``max_depth``, 2.5 m of 10 m, about the mean of an indoor scene."""


LARGEST = {
    "stem": 512,
    "channels": 2048,
    "depths": 64,
    "expansions": 16,
    "kernels": 15,
    "dim": 2048,
    "heads": 64,
    "layers": 64,
    "decoder": 1024,
    "refine": 512,
    "ffn_ratio": 16,
    "grid": 64,
}
"""Far above any lightweight network; larger numbers are slips, and would take a machine's memory before anything says so."""


@dataclass(frozen=True)
class TSTConfig:
    """All numbers of a TST. A variant is a row of :data:`VARIANTS`; an ablation is one flag changed.

    Raises ``ValueError`` when a value is out of its range.
    """

    stem: int  # channels of the 3×3 stride-2 stem, the only features at 1/2 of the input's resolution
    channels: tuple[int, int, int, int]  # channels of the stages at 1/4, 1/8, 1/16, 1/32
    depths: tuple[int, int, int, int]  # inverted-residual blocks per stage
    expansions: tuple[int, int, int, int]  # expansion ratio of the blocks of each stage
    kernels: tuple[int, int, int, int]  # depthwise kernel size of the blocks of each stage
    dim: int  # width of a token
    heads: int  # attention heads
    layers: int  # times the transformer block is applied
    decoder: int  # channels of every decoder scale
    refine: int  # channels of the refinement, at 1/2 of the input's resolution
    ffn_ratio: int = 2  # width of the feed-forward layer, in units of dim
    grid: int = 4  # side of the token grid: K = grid² tokens, whatever the input size
    max_depth: float = 10.0  # metres; depth is max_depth · sigmoid(logit)
    share_layers: bool = True  # off: each of the layers has its own block instead of one block applied layers times
    share_tokens: bool = True  # off: each scale has its own tokens, pooled from it alone, with own projection and block
    fusion: bool = True  # off: no top-down path; each scale predicts a map of its own, and the maps are averaged
    refinement: bool = True  # off: the map at 1/4 is upsampled as it is, without edge map and convolution residual
    edge_loss: bool = True  # off: training leaves the edge-aware term out of the loss; the network is the same

    def __post_init__(self) -> None:
        for name in ("stem", "dim", "heads", "layers", "decoder", "refine", "ffn_ratio", "grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name, most in LARGEST.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number < 1:
                    raise ValueError(f"{name} is {value}: each must be at least 1")
                if number > most:
                    raise ValueError(f"{name} is {value}: at most {most} is built")
        if not all(kernel % 2 for kernel in self.kernels):
            raise ValueError(f"kernels is {self.kernels}: each must be odd")
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}: it must be a multiple of heads, which is {self.heads}")
        if self.max_depth <= 0:
            raise ValueError(f"max_depth is {self.max_depth}: it must be positive metres")

    @property
    def tokens(self) -> int:
        """K, the number of global tokens."""
        return self.grid**2


VARIANTS: dict[str, TSTConfig] = {
    "tst-t": TSTConfig(
        stem=16,
        channels=(16, 32, 64, 128),
        depths=(2, 2, 4, 2),
        expansions=(2, 4, 4, 4),
        kernels=(3, 5, 3, 5),
        dim=128,
        heads=4,
        layers=4,
        decoder=48,
        refine=8,
    ),
    "tst-s": TSTConfig(
        stem=16,
        channels=(24, 48, 96, 160),
        depths=(2, 3, 5, 3),
        expansions=(2, 4, 4, 4),
        kernels=(3, 5, 3, 5),
        dim=192,
        heads=6,
        layers=4,
        decoder=64,
        refine=8,
    ),
    "tst-b": TSTConfig(
        stem=24,
        channels=(32, 64, 128, 224),
        depths=(2, 3, 6, 4),
        expansions=(3, 4, 4, 4),
        kernels=(3, 5, 3, 5),
        dim=256,
        heads=8,
        layers=6,
        decoder=96,
        refine=16,
    ),
}
"""Named variants: at most 0.12, 0.25 and 0.55 GMAC at 224×224."""
