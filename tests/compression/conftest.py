"""Small networks with the constructions that the catalogue's models use, and images to calibrate on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from depthbench.suites.export import export_onnx
from depthbench.suites.models import MODELS
from depthbench.tst.layers import pool_to_grid

SIZE = (64, 64)


class ConvBN(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class Inverted(nn.Module):
    """Inverted residual: expand, depthwise, project, residual where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.body = nn.Sequential(
            ConvBN(inputs, hidden, 1),
            ConvBN(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        return x + self.body(x) if self.residual else self.body(x)


class Block(nn.Module):
    """Transformer block with separate queries, keys and values."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        y = self.norm1(x)
        b, n = y.shape[:2]
        q, k, v = (f(y).reshape(b, n, self.num_heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)  # (B, heads, N, N)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, n, -1))  # (B, N, D)
        return x + self.down(F.relu(self.up(self.norm2(x))))


class Tokens(nn.Module):
    """A pyramid, tokens through one block applied three times, gated back into the pyramid, and an edge map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(3, 16, 3, 2)
        self.s1, self.s2 = Inverted(16, 24, 2), Inverted(24, 48, 2)
        self.s3 = nn.Sequential(Inverted(48, 64, 2), Inverted(64, 64, 1))
        self.embed = nn.Linear(24 + 48 + 64, 64)
        self.position = nn.Parameter(torch.zeros(1, 16, 64))
        self.block = Block(64, 4)
        self.gate1, self.gate2 = nn.Conv2d(64, 48, 1), nn.Conv2d(64, 24, 1)
        self.top = ConvBN(64, 48, 1)
        self.fuse2, self.fuse1 = ConvBN(48, 24, 3), ConvBN(24, 24, 3)
        self.refine = ConvBN(25, 16, 3)
        self.head = nn.Conv2d(16, 1, 3, padding=1)
        self.sobel = nn.Conv2d(3, 1, 3, padding=1, bias=False).requires_grad_(False)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        f0 = self.stem(rgb)
        f1 = self.s1(f0)
        f2 = self.s2(f1)
        f3 = self.s3(f2)
        pooled = torch.cat([pool_to_grid(f, 4) for f in (f1, f2, f3)], 1)  # (B, C, 4, 4)
        tokens = self.embed(pooled.flatten(2).transpose(1, 2)) + self.position  # (B, 16, D)
        for _ in range(3):
            tokens = self.block(tokens)
        grid = tokens.transpose(1, 2).reshape(rgb.shape[0], -1, 4, 4)  # (B, D, 4, 4)

        def inject(x: Tensor, gate: nn.Module) -> Tensor:
            g = F.interpolate(torch.sigmoid(gate(grid)), size=x.shape[2:], mode="bilinear", align_corners=False)
            return x * g + x

        x = inject(f2 + F.interpolate(self.top(f3), scale_factor=2.0, mode="nearest"), self.gate1)
        x = inject(f1 + F.interpolate(self.fuse2(x), scale_factor=2.0, mode="nearest"), self.gate2)
        x = F.interpolate(self.fuse1(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        edge = F.interpolate(self.sobel(rgb).abs(), scale_factor=0.5, mode="bilinear", align_corners=False)
        logit = self.head(self.refine(torch.cat([x, edge], 1)))
        return 10 * torch.sigmoid(F.interpolate(logit, scale_factor=2.0, mode="bilinear", align_corners=False) - 1.1)


class Dense(nn.Module):
    """Depthwise-separable encoder and decoder with added and with concatenated skips, in FastDepth's manner."""

    def __init__(self) -> None:
        super().__init__()

        def separable(a: int, b: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
            return nn.Sequential(ConvBN(a, a, kernel, stride, groups=a), ConvBN(a, b, 1))

        self.e1 = ConvBN(3, 16, 3, 2)
        self.e2, self.e3, self.e4 = separable(16, 32, 2), separable(32, 64, 2), separable(64, 96, 2)
        self.d1, self.d2, self.d3 = (
            separable(96, 64, kernel=5),
            separable(64, 32, kernel=5),
            separable(32, 16, kernel=5),
        )
        self.last = ConvBN(32, 32, 1)
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        skips = [self.e1(rgb)]
        for stage in (self.e2, self.e3):
            skips.append(stage(skips[-1]))
        x = self.e4(skips[-1])
        for stage in (self.d1, self.d2):
            x = F.interpolate(stage(x), scale_factor=2.0, mode="nearest") + skips.pop()
        x = self.last(torch.cat([F.interpolate(self.d3(x), scale_factor=2.0, mode="nearest"), skips.pop()], 1))
        return 10 * torch.sigmoid(F.interpolate(self.head(x), scale_factor=2.0, mode="nearest") - 1.1)


class Unfold(nn.Module):
    """Attention over unfolded 2×2 patches, in MobileViT's manner."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 16, 3, 2), ConvBN(16, 32, 3, 2))
        self.local = nn.Sequential(ConvBN(32, 32, 3), nn.Conv2d(32, 48, 1))
        self.blocks = nn.Sequential(Block(48, 4), Block(48, 4))
        self.project = ConvBN(48, 32, 1)
        self.fusion = ConvBN(64, 32, 3)
        self.head = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        x = self.stem(rgb)
        y = self.local(x)
        b, c, h, w = y.shape
        y = y.reshape(b * c * (h // 2), 2, w // 2, 2).transpose(1, 2)  # (B*C*H/2, W/2, 2, 2)
        y = y.reshape(b, c, h * w // 4, 4).permute(0, 3, 2, 1)  # (B, 4, N, C)
        y = self.blocks(y.reshape(b * 4, h * w // 4, c))  # (B*4, N, C)
        y = y.reshape(b, 4, h * w // 4, c).permute(0, 3, 2, 1)  # (B, C, N, 4)
        y = y.reshape(b * c * (h // 2), w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)  # (B, C, H, W)
        x = self.fusion(torch.cat([x, self.project(y)], 1))
        return 10 * torch.sigmoid(F.interpolate(self.head(x), scale_factor=4.0, mode="bilinear") - 1.1)


TOYS: dict[str, Callable[[], nn.Module]] = {"tokens": Tokens, "dense": Dense, "unfold": Unfold}


def image(seed: int, size: tuple[int, int] = SIZE, batch: int = 1) -> NDArray[np.float32]:
    """Blurred noise at several scales, (batch, 3, H, W) in [0, 1]: spread and smooth as photographs are."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(batch, 3, *size)
    for scale in (4, 8, 16, 32):
        noise = torch.rand(batch, 3, size[0] // scale, size[1] // scale, generator=generator)
        total += F.interpolate(noise, size=size, mode="bilinear") * scale / 60
    return total.numpy()


@pytest.fixture(scope="session")
def calibration() -> list[NDArray[np.float32]]:
    """Four images of the default size."""
    return [image(seed) for seed in range(4)]


@pytest.fixture(scope="session")
def unseen() -> list[NDArray[np.float32]]:
    """Four other images of the default size."""
    return [image(seed) for seed in range(100, 104)]


@pytest.fixture(scope="session")
def build() -> Callable[[str], nn.Module]:
    """A seeded network by name, of TOYS or of the catalogue, whose batch norms have seen images and whose output varies."""

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        network = TOYS[name]() if name in TOYS else MODELS[name].build()
        with torch.no_grad():
            for seed in range(4):
                network.train()(torch.from_numpy(image(seed, batch=4)))
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d) and layer.out_channels == 1 and layer.weight.requires_grad:
                    layer.weight.mul_(1 if name in TOYS else 20)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, build: Callable[[str], nn.Module]) -> Callable[[str, int], Path]:
    """The ONNX file of a network by name and opset, exported once."""
    folder = tmp_path_factory.mktemp("exported")

    def export(name: str, opset: int = 17) -> Path:
        path = folder / f"{name}-{opset}.onnx"
        return path if path.exists() else export_onnx(build(name), path, SIZE, opset=opset)

    return export
