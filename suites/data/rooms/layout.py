"""Random furnished rooms: what stands in which kind of room, its light, and where the camera is held."""

from __future__ import annotations

import math
from random import Random

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data.rooms import furniture as f
from depthbench.suites.data.rooms.building import Room
from depthbench.suites.data.rooms.pieces import (
    BRIGHTS,
    FABRICS,
    Piece,
    Surface,
    cloth,
    make,
    shade,
    vary,
    wood,
)
from depthbench.suites.data.rooms.scene import Camera, Look, Scene, build, look_at, scene_key
from depthbench.suites.data.rooms.themes import FLOORS, THEMES, WALLS, Theme

NEAR = 0.45  # metres that the camera keeps to every surface, so that no z-depth in its view is below 0.3 m


def _populate(room: Room, theme: Theme) -> None:
    r = room.r
    first, *rest = theme.along_walls
    makers = [first, *r.sample(rest, len(rest)), *r.choices(theme.along_walls, k=10)]
    full = r.uniform(0.7, 1.0)
    for maker in makers[: max(4, round(full * len(makers)))]:
        room.along_wall(maker(r))
    if r.random() < 0.4:
        rug = Piece(r.uniform(1.2, 2.4), r.uniform(0.9, 1.7), 0.01)
        rug.box(0, 0, 0, rug.width, rug.depth, 0.012, cloth(r))
        room.put(rug, room.width * r.uniform(0.35, 0.65), room.length * r.uniform(0.35, 0.65), 0, r.choice([0, 1.5708]))
        room.objects += 1
    turned = r.random() < 0.3
    for maker in r.sample(theme.in_middle, len(theme.in_middle))[: r.randint(1, len(theme.in_middle))]:
        piece = maker(r)
        for _ in range(5):
            yaw = r.randrange(4) * math.pi / 2 + (r.uniform(-0.6, 0.6) if turned else r.gauss(0, 0.06))
            x, y = r.uniform(0.5, room.width - 0.5), r.uniform(0.5, room.length - 0.5)
            if not room.furnish(piece, x, y, yaw, 0.12):
                continue
            if maker in (f.table, f.desk):
                c, s = math.cos(yaw), math.sin(yaw)
                seat = f.office_chair if maker is f.desk else r.choice([f.chair, f.chair, f.stool])
                for side in (1, -1, 1, -1)[: r.randint(1, 4)]:
                    px, py = (
                        r.uniform(-0.35, 0.35) * piece.width,
                        piece.depth / 2 + side * (piece.depth / 2 + r.uniform(0.5, 0.7)),
                    )
                    turn = yaw + (math.pi if side > 0 else 0) + r.gauss(0, 0.25)
                    room.furnish(seat(r), x + c * px - s * py, y + s * px + c * py, turn, 0.0)
            break
    for _ in range(r.randint(6, 18)):
        room.decorate(r.choice(theme.decor))
    for _ in range(r.randint(0, 4)):
        room.furnish(
            f.carton(r), r.uniform(0.3, room.width - 0.3), r.uniform(0.3, room.length - 0.3), r.uniform(0, 6.28), 0.01
        )
    enough, ground = (
        r.randint(30, 50),
        (Surface(room.width / 2, room.length / 2, 0, room.width / 2 - 0.2, room.length / 2 - 0.2, 0.5), 0.0, 0.0, 0.0),
    )
    for _ in range(100):
        if room.objects < enough:
            room.add_clutter(*r.choice(room.tops or [ground]))
    while room.objects < 28:
        room.add_clutter(*ground)


def _rays() -> NDArray[np.float64]:
    """A coarse grid of view directions (63, 3) in the camera's frame, forward component 1."""
    x, y = np.meshgrid(np.linspace(-0.58, 0.56, 9), np.linspace(-0.46, 0.42, 7))
    return np.stack([x.ravel(), y.ravel(), np.ones(63)], axis=1)


_COARSE = _rays()


def _place_camera(room: Room) -> Camera:
    """Of some random hand-held poses in free space, the one whose view is fullest and nearest to a wished mean depth."""
    r = room.r
    wished = min(6.0, r.lognormvariate(math.log(2.85), 0.36))
    scene = build(room.primitives, [], look_at((0, 0, 0), 0, 0, 0), Look())
    world_to_unit = scene.axes / scene.half[:, :, None]
    best: tuple[float, Camera] | None = None
    tries = 0
    while best is None or tries < 12:
        tries += 1
        height = min(room.height - 0.55, max(0.9, r.gauss(1.4, 0.2)), 1.8)
        spot = (r.uniform(0.5, room.width - 0.5), r.uniform(0.5, room.length - 0.5), height)
        aim = (room.width * r.uniform(0.15, 0.85), room.length * r.uniform(0.15, 0.85))
        yaw = math.atan2(aim[1] - spot[1], aim[0] - spot[0]) + r.gauss(0, 0.35)
        camera = look_at(spot, yaw, math.radians(min(10, max(-25, r.gauss(-9, 7)))), math.radians(r.gauss(0, 1.8)))
        offset = camera.position - scene.centre  # (N, 3)
        local = np.einsum("nij,nj->ni", scene.axes, offset)
        outside = np.linalg.norm(np.maximum(np.abs(local) - scene.half, 0), axis=1)
        if outside[: room.structure].min() < NEAR or (tries < 100 and outside.min() < NEAR):
            continue
        origin = (local / scene.half)[:, None]  # (N, 1, 3)
        d = np.einsum("nij,kj->nki", world_to_unit, _COARSE @ camera.rotation.T)  # (N, 63, 3)
        inverse = 1 / np.where(np.abs(d) < 1e-9, 1e-9, d)
        near = (-origin * inverse - np.abs(inverse)).max(2)
        far = (-origin * inverse + np.abs(inverse)).min(2)
        depth = np.where((near <= far) & (near > 0), near, 20.0)  # (N, 63)
        seen, nearest = depth.argmin(0), depth.min(0)
        counts = np.bincount(seen, minlength=len(offset))
        score = 3 * abs(math.log(float(nearest.mean()) / wished)) + 2 * max(0.0, int(counts.max()) / 63 - 0.35)
        score += 0.07 * max(0, 30 - int(np.count_nonzero(counts))) + 3 * float((nearest < 0.6).mean())
        score -= 2.0 * min(0.45, float(nearest.std() / nearest.mean()))
        if best is None or score < best[0]:
            best = (float(score), camera)
            too_near = outside < NEAR
    room.primitives = [p for p, near_ in zip(room.primitives, too_near, strict=True) if not near_]
    return best[1]


def random_scene(seed: int, split: str, index: int) -> Scene:
    """The furnished room, its light and its camera that belong to (seed, split, index)."""
    key = scene_key(seed, split, index)
    r = Random(key)
    names = list(THEMES)
    theme = THEMES[r.choices(names, [THEMES[n].weight for n in names])[0]]
    room = Room(r, theme.size)
    tone = vary(r, r.choice(WALLS), 0.04)
    plain = make("plain", tone)
    kind = r.random()
    if theme.floors[0] == "tiles" and kind < 0.4:
        plain = make("tiles", tone, shade(tone, 0.8), r.choice([0.15, 0.2, 0.3]), 0.3)
    elif kind < 0.08:
        plain = make("stripes", tone, shade(tone, 0.9), r.uniform(0.06, 0.2))
    elif kind < 0.16:
        plain = make("picture", tone, shade(tone, 0.88), 0.15)
    walls = [plain] * 4
    if r.random() < 0.2:
        accent = vary(r, r.choice([*BRIGHTS, *FABRICS]))
        brick = make("bricks", (0.6, 0.32, 0.24), (0.7, 0.66, 0.6), 0.22)
        walls[r.randrange(4)] = r.choice([make("plain", accent), wood(r), brick])
    ground = r.choice(theme.floors)
    colour = vary(r, r.choice(FLOORS[ground]))
    size = {"planks": r.uniform(0.07, 0.18), "noise": 0.02, "tiles": r.choice([0.2, 0.3, 0.45]), "checks": 0.3}[ground]
    second = shade(colour, {"planks": 0.7, "noise": 0.86, "tiles": 0.65, "checks": 0.4}[ground])
    floor = make(ground, colour, second, size, 0.0 if ground == "noise" else r.choice([0.05, 0.2, 0.45]))
    above = vary(r, (0.93, 0.92, 0.9), 0.03)
    ceiling = (
        make("tiles", above, shade(above, 0.7), 0.6)
        if theme in (THEMES["office"], THEMES["classroom"])
        else make("plain", above)
    )
    room.shell(floor, ceiling, walls)
    room.light_up()
    _populate(room, theme)
    if not room.lights:
        room.lights.append((room.width / 2, room.length / 2, room.height - 0.3, 2.0, 1.7, 1.3, 0.2))
    camera = _place_camera(room)
    level = r.uniform(0.12, 0.45)
    warm = r.uniform(-0.08, 0.16)
    look = Look(
        ambient=np.array([level * (1 + warm), level, level * (1 - warm)], np.float32),
        balance=np.array([1 + warm * 0.7 + r.gauss(0, 0.03), 1.0, 1 - warm * 0.6 + r.gauss(0, 0.04)], np.float32),
        brightness=min(0.62, max(0.24, r.gauss(0.46, 0.09))),
        contrast=r.uniform(1.0, 1.6),
        vignette=r.uniform(0, 0.35),
        noise=r.choice([0.004, 0.01, 0.015, 0.025]),
        blur=r.uniform(0.05, 0.8),
        motion=r.choice([0, 0, 0, 0, 1, 2]),
        noise_seed=key,
    )
    return build(room.primitives, room.lights, camera, look, room.objects)
