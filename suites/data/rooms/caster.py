"""Rays against convex primitives, in batches: what a ray hits first, and whether a segment is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthbench.suites.data.rooms.pieces import BOX, CYLINDER
from depthbench.suites.data.rooms.scene import Floats, Scene, intrinsics

TILE = 16  # pixels; rays of one tile share their candidates
CHUNK = 1 << 16  # ray-primitive pairs per step: the temporaries stay in the processor's cache
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]
CORNERS = np.array([[2 * (c >> k & 1) - 1 for k in range(3)] for c in range(8)], np.float32)


@dataclass(frozen=True)
class Solids:
    """A scene's primitives on a device, in the frame whose origin the rays are given in."""

    unit: Tensor  # (N, 3, 3) a direction to the unit solid's frame
    origin: Tensor  # (N, 3) what the frame's origin is there


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def _crossing(kind: int, o: tuple[Tensor, ...], d: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Where rays o + t d enter and leave the unit solid; a ray that misses leaves before it enters."""
    if kind == BOX:
        inverse = [1 / torch.where(x.abs() < 1e-9, 1e-9, x) for x in d]
        middle = [-p * i for p, i in zip(o, inverse, strict=True)]
        reach = [i.abs() for i in inverse]
        near = torch.maximum(torch.maximum(middle[0] - reach[0], middle[1] - reach[1]), middle[2] - reach[2])
        far = torch.minimum(torch.minimum(middle[0] + reach[0], middle[1] + reach[1]), middle[2] + reach[2])
        return near, far
    n = 2 if kind == CYLINDER else 3
    square = _dot(d[:n], d[:n]) + 1e-12
    closest = -_dot(o[:n], d[:n]) / square
    from_middle = [p + closest * x for p, x in zip(o[:n], d[:n], strict=True)]
    inside = 1 - _dot(from_middle, from_middle)
    half = torch.where(inside > 0, (inside.clamp(min=0) / square).sqrt(), -1.0)
    near, far = closest - half, closest + half
    if kind == CYLINDER:
        inverse_z = 1 / torch.where(d[2].abs() < 1e-9, 1e-9, d[2])
        middle_z, reach_z = -o[2] * inverse_z, inverse_z.abs()
        missed = inside <= 0
        near = torch.maximum(near, middle_z - reach_z)
        far = torch.where(missed, near - 1, torch.minimum(far, middle_z + reach_z))
    return near, far


def _turn(m: Tensor, v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Matrices (P, 3, 3) times vectors given as three (P, K)."""
    return tuple(m[:, i, :1] * v[0] + m[:, i, 1:2] * v[1] + m[:, i, 2:] * v[2] for i in range(3))


def _screen_boxes(scene: Scene, height: int, width: int) -> Floats:
    """Each primitive's bounds on the image as x0, x1, y0, y1 in pixels (N, 4); x1 < x0 when it is behind the camera."""
    fx, fy, cx, cy = intrinsics(height, width)
    corners = scene.centre[:, None] + (CORNERS[None] * scene.half[:, None]) @ scene.axes  # (N, 8, 3)
    points = (corners - scene.camera.position) @ scene.camera.rotation  # (N, 8, 3) right, down, forward
    first, second = points[:, [a for a, _ in EDGES]], points[:, [b for _, b in EDGES]]  # (N, 12, 3)
    near = 0.02
    span = second[..., 2] - first[..., 2]
    share = (near - first[..., 2]) / np.where(np.abs(span) < 1e-9, 1e-9, span)
    cut = first + np.clip(share, 0, 1)[..., None] * (second - first)
    both = np.concatenate([points, cut], axis=1)  # (N, 20, 3)
    valid = np.concatenate([points[..., 2] >= near, (share > 0) & (share < 1)], axis=1)
    depth = np.maximum(both[..., 2], near)
    x, y = both[..., 0] / depth * fx + cx, both[..., 1] / depth * fy + cy
    low, high = np.float32(np.inf), np.float32(-np.inf)
    return np.stack(
        [
            np.where(valid, x, low).min(1) - 0.01,
            np.where(valid, x, high).max(1) + 0.01,
            np.where(valid, y, low).min(1) - 0.01,
            np.where(valid, y, high).max(1) + 0.01,
        ],
        axis=1,
    )


def first_hits(
    scene: Scene, solids: Solids, rays: tuple[Tensor, Tensor], rows: int, columns: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Depth (T, K) of the nearest surface (inf: none) and which primitive it is (T, K), for tiles of rays (T, K)."""
    bounds = _screen_boxes(scene, *size)
    left, top = np.arange(columns) * TILE, np.arange(rows) * TILE
    in_x = (bounds[:, None, 1] >= left) & (bounds[:, None, 0] <= left + TILE - 1)  # (N, columns)
    in_y = (bounds[:, None, 3] >= top) & (bounds[:, None, 2] <= top + TILE - 1)  # (N, rows)
    solid, tile = np.nonzero((in_y[:, :, None] & in_x[:, None, :]).reshape(len(bounds), -1))  # (N, rows · columns)
    x, y = rays
    # A depth and its primitive in one integer: positive floats order like their bits.
    best = torch.full((rows * columns, TILE * TILE), 0x7F800000 << 32, dtype=torch.int64, device=x.device)
    for kind, s, t in _chunks(scene.kind, solid, tile, TILE * TILE, x.device):
        origin = solids.origin[s]
        near, far = _crossing(
            kind,
            (origin[:, :1], origin[:, 1:2], origin[:, 2:]),
            _turn(solids.unit[s], (x[t], y[t], torch.ones(1, 1, device=x.device))),
        )
        depth = torch.where((near <= far) & (near > 0.05), near, torch.inf)
        code = (depth.view(torch.int32).to(torch.int64) << 32) | s[:, None]
        best.scatter_reduce_(0, t[:, None].expand_as(code), code, "amin")
    return (best >> 32).to(torch.int32).view(torch.float32), best & 0xFFFFFFFF


def _chunks(
    kinds: NDArray[np.int64], solid: NDArray[np.int64], group: NDArray[np.int64], rays: int, device: torch.device
) -> list[tuple[int, Tensor, Tensor]]:
    """The pairs (solid, group of rays) in steps of one kind and of about CHUNK rays."""
    steps = []
    per_step = max(1, CHUNK // rays)
    for kind in range(3):
        chosen = np.nonzero(kinds[solid] == kind)[0]
        s, g = torch.from_numpy(solid[chosen]).to(device), torch.from_numpy(group[chosen]).to(device)
        steps += [
            (kind, a, b) for a, b in zip(torch.split(s, per_step), torch.split(g, per_step), strict=True) if len(a)
        ]
    return steps


def blocked(scene: Scene, solids: Solids, start: Tensor, end: Tensor) -> Tensor:
    """Which segments (G, K) something stands in the way of; `start` and `end` are (3, G, K)."""
    lower = torch.minimum(start, end).amin(2).T.cpu().numpy()  # (G, 3)
    upper = torch.maximum(start, end).amax(2).T.cpu().numpy()
    extent = np.abs(scene.axes * scene.half[:, :, None]).sum(1)  # (N, 3)
    centre = scene.centre - scene.camera.position
    radius = np.linalg.norm(scene.half, axis=1)
    # Boxes around groups and primitives must meet, and the primitive's ball must meet the capsule around the segments.
    meets = np.ones((len(centre), len(lower)), bool)
    for k in range(3):
        low, high = centre[:, None, k] - extent[:, None, k], centre[:, None, k] + extent[:, None, k]  # (N, 1)
        meets &= (high > lower[:, k]) & (low < upper[:, k])  # (N, G)
    a, b = start.mean(2), end.mean(2)  # (3, G)
    spread = [(p - q[:, :, None]).square().sum(0).amax(1) for p, q in ((start, a), (end, b))]  # (G,) each
    thick = torch.maximum(*spread).sqrt().cpu().numpy()
    first, last = a.T.cpu().numpy(), b.T.cpu().numpy()  # (G, 3)
    solid, group = np.nonzero(meets)
    along = (last - first)[group]
    offset = centre[solid] - first[group]
    share = np.clip((offset * along).sum(1) / np.maximum((along * along).sum(1), 1e-9), 0, 1)
    distance = np.linalg.norm(offset - share[:, None] * along, axis=1)
    keep = distance <= radius[solid] + thick[group] + 1e-4
    solid, group = solid[keep], group[keep]
    hits = torch.zeros(start.shape[1:], device=start.device)
    way = end - start
    for kind, s, g in _chunks(scene.kind, solid, group, start.shape[2], start.device):
        unit, origin = solids.unit[s], solids.origin[s]
        moved = _turn(unit, (start[0, g], start[1, g], start[2, g]))
        near, far = _crossing(
            kind,
            tuple(m + origin[:, i : i + 1] for i, m in enumerate(moved)),
            _turn(unit, (way[0, g], way[1, g], way[2, g])),
        )
        hit = (near <= far) & (far > 0) & (near < 1)
        hits.index_add_(0, g, hit.to(hits.dtype))
    return hits > 0


def tiled(image: Tensor, side: int) -> Tensor:
    """(..., H, W) to tiles (..., T, side · side)."""
    *lead, h, w = image.shape
    tiles = image.reshape(*lead, h // side, side, w // side, side).transpose(-3, -2)  # (..., rows, columns, side, side)
    return tiles.reshape(*lead, -1, side * side)


def untiled(tiles: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of tiled."""
    lead = tiles.shape[:-2]
    image = tiles.reshape(*lead, height // side, width // side, side, side).transpose(-3, -2)
    return image.reshape(*lead, height, width)
