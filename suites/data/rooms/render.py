"""Pictures and depth of scenes: shadows, ambient occlusion, materials and the camera's response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from depthbench.suites.data.rooms.caster import TILE, Solids, blocked, first_hits, tiled, untiled
from depthbench.suites.data.rooms.layout import random_scene
from depthbench.suites.data.rooms.pieces import BOX, CYLINDER
from depthbench.suites.data.rooms.scene import Floats, Scene, intrinsics
from depthbench.suites.data.rooms.textures import PATTERNS, albedo

MIN_DEPTH, MAX_DEPTH = 0.3, 10.0  # metres; nothing nearer is ever rendered, what lies farther has depth 0
OCCLUSION_REACH = 0.6  # metres


def _shift(image: Tensor, dy: int, dx: int) -> Tensor:
    """The image moved by whole pixels, its border repeated."""
    h, w = image.shape[-2:]
    rows = (torch.arange(h, device=image.device) + dy).clamp(0, h - 1)
    columns = (torch.arange(w, device=image.device) + dx).clamp(0, w - 1)
    return image.index_select(-2, rows).index_select(-1, columns)


def _pattern(side: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two numbers in (0, 1) per pixel that fill the square over every side × side block, each (height, width)."""
    n = side * side
    order = torch.tensor([(7 * k) % n for k in range(n)], device=device)
    first = (order + 0.5) / n
    second = (order * 0.618034) % 1
    return tuple(
        x.view(side, side).repeat(height // side + 1, width // side + 1)[:height, :width] for x in (first, second)
    )  # type: ignore[return-value]


def _light(scene: Scene, solids: Solids, point: Tensor, normal: Tensor, solid: Tensor) -> Tensor:
    """How much of each shadow-casting light, and last of the ambient light, arrives: (S + 1, H, W) in [0, 1].

    Computed for every second pixel, one ray to a random place on each light and one into the hemisphere; neighbours on
    the same primitive share their rays.
    """
    device = point.device
    p, n, ids = point[:, ::2, ::2], normal[:, ::2, ::2], solid[::2, ::2]
    h, w = ids.shape
    side = 3
    a, b = _pattern(side, h, w, device)
    height, angle, flat = 1 - 2 * a, b * (2 * np.pi), (1 - (1 - 2 * a) ** 2).clamp(min=0).sqrt()
    ball = torch.stack([flat * angle.cos(), flat * angle.sin(), height])  # (3, h, w) unit vectors
    start = p + n * 0.006
    ends = []
    shadowed = _strongest(scene)
    for light in shadowed:
        place = torch.from_numpy(scene.lights[light, :3] - scene.camera.position).to(device)
        ends.append(place[:, None, None] + ball * float(scene.lights[light, 6]))
    around = n + 0.98 * ball
    ends.append(start + OCCLUSION_REACH * around / around.square().sum(0, keepdim=True).sqrt())
    tile = TILE // 2
    starts = tiled(start, tile).repeat(1, len(ends), 1)  # (3, G, K)
    shut = blocked(scene, solids, starts, torch.cat([tiled(e, tile) for e in ends], dim=1))
    arrives = 1 - untiled(shut.float().view(len(ends), -1, tile * tile), tile, h, w)
    total, weight = arrives.clone(), torch.ones_like(ids, dtype=arrives.dtype)
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if dy or dx:
                same = (_shift(ids, dy, dx) == ids).to(arrives.dtype)
                total += _shift(arrives, dy, dx) * same
                weight += same
    half = total / weight
    # To every pixel: the four nearest of the half-size image, those on the same primitive first.
    high, wide = solid.shape
    rows, columns = torch.arange(high, device=device), torch.arange(wide, device=device)
    full, weights = torch.zeros(len(half), high, wide, device=device), torch.zeros(high, wide, device=device)
    for dy in (0, 1):
        for dx in (0, 1):
            i, j = ((rows + dy) // 2).clamp(max=h - 1), ((columns + dx) // 2).clamp(max=w - 1)
            same = (ids[i][:, j] == solid).to(arrives.dtype) + 0.01
            full = full + half[:, i][:, :, j] * same
            weights = weights + same
    return full / weights


def _strongest(scene: Scene) -> list[int]:
    """The lights that cast shadows: the three that are brightest at the place the camera looks at."""
    camera = scene.camera
    target = camera.position + camera.rotation[:, 2] * 2.0
    power = scene.lights[:, 3:6].sum(1) / (((scene.lights[:, :3] - target) ** 2).sum(1) + 0.5)
    return sorted(int(i) for i in np.argsort(-power, kind="stable")[:3])


def _faces(scene: Scene, point: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
    """Outward unit normals (3, H, W) and surface coordinates (2, H, W) in metres at the hit points (3, H, W)."""
    device = point.device
    height, width = solid.shape
    facts = np.concatenate([scene.axes.reshape(-1, 9), scene.half, scene.centre - scene.camera.position], axis=1)
    columns = (
        torch.from_numpy(np.ascontiguousarray(facts.T))
        .to(device)
        .index_select(1, solid.flatten())
        .view(15, height, width)
    )
    axes, half, centre = columns[:9].view(3, 3, height, width), columns[9:12], columns[12:]
    offset = point - centre
    own_frame = [a[0] * offset[0] + a[1] * offset[1] + a[2] * offset[2] for a in axes]
    local = torch.stack(own_frame)  # (3, H, W) metres along the primitive's own axes
    unit = local / half
    kind = torch.from_numpy(scene.kind).to(device)[solid]
    size = unit.abs()
    face = torch.where(size[2] >= torch.maximum(size[0], size[1]), 2, (size[1] > size[0]).long())
    box_normal = torch.stack([(face == k) * unit[k].sign() for k in range(3)])
    cap = (kind == CYLINDER) & (size[2] > (unit[0] ** 2 + unit[1] ** 2).sqrt())
    round_normal = unit / half
    round_normal[2] = torch.where(kind == CYLINDER, 0.0, round_normal[2])
    is_box = kind == BOX
    own = torch.where(is_box, box_normal, round_normal)
    own = torch.where(cap, torch.stack([0 * unit[0], 0 * unit[1], unit[2].sign()]), own)
    own = own / own.square().sum(0, keepdim=True).sqrt().clamp(min=1e-9)
    normal = axes[0] * own[0] + axes[1] * own[1] + axes[2] * own[2]  # (3, H, W)

    # Surface coordinates: the two axes across the face of a box, around and along a cylinder, two axes of a ball.
    u = torch.where(is_box & (face == 0), local[1], local[0])
    v = torch.where((is_box & (face == 2)) | cap, local[1], local[2])
    around = torch.atan2(local[1], local[0]) * half[0]
    u = torch.where((kind == CYLINDER) & ~cap, around, u)
    return normal, torch.stack([u, v])


def _shade(scene: Scene, solids: Solids, x: Tensor, y: Tensor, depth: Tensor, solid: Tensor, focal: float) -> Tensor:
    """Linear radiance (3, H, W) of the hit points, along the rays with components x right and y down."""
    device = depth.device
    height, width = depth.shape
    flat = solid.flatten()  # (HW,)

    def table(array: Floats) -> Tensor:
        return torch.from_numpy(array).to(device)

    turn = table(scene.camera.rotation)
    view = torch.stack([turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] for k in range(3)])
    point = view * depth  # (3, H, W) from the camera, along the room's axes
    normal, across = _faces(scene, point, solid)
    facing = -(normal * view).sum(0) / view.square().sum(0).sqrt()
    footprint = depth / focal / facing.clamp(min=0.15)
    colours, surface = table(scene.colours.reshape(-1, 6)), table(scene.surface)
    base = torch.zeros(height * width, 3, device=device)
    patterns = torch.from_numpy(scene.pattern).to(device)[flat]
    coordinates = across.flatten(1).T  # (HW, 2)
    for index in range(len(PATTERNS)):
        if not (scene.pattern == index).any():
            continue
        where = (patterns == index).nonzero()[:, 0]
        which = flat[where]
        salt = (which % 97).float()
        base[where] = albedo(
            index,
            colours[which].view(-1, 2, 3),
            coordinates[where],
            salt,
            surface[which, 0],
            footprint.flatten()[where],
        )
    base = base.T.reshape(3, height, width)

    arrives = _light(scene, solids, point, normal, solid)
    gloss, glow = surface[flat, 1].view(height, width), surface[flat, 2].view(height, width)
    shadowed = _strongest(scene)
    to_eye = -view / view.square().sum(0, keepdim=True).sqrt()
    ambient = table(scene.look.ambient)
    open_ = arrives[-1]
    light = ambient[:, None, None] * (0.35 + 0.65 * open_) * (0.85 + 0.15 * normal[2])
    shine = torch.zeros_like(light)
    for index in range(len(scene.lights)):
        row = table(scene.lights[index])
        way = (row[:3] - ambient.new_tensor(scene.camera.position))[:, None, None] - point
        far2 = way.square().sum(0)
        way = way / far2.sqrt()
        strength = 1 / (far2 + 0.3)
        reaches = arrives[shadowed.index(index)] if index in shadowed else open_
        cosine = (normal * way).sum(0).clamp(min=0)
        light = light + row[3:6, None, None] * (cosine * strength * reaches * (0.6 + 0.4 * open_))
        middle = way + to_eye
        sharp = ((normal * middle).sum(0).clamp(min=0) / middle.square().sum(0).sqrt().clamp(min=1e-6)) ** 32
        shine = shine + row[3:6, None, None] * (sharp * strength * reaches * gloss * 0.6)
    return base * (light + glow) + shine


def _photograph(scene: Scene, radiance: Tensor, solid: Tensor, height: int, width: int) -> Tensor:
    """What a camera makes of the radiance (3, H, W): uint8 (3, height, width)."""
    look, device = scene.look, radiance.device
    image = radiance * torch.from_numpy(look.balance).to(device)[:, None, None]
    sample = image[:, ::4, ::4].double()  # in doubles the mean does not depend on the number of threads
    gain = look.brightness**2.2 / (sample.mean() + 1e-4)
    for _ in range(2):  # expose for the mean of the picture, not of the radiance
        gain = gain * (look.brightness / ((gain * sample).clamp(1e-4, 1) ** (1 / 2.2)).mean()) ** 2.2
    image = image * gain.float()
    image = image / (1 + (image - 0.7).clamp(min=0) * 0.5)  # a shoulder before white
    edge = torch.zeros_like(solid, dtype=torch.bool)
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        edge |= _shift(solid, dy, dx) != solid
    soft = (_shift(image, 0, 1) + 2 * image + _shift(image, 0, -1)) / 4
    soft = (_shift(soft, 1, 0) + 2 * soft + _shift(soft, -1, 0)) / 4
    share = torch.where(edge, max(look.blur, 0.8 if look.blur > 0 else 0.0), look.blur)
    image = torch.lerp(image, soft, share)
    if look.motion:
        image = torch.stack([_shift(image, 0, k) for k in range(look.motion + 1)]).mean(0)
    rows = torch.linspace(-0.6, 0.6, solid.shape[0], device=device)[:, None]
    columns = torch.linspace(-0.8, 0.8, solid.shape[1], device=device)
    image = image * (1 - look.vignette * (rows * rows + columns * columns))
    image = image.clamp(0, 1) ** (1 / 2.2)
    image = image + (look.contrast - 1) * (image - 0.5) * (1 - (2 * image - 1) ** 2)
    image = image[:, :height, :width]
    if look.noise:
        rng = np.random.Generator(np.random.Philox(look.noise_seed & (2**64 - 1)))
        grain = torch.from_numpy(rng.standard_normal((3, height, width), dtype=np.float32)).to(device)
        grain = 0.6 * grain + 0.5 * grain.mean(0, keepdim=True) + 0.25 * _shift(grain, 0, 1)
        image = image + look.noise * grain * (1.2 - 0.6 * image)
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def render_scene(scene: Scene, *, height: int = 240, width: int = 320, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """One scene's picture and exact depth.

    Returns rgb uint8 (3, height, width) and depth float32 (1, height, width): metres along the optical axis, exact to
    float32; 0 where nothing lies within 10 m.
    """
    place = torch.device(device)
    fx, fy, cx, cy = intrinsics(height, width)
    rows, columns = -(-height // TILE), -(-width // TILE)
    high, wide = rows * TILE, columns * TILE
    x = ((torch.arange(wide, device=place) - cx) / fx).expand(high, wide)
    y = ((torch.arange(high, device=place) - cy) / fy)[:, None].expand(high, wide)
    unit = scene.axes / scene.half[:, :, None]  # (N, 3, 3)
    origin = np.einsum("nij,nj->ni", unit, scene.camera.position - scene.centre).astype(np.float32)
    by_view = Solids(
        torch.from_numpy(np.einsum("nij,jk->nik", unit, scene.camera.rotation).astype(np.float32)).to(place),
        torch.from_numpy(origin).to(place),
    )
    depth, solid = first_hits(scene, by_view, (tiled(x, TILE), tiled(y, TILE)), rows, columns, (height, width))
    depth, solid = untiled(depth, TILE, high, wide), untiled(solid, TILE, high, wide)
    solid = torch.where(depth.isinf(), 0, solid)
    by_room = Solids(torch.from_numpy(unit).to(place), torch.from_numpy(origin).to(place))
    radiance = _shade(scene, by_room, x, y, depth.clamp(max=50), solid, fx)
    rgb = _photograph(scene, radiance, solid, height, width)
    depth = torch.where(depth <= MAX_DEPTH, depth, 0.0)[:height, :width]
    return rgb, depth[None]


def render(
    seed: int, split: str, indices: Sequence[int], *, height: int = 240, width: int = 320, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Pictures of random furnished rooms with exact metric depth.

    Image k is a function of (seed, split, indices[k]) alone: neither the batch nor any global random state has a part
    in it. Returns rgb uint8 (B, 3, height, width) and depth float32 (B, 1, height, width): z-depth in metres in
    [0.3, 10], 0 where the room's doors let one see farther. The camera is NYU Depth v2's, scaled to the image's size.

    Raises ValueError for an unknown split.
    """
    pairs = [render_scene(random_scene(seed, split, i), height=height, width=width, device=device) for i in indices]
    return torch.stack([rgb for rgb, _ in pairs]), torch.stack([depth for _, depth in pairs])
