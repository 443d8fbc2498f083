"""Procedural textures: the colour of a surface point from its material and its coordinates in metres."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

PATTERNS = (
    "plain",
    "wood",
    "planks",
    "tiles",
    "checks",
    "stripes",
    "noise",
    "bricks",
    "fabric",
    "books",
    "picture",
    "panels",
)
# fmt: off
COVERS = [  # linear colours of books
    (0.3, 0.03, 0.03), (0.03, 0.06, 0.2), (0.04, 0.12, 0.05), (0.02, 0.02, 0.02), (0.65, 0.6, 0.5), (0.75, 0.75, 0.75),
    (0.25, 0.13, 0.05), (0.5, 0.35, 0.08), (0.12, 0.25, 0.4), (0.45, 0.12, 0.05), (0.1, 0.1, 0.12), (0.4, 0.38, 0.35),
]
# fmt: on
_SIDE = 256  # rows and columns of both lookup tables


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Periodic fractal noise in about [0, 1] and white noise in [0, 1), each (256 · 256,)."""
    rng = np.random.Generator(np.random.Philox(20120))
    fractal = np.zeros((_SIDE, _SIDE))
    for octave in range(3, 8):
        cells = 2**octave
        grid = rng.random((cells, cells))
        position = np.arange(_SIDE) * cells / _SIDE
        low = position.astype(int)
        part = position - low
        part = part * part * (3 - 2 * part)
        rows = grid[low] * (1 - part)[:, None] + grid[(low + 1) % cells] * part[:, None]
        fractal += 0.6 ** (octave - 3) * (rows[:, low] * (1 - part) + rows[:, (low + 1) % cells] * part)
    fractal = (fractal - fractal.mean()) / (5 * fractal.std()) + 0.5
    white = rng.random(_SIDE * _SIDE)
    return (
        torch.from_numpy(fractal.astype(np.float32)).flatten().to(device),  # (65536,)
        torch.from_numpy(white.astype(np.float32)).to(device),
    )


def _noise(u: Tensor, v: Tensor) -> Tensor:
    """Fractal noise of mean 0.5 at (u, v), with period 1 and a largest feature of 1/8, bilinear."""
    table = _tables(u.device)[0]
    x, y = u * _SIDE, v * _SIDE
    x0, y0 = x.floor(), y.floor()
    fx, fy = x - x0, y - y0
    left, top = x0.long() & 255, y0.long() & 255
    right, below = (left + 1) & 255, ((top + 1) & 255) * _SIDE
    top = top * _SIDE
    upper = torch.lerp(table[top + left], table[top + right], fx)
    lower = torch.lerp(table[below + left], table[below + right], fx)
    return torch.lerp(upper, lower, fy)


def _cell(i: Tensor, j: Tensor, salt: Tensor) -> Tensor:
    """A random number in [0, 1) for every integer cell (i, j) and every material's salt."""
    table = _tables(i.device)[1]
    index = i.long() * 37 + j.long() * 10007 + (salt * 977).long()
    return table[index & 65535]


def _line(distance: Tensor, width: Tensor, footprint: Tensor) -> Tensor:
    """How much of a pixel a line of this width covers, [0, 1], the line's middle being `distance` away."""
    cover = ((width + footprint) / 2 - distance) / footprint
    return cover.clamp(0, 1) * (2 * width / (width + footprint)).clamp(max=1)


def _near(x: Tensor) -> Tensor:
    """Distance to the nearest integer."""
    return (x - x.round()).abs()


def albedo(  # noqa: PLR0915 - one branch per pattern
    pattern: int, colours: Tensor, uv: Tensor, salt: Tensor, scale: Tensor, footprint: Tensor
) -> Tensor:
    """Linear reflectance (N, 3) in [0, 1] of N points that share a pattern.

    `pattern` is an index of PATTERNS. Per point: `colours` (N, 2, 3) linear, `uv` (N, 2) coordinates on the surface in
    metres, `salt` (N,) ≥ 0 moves a primitive's texture, `scale` (N,) is the size of the pattern's element in metres,
    `footprint` (N,) the width of a pixel on the surface in metres: detail too fine to resolve fades.
    """
    name = PATTERNS[pattern]
    first, second = colours[:, 0], colours[:, 1]
    u, v = uv[:, 0] + salt * 0.137, uv[:, 1] + salt * 0.071
    fade = (scale / (2 * footprint)).clamp(max=1)
    shade = torch.ones_like(u)  # multiplies the colour
    mix = torch.zeros_like(u)  # share of the second colour
    if name == "plain":
        shade = 0.93 + 0.14 * _noise(u * 0.15 + salt, v * 0.15)
    elif name in ("wood", "planks"):
        along, across = u, v
        if name == "planks":
            row = (across / scale).floor()
            along = along + 7.3 * _cell(row, row * 0, salt)
            plank = (along / 1.3).floor()
            shade = 0.78 + 0.44 * _cell(row, plank + 3, salt)
            joint = torch.maximum(
                _line(_near(across / scale) * scale, scale * 0.03, footprint),
                _line(_near(along / 1.3) * 1.3, scale * 0.03, footprint),
            )
            shade = shade * (1 - 0.6 * joint)
            across = across + 0.37 * row
        grain = _noise(along * 0.12, across * 1.1 + salt)
        rings = _noise(along * 0.05 + 0.3, across * 0.35) * 9
        fine = (0.06 / (2 * footprint)).clamp(max=1)
        mix = 0.5 + fine * (1.6 * (grain - 0.5) + 0.6 * (_near(rings) - 0.25))
    elif name == "tiles":
        tone = _cell((u / scale).floor(), (v / scale).floor(), salt)
        shade = 1 + fade * 0.16 * (tone - 0.5) + 0.15 * (_noise(u * 0.4, v * 0.4) - 0.5)
        mix = torch.maximum(
            _line(_near(u / scale) * scale, scale * 0.035, footprint),
            _line(_near(v / scale) * scale, scale * 0.035, footprint),
        )
    elif name == "checks":
        odd = ((u / scale).floor() + (v / scale).floor()) % 2
        mix = 0.5 + (odd - 0.5) * fade
    elif name == "stripes":
        wave = ((_near(u / scale) - 0.25) * scale / footprint + 0.5).clamp(0, 1)
        mix = 0.5 + (wave - 0.5) * fade
    elif name == "noise":
        coarse, fine = _noise(u / (61 * scale) + salt, v / (47 * scale)), _noise(u / (17.3 * scale), v / (19.1 * scale))
        mix = 0.5 + (1.6 * (coarse - 0.5) + 1.6 * (fine - 0.5)) * (4 * fade).clamp(max=1)
    elif name == "bricks":
        row = (v / (0.34 * scale)).floor()
        shifted = u + 0.5 * scale * (row % 2)
        shade = 0.8 + 0.4 * _cell((shifted / scale).floor(), row, salt) + 0.25 * (_noise(u, v) - 0.5)
        mix = torch.maximum(
            _line(_near(shifted / scale) * scale, scale * 0.05, footprint),
            _line(_near(v / (0.34 * scale)) * 0.34 * scale, scale * 0.05, footprint),
        )
    elif name == "fabric":
        weave = (0.012 / (2 * footprint)).clamp(max=1)
        folds = _noise(u * 0.3, v * 0.3 + salt)
        threads = _noise(u * 3.1, v * 2.3)
        shade = 0.9 + 0.5 * (folds - 0.5) + 0.5 * weave * (threads - 0.5) + 0.1
        mix = 0.35 * _noise(u * 0.8, v * 0.8)
    elif name == "books":
        book = (u / scale + 0.35 * torch.sin(u / scale * 2.1 + salt)).floor()
        covers = torch.tensor(COVERS, device=u.device)
        tint = (
            covers[(_cell(book, book * 0, salt) * len(COVERS)).long()]
            * (0.5 + _cell(book, book * 0 + 1, salt))[:, None]
        )
        gap = _line(_near(u / scale + 0.35 * torch.sin(u / scale * 2.1 + salt)) * scale, scale * 0.12, footprint)
        label = 0.8 * ((_near(v / 0.13 + _cell(book, book * 0 + 5, salt)) - 0.38) * 40).clamp(0, 1)
        colour = torch.lerp(tint, first, 0.12) * (1 - 0.75 * gap)[:, None]
        return torch.lerp(colour, second, 0.5 * label[:, None] * fade[:, None]).clamp(0, 1)
    elif name == "picture":
        hue = torch.stack([_noise(u * 0.2 / scale + salt * (0.3 + k), v * 0.2 / scale) for k in (0, 0.21)], dim=1)
        mix = ((hue[:, 0] - 0.5) * 5 + 0.5).clamp(0, 1)
        shade = 0.5 + 1.0 * hue[:, 1]
    else:  # panels: cabinet fronts, drawers, panelled doors
        edge = torch.minimum(_near(u / scale), _near(v / (1.3 * scale)) * 1.3) * scale
        seam = _line(edge, 0.012 + 0 * edge, footprint)
        frame = ((edge - 0.06) / footprint).clamp(0, 1)
        shade = (1 - 0.6 * seam) * (0.93 + 0.07 * frame) * (0.95 + 0.1 * _noise(u * 0.1, v * 0.9))
    return (torch.lerp(first, second, mix.clamp(0, 1)[:, None]) * shade[:, None]).clamp(0, 1)
