"""The source's detailed pseudo code taken literally, and the algebraically equal form that is fast enough to use.

Where the pseudo code cannot be executed as written, it was read so:

* ``K`` is the number of tokens and, in the loop over layers, the keys; ``H`` is the hidden width (256) and the height
  of the image; ``F`` is the feed-forward output and the features. Here K is ``tokens`` and ``key``, H ``hidden``, and
  ``range(K)`` runs over the tokens.
* ``PatchEmbedding(C, patches=K)`` does not say how: C is averaged over a √K × √K grid of patches and each mean is
  projected linearly.
* The convolutions in the loop over scales get C at 1/2 resolution, so F_n stands at stride 2 · 2ⁿ: 256 for n = 7.
  Padded by one pixel, F_n has ⌈size / 2ⁿ⌉ rows and columns, at least one, for any input.
* ``Repeat(T_k, H/4 x W/4 x H/4)`` matches no F_n (the smallest is not at 1/4, and a token has H values, not H/4): the
  token is repeated over the height and width of each F_n, with all its values.
* ``Convolution`` inside the loop over tokens is one layer per scale, the same for every token.
* ``Upsample(scale_factor=2**n)`` would give C's resolution, or none that fits when a size was rounded up; its comment
  says input resolution: every map is upsampled bilinearly to the input's height and width.
* ``EdgeAwareLoss(D, E)`` returns a loss, not a depth map: it belongs to training
  (:func:`depthbench.tst.losses.edge_aware_loss`), so that E does not enter the prediction.
* Nothing makes D positive: depth is ``max_depth · sigmoid(D)``, as in every other model here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthbench.tst.config import START_LOGIT
from depthbench.tst.layers import TransformerBlock, check_size, pool_to_grid, static_size


class TSTSource(nn.Module):
    """The pseudo code, line by line: ``rgb`` (B, 3, H, W) in [0, 1] → depth (B, 1, H, W) in metres, in (0, max_depth).

    Naive on purpose; :class:`TSTSourceFast` computes the same. ``ValueError`` when ``tokens`` is not a square,
    ``heads`` does not divide ``hidden``, or ``hidden`` cannot be halved ``scales - 1`` times.
    """

    def __init__(
        self,
        *,
        tokens: int = 16,
        layers: int = 12,
        hidden: int = 256,
        heads: int = 4,
        scales: int = 8,
        max_depth: float = 10.0,
    ) -> None:
        super().__init__()
        if math.isqrt(tokens) ** 2 != tokens or tokens < 1:
            raise ValueError(f"tokens is {tokens}: it must be a square number")
        if hidden % heads:
            raise ValueError(f"hidden is {hidden}: it must be a multiple of heads, which is {heads}")
        if scales < 1 or hidden % 2 ** (scales - 1):
            raise ValueError(f"scales is {scales}: hidden, which is {hidden}, must be a multiple of 2 ** (scales - 1)")
        self.grid = math.isqrt(tokens)
        self.layers = layers
        self.max_depth = max_depth
        self.convolution = nn.Conv2d(3, hidden, 3, stride=2, padding=1)
        self.patch_embedding = nn.Linear(hidden, hidden)
        self.block = TransformerBlock(hidden, heads=heads, ffn_ratio=1)
        self.features = nn.ModuleList(
            nn.Conv2d(hidden, hidden // 2**n, 3, stride=2**n, padding=1) for n in range(scales)
        )
        self.predictors = nn.ModuleList(nn.Conv2d(hidden + hidden // 2**n, 1, 3, padding=1) for n in range(scales))
        self.smooth = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.dirac_(self.smooth.weight)
        nn.init.constant_(self.smooth.bias, START_LOGIT)  # type: ignore[arg-type]

    def transformer(self, T: Tensor) -> Tensor:
        """One layer of the pseudo code on tokens (B, K, hidden), head by head, with the weights of ``block``."""
        attention = self.block.attention
        query, key, value = attention.query(T), attention.key(T), attention.value(T)
        heads = []
        for q, k, v in zip(*(x.chunk(attention.heads, dim=-1) for x in (query, key, value)), strict=True):
            scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])  # (B, K, K)
            heads.append(scores.softmax(dim=-1) @ v)
        A = attention.out(torch.cat(heads, dim=-1))
        A = self.block.norm1(A + T)
        W1, relu, W2 = self.block.ffn
        Y: Tensor = self.block.norm2(W2(relu(W1(A))) + A)
        return Y

    def forward(self, rgb: Tensor) -> Tensor:
        """``ValueError`` unless H and W are multiples of 32."""
        check_size(rgb)
        size = rgb.shape[-2:]
        C = self.convolution(rgb)  # (B, hidden, H / 2, W / 2)
        patches = F.adaptive_avg_pool2d(C, self.grid)  # (B, hidden, √K, √K)
        T = self.patch_embedding(patches.flatten(2).transpose(1, 2))  # (B, K, hidden)
        for _ in range(self.layers):
            T = self.transformer(T)
        F_list = [feature(C) for feature in self.features]
        D_list = []
        for T_k in T.unbind(dim=1):
            D_k_list = []
            for F_n, predictor in zip(F_list, self.predictors, strict=True):
                repeated = T_k[:, :, None, None].expand(-1, -1, *F_n.shape[-2:])  # (B, hidden, H_n, W_n)
                D_n_k = predictor(torch.cat([repeated, F_n], dim=1))
                D_k_list.append(F.interpolate(D_n_k, size=size, mode="bilinear", align_corners=False))
            D_list.append(torch.stack(D_k_list).mean(dim=0))
        D = self.smooth(torch.stack(D_list).mean(dim=0))  # (B, 1, H, W)
        depth: Tensor = self.max_depth * D.sigmoid()
        return depth


class TSTSourceFast(nn.Module):
    """:class:`TSTSource` with the mean over tokens taken first.

    From the tokens to the mean depth map every step (repeat, concatenation, convolution, upsampling) is affine in the
    token, so the mean of the maps is the map of the mean token: one pass over the scales instead of K.
    """

    def __init__(self, source: TSTSource) -> None:
        super().__init__()
        self.source = source

    def forward(self, rgb: Tensor) -> Tensor:
        """``rgb`` (B, 3, H, W) in [0, 1] → depth (B, 1, H, W) in metres; ``ValueError`` as in :class:`TSTSource`."""
        check_size(rgb)
        source = self.source
        size = static_size(rgb)
        features = source.convolution(rgb)  # (B, hidden, H / 2, W / 2)
        pooled = pool_to_grid(features, source.grid)  # (B, hidden, √K, √K)
        tokens = source.patch_embedding(pooled.flatten(2).transpose(1, 2))  # (B, K, hidden)
        for _ in range(source.layers):
            tokens = source.block(tokens)
        mean = tokens.mean(dim=1)[:, :, None, None]  # (B, hidden, 1, 1)
        maps = []
        for feature, predictor in zip(source.features, source.predictors, strict=True):
            x = feature(features)  # (B, hidden / 2ⁿ, H_n, W_n)
            repeated = mean.expand(-1, -1, *static_size(x))  # (B, hidden, H_n, W_n)
            x = predictor(torch.cat([repeated, x], dim=1))
            maps.append(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        logit = source.smooth(torch.stack(maps).mean(dim=0))  # (B, 1, H, W)
        depth: Tensor = source.max_depth * logit.sigmoid()
        return depth
