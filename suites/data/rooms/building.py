"""A room under construction: walls with doors, windows and niches, lamps, and what stands on the floor or hangs."""

from __future__ import annotations

import math
from random import Random

from depthbench.suites.data.rooms.fixtures import clutter, hanging
from depthbench.suites.data.rooms.pieces import (
    DARK,
    PALES,
    WOODS,
    Material,
    Piece,
    Primitive,
    Surface,
    body,
    cloth,
    make,
    metal,
    pale,
    vary,
    wood,
)
from depthbench.suites.data.rooms.themes import WALLS


class Room:
    """A room of width × length × height metres. Wall k's frame: x along the wall, y into the room, z up."""

    def __init__(self, r: Random, size: tuple[float, float, float, float]) -> None:
        short, long = r.uniform(*size[:2]), r.uniform(*size[2:])
        self.r = r
        self.width, self.length = (short, max(short, long)) if r.random() < 0.5 else (max(short, long), short)
        self.height = r.uniform(2.35, 2.9) if max(self.width, self.length) < 6 else r.uniform(2.5, 3.6)
        self.corners = [
            (0.0, 0.0, self.width),
            (self.width, 0.0, self.length),
            (self.width, self.length, self.width),
            (0.0, self.length, self.length),
        ]
        self.primitives: list[Primitive] = []
        self.structure = 0  # the first so many primitives are walls, floors, ceilings
        self.footprints: list[tuple[float, float, float, float]] = []
        self.on_wall: list[list[tuple[float, float, float, float]]] = [[], [], [], []]
        self.lights: list[tuple[float, ...]] = []
        self.tops: list[tuple[Surface, float, float, float]] = []  # with the x, y and yaw of the piece
        self.clutter: list[tuple[float, float]] = []
        self.objects = 0

    def put(self, piece: Piece, x: float, y: float, z: float, yaw: float) -> None:
        c, s = math.cos(yaw), math.sin(yaw)
        for p in piece.primitives:
            px, py, pz = p.centre
            self.primitives.append(
                p._replace(centre=(x + c * px - s * py, y + s * px + c * py, z + pz), yaw=p.yaw + yaw)
            )

    def put_on_wall(self, piece: Piece, wall: int, along: float, z: float = 0) -> None:
        x, y, _ = self.corners[wall]
        yaw = wall * math.pi / 2
        self.put(piece, x + math.cos(yaw) * along, y + math.sin(yaw) * along, z, yaw)

    def wall_free(self, wall: int, rect: tuple[float, float, float, float]) -> bool:
        a, b, lo, hi = rect
        return all(b <= p or a >= q or hi <= bottom or lo >= top for p, q, bottom, top in self.on_wall[wall])

    def floor_free(self, x0: float, x1: float, y0: float, y1: float) -> bool:
        return all(x1 <= a or x0 >= b or y1 <= c or y0 >= d for a, b, c, d in self.footprints)

    def footprint(self, piece: Piece, x: float, y: float, yaw: float) -> tuple[float, float, float, float]:
        c, s = math.cos(yaw), math.sin(yaw)
        corners = [(px, py) for px in (-piece.width / 2, piece.width / 2) for py in (0, piece.depth)]
        xs, ys = [x + c * px - s * py for px, py in corners], [y + s * px + c * py for px, py in corners]
        return min(xs), max(xs), min(ys), max(ys)

    def furnish(self, piece: Piece, x: float, y: float, yaw: float, margin: float) -> bool:
        """Put the piece on the floor if there is room, with things on its surfaces."""
        x0, x1, y0, y1 = self.footprint(piece, x, y, yaw)
        if x0 < -0.01 or y0 < -0.01 or x1 > self.width + 0.01 or y1 > self.length + 0.01:
            return False
        if not self.floor_free(x0 - margin, x1 + margin, y0 - margin, y1 + margin):
            return False
        self.footprints.append((x0, x1, y0, y1))
        self.put(piece, x, y, 0, yaw)
        self.objects += 1
        for top in piece.surfaces:
            self.tops.append((top, x, y, yaw))
            for _ in range(round(self.r.random() ** 1.5 * min(5.0, 1 + 36 * top.half_x * top.half_y))):
                self.add_clutter(*self.tops[-1])
        return True

    def add_clutter(self, top: Surface, x: float, y: float, yaw: float) -> None:
        r, c, s = self.r, math.cos(yaw), math.sin(yaw)
        for _ in range(4):
            px, py = top.x + r.uniform(-1, 1) * top.half_x, top.y + r.uniform(-1, 1) * top.half_y
            spot = (x + c * px - s * py, y + s * px + c * py)
            if all(math.dist(spot, other) > 0.2 for other in self.clutter):
                self.clutter.append(spot)
                self.put(clutter(r, top.room), *spot, top.z, yaw + r.gauss(0, 0.5))
                self.objects += 1
                return

    def along_wall(self, piece: Piece) -> bool:
        for _ in range(10):
            wall = self.r.randrange(4)
            length = self.corners[wall][2]
            if piece.width + 0.1 > length:
                continue
            along = self.r.uniform(piece.width / 2 + 0.03, length - piece.width / 2 - 0.03)
            rect = (along - piece.width / 2, along + piece.width / 2, 0.0, piece.height)
            x, y, _ = self.corners[wall]
            yaw = wall * math.pi / 2
            gap = 0.02
            px = x + math.cos(yaw) * along - math.sin(yaw) * gap
            py = y + math.sin(yaw) * along + math.cos(yaw) * gap
            if self.wall_free(wall, rect) and self.furnish(piece, px, py, yaw + self.r.gauss(0, 0.004), 0.02):
                self.on_wall[wall].append(rect)
                return True
        return False

    # ---- shell --------------------------------------------------------------------------------------------------------

    def shell(self, floor: Material, ceiling: Material, walls: list[Material]) -> None:
        r, g = self.r, self.r.uniform(1.2, 3.0)
        outer = Piece(0, 0, 0)
        mid_x, mid_y, wide, deep = self.width / 2, self.length / 2, self.width + 2 * g, self.length + 2 * g
        outer.box(mid_x, mid_y, -0.1, wide, deep, 0.1, floor)
        outer.box(mid_x, mid_y, self.height, wide, deep, 0.1, ceiling)
        beyond = make("plain", vary(r, r.choice(WALLS)))
        for side in (-1, 1):
            outer.box(mid_x + side * (wide / 2 + 0.05), mid_y, 0, 0.1, deep, self.height, beyond)
            outer.box(mid_x, mid_y + side * (deep / 2 + 0.05), 0, wide, 0.1, self.height, beyond)
        self.put(outer, 0, 0, 0, 0)
        skirting = pale(r) if r.random() < 0.7 else wood(r)
        doors, windows = r.choice([1, 1, 2]), r.choice([0, 1, 1, 2])
        trim = skirting
        for _ in range(doors):
            wide_door = r.choice([0.85, 0.9, 0.9, 1.5])
            self.opening("door" if r.random() < 0.75 else "niche", wide_door, 0.0, r.uniform(2.02, 2.15), trim, g)
        for _ in range(windows):
            bottom = r.uniform(0.7, 1.1)
            self.opening("window", r.uniform(0.7, 2.2), bottom, r.uniform(1.9, min(2.25, self.height - 0.1)), trim, g)
        for wall, (_, _, length) in enumerate(self.corners):
            self.wall(wall, length, walls[wall], skirting)
        self.structure = len(self.primitives)

    def wall(self, wall: int, length: float, m: Material, skirting: Material) -> None:
        p, start = Piece(0, 0, 0), -0.12
        for a, b, bottom, top in sorted(self.on_wall[wall]):
            p.box((start + a) / 2, -0.06, 0, a - start, 0.12, self.height, m)
            p.box((start + a) / 2, 0.006, 0, a - start, 0.012, 0.08, skirting)
            p.box((a + b) / 2, -0.06, top, b - a, 0.12, self.height - top, m)
            if bottom > 0:
                p.box((a + b) / 2, -0.06, 0, b - a, 0.12, bottom, m)
            start = b
        p.box((start + length) / 2, -0.06, 0, length - start, 0.12, self.height, m)
        p.box((start + length) / 2, 0.006, 0, length - start, 0.012, 0.08, skirting)
        self.put_on_wall(p, wall, 0)

    def opening(self, kind: str, width: float, bottom: float, top: float, trim: Material, beyond: float) -> None:
        r, wall = self.r, self.r.randrange(4)
        length = self.corners[wall][2]
        if width + 0.5 > length:
            return
        middle = r.uniform(width / 2 + 0.2, length - width / 2 - 0.2)
        a, b = middle - width / 2, middle + width / 2
        if not self.wall_free(wall, (a - 0.1, b + 0.1, 0, self.height)):
            return
        self.on_wall[wall].append((a, b, bottom, top))
        p, size = Piece(0, 0, 0), top - bottom
        for x in (-width / 2 - 0.04, width / 2 + 0.04):
            p.box(x, -0.055, bottom, 0.08, 0.15, size + 0.08, trim)
        p.box(0, -0.055, top, width, 0.15, 0.08, trim)
        x0, y0, _ = self.corners[wall]
        yaw = wall * math.pi / 2
        px, py = x0 + math.cos(yaw) * middle, y0 + math.sin(yaw) * middle
        if kind == "door":
            leaf_colour = vary(r, r.choice(PALES + WOODS))
            leaf = make("panels", leaf_colour, leaf_colour, 0.45)
            swing = r.choice([0, 0, 1])  # shut, or a passage
            if swing == 0:
                p.box(0, -0.06, 0, width, 0.045, top, leaf)
                p.ball(width / 2 - 0.07, -0.01, 1.0, 0.055, 0.07, 0.055, metal(r))
            else:
                p.box(r.uniform(-0.4, 0.4), -beyond + 0.2, 0, r.uniform(0.4, 1.0), 0.35, r.uniform(0.6, 1.9), body(r))
                self.lights.append(
                    (px + math.sin(yaw) * 0.9, py - math.cos(yaw) * 0.9, self.height - 0.3, 0.6, 0.55, 0.45, 0.1)
                )
            c, s = math.cos(yaw), math.sin(yaw)
            corners = [(px + c * i - s * j, py + s * i + c * j) for i in (-width / 2, width / 2) for j in (0, 0.7)]
            xs, ys = [q[0] for q in corners], [q[1] for q in corners]
            self.footprints.append((min(xs), max(xs), min(ys), max(ys)))
        elif kind == "niche":
            p.box(0, -r.uniform(0.4, beyond * 0.8) - 0.1, 0, width + 0.4, 0.08, top, body(r))
            for x in (-width / 2 - 0.1, width / 2 + 0.1):
                p.box(x, -0.12 - beyond / 2, 0, 0.08, beyond, top, trim)
            for z in (0.4, 0.9, 1.4):
                p.box(0, -0.25, z, width, 0.26, 0.025, body(r))
        else:
            self.window(p, width, bottom, size, trim, (px, py, yaw))
        self.put(p, px, py, 0, yaw)

    def window(
        self, p: Piece, width: float, bottom: float, size: float, trim: Material, at: tuple[float, float, float]
    ) -> None:
        r, (px, py, yaw) = self.r, at
        day = r.random() < 0.75
        sky = vary(r, r.choice([(0.8, 0.88, 0.97), (0.95, 0.95, 0.93), (0.7, 0.8, 0.75)])) if day else (0.05, 0.06, 0.1)
        view = make(
            "picture",
            sky,
            vary(r, r.choice([(0.45, 0.52, 0.4), (0.75, 0.8, 0.85), (0.6, 0.55, 0.5)])),
            0.8,
            0.2,
            3.0 if day else 0.3,
        )
        p.box(0, -0.09, bottom, width, 0.02, size, view)
        bars = max(2, round(width / 0.7)) if r.random() < 0.8 else 2
        for k in range(bars + 1):
            p.box(-width / 2 + k * width / bars, -0.07, bottom, 0.05, 0.04, size, trim)
        for z in (0, r.choice([0.5, 0.97]), 0.97):
            p.box(0, -0.07, bottom + z * size, width, 0.04, 0.045, trim)
        p.box(0, 0.03, bottom - 0.03, width + 0.16, 0.2, 0.03, trim)
        kind = r.random()
        if kind < 0.45:
            m, low = cloth(r), r.choice([0.05, bottom - 0.15])
            for x in (-width / 2 - 0.05, width / 2 + 0.05):
                for k in range(-2, 3):
                    p.cylinder(x + k * 0.085, 0.09, low, 0.05, bottom + size + 0.12 - low, m)
            p.cylinder(
                0,
                0.09,
                bottom + size + 0.13 - width / 2 - 0.35,
                0.015,
                width + 0.7,
                metal(r),
                yaw=math.pi / 2,
                tilt=math.pi / 2,
            )
        elif kind < 0.75:
            slat, down = pale(r), r.uniform(0.2, 0.95)
            for k in range(int(down * size / 0.055)):
                p.box(0, -0.015, bottom + size - 0.03 - k * 0.055, width - 0.02, 0.03, 0.012, slat, tilt=0.5)
        if day:
            gain = r.uniform(2, 6) * min(1.5, width * size / 1.5)
            x, y = px - math.sin(yaw) * 0.25, py + math.cos(yaw) * 0.25
            self.lights.append((x, y, bottom + size * 0.6, 0.85 * gain, 0.95 * gain, 1.1 * gain, 0.45))

    # ---- walls' and ceiling's things ----------------------------------------------------------------------------------

    def decorate(self, kind: str) -> None:
        """Hang something on a random wall, if there is room."""
        r, wall = self.r, self.r.randrange(4)
        p, z = hanging(r, kind)
        w, h = p.width, p.height
        length = self.corners[wall][2]
        if w + 0.2 > length or z + h > self.height - 0.1:
            return
        along = r.uniform(w / 2 + 0.1, length - w / 2 - 0.1)
        rect = (along - w / 2, along + w / 2, z, z + h)
        if self.wall_free(wall, (rect[0] - 0.1, rect[1] + 0.1, z, z + h)):
            self.on_wall[wall].append(rect)
            self.put_on_wall(p, wall, along, z)
            self.objects += 1

    def light_up(self) -> None:
        """Lamps at the ceiling: one in the middle, or a grid in long rooms; warm, neutral or cool."""
        r, p = self.r, Piece(0, 0, 0)
        tint = r.choice([(1.0, 0.78, 0.52), (1.0, 0.86, 0.68), (1.0, 0.95, 0.88), (0.92, 0.97, 1.0)])
        kind, on = r.randrange(4), r.random() < 0.85
        nx, ny = max(1, round(self.width / 3.5)), max(1, round(self.length / 3.5))
        glow = 4.0 if on else 0.0
        shade = make("plain", (1.0, 0.5 + tint[1] / 2, 0.4 + tint[2] / 2), glow=glow)
        for i in range(nx):
            for j in range(ny):
                x, y = (i + 0.5) * self.width / nx + r.gauss(0, 0.05), (j + 0.5) * self.length / ny + r.gauss(0, 0.05)
                z = self.height - 0.25
                if kind == 0:
                    p.ball(x, y, self.height - 0.02, 0.4, 0.4, 0.2, shade)
                elif kind == 1:
                    p.box(x, y, self.height - 0.03, 1.2, 0.3, 0.03, shade)
                elif kind == 2:
                    drop = r.uniform(0.3, 0.7)
                    p.cylinder(x, y, self.height - drop, 0.008, drop, DARK)
                    p.ball(x, y, self.height - drop, 0.3, 0.3, 0.22, shade)
                    z = self.height - drop - 0.2
                else:
                    p.cylinder(x, y, self.height - 0.02, 0.1, 0.025, shade)
                self.objects += 1
                if on:
                    gain = r.uniform(2.0, 3.5) / math.sqrt(nx * ny)
                    self.lights.append(
                        (x, y, z, tint[0] * gain, tint[1] * gain, tint[2] * gain, r.choice([0.05, 0.15, 0.3]))
                    )
        self.put(p, 0, 0, 0, 0)
