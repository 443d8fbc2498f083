"""Layers of the Token-Sharing Transformer. They take flat keyword arguments; only the model sees a configuration."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def constants_in_trace() -> Iterator[None]:
    """Silence the tracer's warning that a value becomes a constant: exports have fixed shapes on purpose."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def static_size(x: Tensor) -> tuple[int, int]:
    """Height and width of ``x`` (..., H, W) as Python integers, while tracing too."""
    with constants_in_trace():
        return int(x.shape[-2]), int(x.shape[-1])


def shaped(x: Tensor, *sizes: int) -> Tensor:
    """``x`` (B, ...) as (B, *sizes). Fixed sizes leave no arithmetic on shapes in an exported graph; the batch stays free."""
    return x.reshape(-1, *sizes)


def static_channels(x: Tensor) -> int:
    """The second size of ``x`` (B, C, ...) as a Python integer, while tracing too."""
    with constants_in_trace():
        return int(x.shape[1])


def check_size(rgb: Tensor) -> None:
    """``ValueError`` unless height and width of ``rgb`` (B, 3, H, W) are multiples of 32."""
    height, width = static_size(rgb)
    if height % 32 or width % 32 or not height or not width:
        raise ValueError(f"input is {height}x{width}: height and width must be multiples of 32")


@lru_cache(maxsize=256)
def pooling_matrix(size: int, grid: int) -> NDArray[np.float32]:
    """(size, grid): right-multiplied, adaptive average pooling of an axis (the windows of torch's AdaptiveAvgPool)."""
    matrix = np.zeros((size, grid), dtype=np.float32)
    for i in range(grid):
        start, end = (i * size) // grid, -(-(i + 1) * size // grid)
        matrix[start:end, i] = 1 / (end - start)
    return matrix


@lru_cache(maxsize=256)
def upsampling_matrix(grid: int, size: int) -> NDArray[np.float32]:
    """(grid, size): right-multiplied, bilinear interpolation of an axis (torch's, with ``align_corners=False``)."""
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    low = np.floor(position).astype(np.int64)
    weight = position - low
    matrix = np.zeros((grid, size), dtype=np.float32)
    matrix[low, np.arange(size)] += 1 - weight
    matrix[np.minimum(low + 1, grid - 1), np.arange(size)] += weight
    return matrix


def constant(matrix: NDArray[np.float32], like: Tensor) -> Tensor:
    """A fixed matrix as a tensor of the type and device of ``like``."""
    with constants_in_trace():
        return torch.from_numpy(matrix).to(like)


def along_rows(matrix: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """``matrix`` (n, m) for the rows of maps whose rows and columns are flattened: (n·columns, m·columns).

    Right-multiplied too, so that no product needs a transposed copy of the map.
    """
    return np.kron(matrix, np.eye(columns, dtype=np.float32))


def pool_to_grid(x: Tensor, grid: int) -> Tensor:
    """(B, C, H, W) → (B, C, grid, grid): adaptive average pooling as two products with fixed matrices."""
    channels, (height, width) = static_channels(x), static_size(x)
    x = x @ constant(pooling_matrix(width, grid), x)  # (B, C, H, grid)
    rows = along_rows(pooling_matrix(height, grid), grid)
    x = shaped(x, channels, height * grid) @ constant(rows, x)  # (B, C, grid²)
    return shaped(x, channels, grid, grid)


def grid_to_size(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, g, g) → (B, C, height, width): bilinear upsampling as two products with fixed matrices."""
    channels, (grid_height, grid_width) = static_channels(x), static_size(x)
    rows = along_rows(upsampling_matrix(grid_height, height), grid_width)
    x = shaped(x, channels, grid_height * grid_width) @ constant(rows, x)  # (B, C, height · g)
    x = shaped(x, channels, height, grid_width)
    return x @ constant(upsampling_matrix(grid_width, width), x)  # (B, C, height, width)


class ConvBN(nn.Sequential):
    """Convolution without bias, padded to keep the size at stride 1, batch norm, ReLU unless ``relu=False``."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            *([nn.ReLU(inplace=True)] if relu else []),
        )


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, linear projection, residual (MobileNetV2, section 3.3).

    (B, inputs, H, W) → (B, outputs, H / stride, W / stride); the residual is added where both shapes are equal.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = ConvBN(inputs, hidden)
        self.depthwise = ConvBN(hidden, hidden, kernel=kernel, stride=stride, groups=hidden)
        self.project = ConvBN(hidden, outputs, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Attention(nn.Module):
    """Multi-head self-attention, written out: (B, K, dim) → (B, K, dim)."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """(B, K, dim) → (B, heads, K, dim / heads)."""
        tokens, dim = static_size(x)
        return shaped(x, tokens, self.heads, dim // self.heads).transpose(1, 2)  # (B, heads, K, head_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Softmax(q·kᵀ / √head_dim)·v over the K tokens, per head."""
        scale = (self.query.out_features // self.heads) ** -0.5
        query, key, value = self.split(self.query(tokens)), self.split(self.key(tokens)), self.split(self.value(tokens))
        attention = ((query * scale) @ key.transpose(2, 3)).softmax(dim=-1)  # (B, heads, K, K)
        mixed = (attention @ value).transpose(1, 2)  # (B, K, heads, head_dim)
        heads, head_dim = static_size(mixed)
        out: Tensor = self.out(shaped(mixed, static_channels(mixed), heads * head_dim))  # (B, K, dim)
        return out


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each with a residual and then layer normalisation, in the source's order.

    (B, K, dim) → (B, K, dim). Normalising after the residual keeps the tokens' scale fixed however often one block is
    applied.
    """

    def __init__(self, dim: int, *, heads: int, ffn_ratio: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, dim * ffn_ratio), nn.ReLU(), nn.Linear(dim * ffn_ratio, dim))
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the block once."""
        tokens = self.norm1(tokens + self.attention(tokens))
        out: Tensor = self.norm2(tokens + self.ffn(tokens))
        return out


class Tokenizer(nn.Module):
    """Patch embedding and transformer: feature maps of any sizes → K = grid² tokens, as a (B, dim, grid, grid) map.

    Every map is pooled to grid × grid, the channels are concatenated and projected to ``dim``, a learned position is
    added, and the block is applied ``layers`` times: the same block, or with ``share_layers=False`` one of its own each
    time.
    """

    index: Tensor

    def __init__(
        self, inputs: int, dim: int, *, grid: int, heads: int, layers: int, ffn_ratio: int, share_layers: bool
    ) -> None:
        super().__init__()
        self.grid = grid
        self.layers = layers
        self.embed = ConvBN(inputs, dim, relu=False)
        self.position = nn.Embedding(grid**2, dim)
        self.register_buffer("index", torch.arange(grid**2), persistent=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads=heads, ffn_ratio=ffn_ratio) for _ in range(1 if share_layers else layers)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) → token map (B, dim, grid, grid)."""
        pooled = [pool_to_grid(x, self.grid) for x in maps]
        x = self.embed(torch.cat(pooled, dim=1))  # (B, dim, grid, grid)
        dim = static_channels(x)
        tokens: Tensor = shaped(x, dim, self.grid**2).transpose(1, 2) + self.position(self.index)  # (B, K, dim)
        for i in range(self.layers):
            tokens = self.blocks[i % len(self.blocks)](tokens)
        return shaped(tokens.transpose(1, 2), dim, self.grid, self.grid)


class TokenInjection(nn.Module):
    """Global tokens into one decoder scale: local · gate + value, gate and value upsampled from the token grid.

    The gate's sigmoid is taken on the grid, before the upsampling: it stays in (0, 1) and costs K values, not H·W.
    """

    def __init__(self, inputs: int, dim: int, outputs: int) -> None:
        super().__init__()
        self.local = ConvBN(inputs, outputs, relu=False)
        self.gate = nn.Conv2d(dim, outputs, 1)
        self.value = nn.Conv2d(dim, outputs, 1)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Features (B, inputs, H, W) and tokens (B, dim, g, g) → (B, outputs, H, W)."""
        height, width = static_size(x)
        gate = grid_to_size(self.gate(tokens).sigmoid(), height, width)
        value = grid_to_size(self.value(tokens), height, width)
        out: Tensor = self.local(x) * gate + value
        return out


class Refinement(nn.Module):
    """A residual for the coarse logit map, from the decoder's features and the edges of the input, at 1/2 resolution.

    (B, channels, H/4, W/4), (B, 1, H/4, W/4), (B, 3, H, W) → (B, 1, H/2, W/2). The Sobel filter is a fixed buffer. The
    edges join by addition after a convolution of their own, which equals one convolution of the concatenation.
    """

    sobel: Tensor

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        horizontal = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
        luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        sobel = torch.stack([horizontal, horizontal.T])[:, None] * luminance  # (2, 3, 3, 3)
        self.register_buffer("sobel", sobel, persistent=False)
        self.reduce = ConvBN(channels, hidden, relu=False)
        self.edges = ConvBN(2, hidden, kernel=3, relu=False)
        self.residual = nn.Conv2d(hidden, 1, 3, padding=1)

    def edge_map(self, rgb: Tensor) -> Tensor:
        """|horizontal| and |vertical| Sobel gradient of the luminance: (B, 3, H, W) → (B, 2, H/2, W/2)."""
        return F.conv2d(rgb, self.sobel, stride=2, padding=1).abs()

    def forward(self, x: Tensor, logit: Tensor, rgb: Tensor) -> Tensor:
        """Refined logit at twice the resolution of ``logit``."""
        x = F.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest")
        x = (x + self.edges(self.edge_map(rgb))).relu()
        out: Tensor = F.interpolate(logit, scale_factor=2.0, mode="bilinear", align_corners=False) + self.residual(x)
        return out
