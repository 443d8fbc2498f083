"""The Token-Sharing Transformer (TST) for metric monocular depth, after arXiv 2306.05682.

Tokenization (stem, pyramid, patch embedding) → token sharing (one block applied L times) → depth prediction (tokens
injected into every scale, top-down fusion, edge-guided refinement, upsampling).
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.tst.config import START_LOGIT, STRIDES, VARIANTS, TSTConfig
from depthbench.tst.layers import (
    ConvBN,
    InvertedResidual,
    Refinement,
    TokenInjection,
    Tokenizer,
    check_size,
)
from depthbench.tst.reference import TSTSource, TSTSourceFast


class TST(nn.Module):
    """Token-Sharing Transformer: ``rgb`` (B, 3, H, W) in [0, 1] → depth (B, 1, H, W) in metres, in (0, max_depth)."""

    def __init__(self, config: TSTConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvBN(3, config.stem, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        inputs = config.stem
        for channels, depth, expansion, kernel in zip(
            config.channels, config.depths, config.expansions, config.kernels, strict=True
        ):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 else 1
                blocks.append(InvertedResidual(inputs, channels, kernel=kernel, stride=stride, expansion=expansion))
                inputs = channels
            self.stages.append(nn.Sequential(*blocks))

        sources = [sum(config.channels)] if config.share_tokens else list(config.channels)
        self.tokenizers = nn.ModuleList(
            Tokenizer(
                channels,
                config.dim,
                grid=config.grid,
                heads=config.heads,
                layers=config.layers,
                ffn_ratio=config.ffn_ratio,
                share_layers=config.share_layers,
            )
            for channels in sources
        )
        self.injections = nn.ModuleList(TokenInjection(c, config.dim, config.decoder) for c in config.channels)
        self.fusions = nn.ModuleList(
            nn.Sequential(
                ConvBN(config.decoder, config.decoder, kernel=5, groups=config.decoder),
                ConvBN(config.decoder, config.decoder),
            )
            for _ in config.channels
        )
        self.heads = nn.ModuleList(nn.Conv2d(config.decoder, 1, 1) for _ in (STRIDES[:1] if config.fusion else STRIDES))
        self.refinement = Refinement(config.decoder, config.refine) if config.refinement else None
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02)
        for injection in self.injections:
            assert isinstance(injection, TokenInjection)
            for projection in (injection.gate, injection.value):  # of normalised tokens: small, like a linear layer
                nn.init.trunc_normal_(projection.weight, std=0.02)
        predictors = [*self.heads] if self.refinement is None else [*self.heads, self.refinement.residual]
        for predictor in predictors:
            assert isinstance(predictor, nn.Conv2d)
            assert predictor.bias is not None
            nn.init.normal_(predictor.weight, std=0.01)
            nn.init.constant_(predictor.bias, START_LOGIT if predictor in self.heads else 0.0)

    def tokenize(self, rgb: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """``rgb`` (B, 3, H, W) → feature maps (B, C_i, H/s, W/s) for s = 4, 8, 16, 32, and the token map of each scale
        (B, dim, grid, grid): four times the same one when tokens are shared."""
        x = self.stem(rgb)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        if self.config.share_tokens:
            return maps, [self.tokenizers[0](maps)] * len(maps)
        return maps, [tokenizer([x]) for tokenizer, x in zip(self.tokenizers, maps, strict=True)]

    def forward(self, rgb: Tensor) -> Tensor:
        """``rgb`` (B, 3, H, W) float in [0, 1] → depth (B, 1, H, W) in metres, 0 < depth < ``max_depth``.

        ``ValueError`` unless H and W are multiples of 32.
        """
        check_size(rgb)
        maps, tokens = self.tokenize(rgb)
        scales: list[Tensor] = []  # coarsest first
        for x, token, inject, fuse in reversed(list(zip(maps, tokens, self.injections, self.fusions, strict=True))):
            injected = inject(x, token)  # (B, decoder, H/s, W/s)
            if self.config.fusion and scales:
                injected = injected + F.interpolate(scales[-1], scale_factor=2.0, mode="nearest")
            scales.append(fuse(injected))
        scales.reverse()
        logit = self.heads[0](scales[0])  # (B, 1, H/4, W/4)
        if not self.config.fusion:
            for scale, head, stride in zip(scales[1:], self.heads[1:], STRIDES[1:], strict=True):
                logit = logit + F.interpolate(
                    head(scale), scale_factor=stride / STRIDES[0], mode="bilinear", align_corners=False
                )
            logit = logit / len(scales)
        if self.refinement is not None:
            logit = self.refinement(scales[0], logit, rgb)  # (B, 1, H/2, W/2)
        depth = self.config.max_depth * logit.sigmoid()
        factor = STRIDES[0] if self.refinement is None else STRIDES[0] // 2
        return F.interpolate(depth, scale_factor=float(factor), mode="bilinear", align_corners=False)


def build_tst(name: str, **overrides: Any) -> nn.Module:
    """Build a TST by name: a key of ``VARIANTS``, or ``"tst-source"`` (the fast form of the source's pseudo code).

    ``overrides`` replace fields of the variant's :class:`TSTConfig`; for ``"tst-source"`` they are arguments of
    :class:`~depthbench.tst.reference.TSTSource`. ``ValueError`` names an unknown model or option, and the choices.
    """
    names = sorted([*VARIANTS, "tst-source"])
    if name not in names:
        raise ValueError(f"unknown TST {name!r}: choose from {', '.join(names)}")
    known = inspect.signature(TSTConfig if name in VARIANTS else TSTSource).parameters
    for option in overrides:
        if option not in known:
            raise ValueError(f"unknown option {option!r} of {name}: choose from {', '.join(sorted(known))}")
    if name == "tst-source":
        return TSTSourceFast(TSTSource(**overrides))
    return TST(replace(VARIANTS[name], **overrides))
