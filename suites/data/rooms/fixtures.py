"""What kitchens and bathrooms have, and the small things that stand on surfaces everywhere."""

from __future__ import annotations

import math
from random import Random

from depthbench.suites.data.rooms.furniture import cabinet, plant
from depthbench.suites.data.rooms.pieces import (
    BRIGHTS,
    CERAMIC,
    DARK,
    FABRICS,
    PALES,
    Piece,
    Surface,
    body,
    cloth,
    make,
    metal,
    paint,
    pale,
    shade,
    vary,
    wood,
)


def counter(r: Random) -> Piece:
    w, d, h = r.uniform(1.5, 3.2), 0.6, 0.9
    p, m = Piece(w, d, 2.2), body(r)
    stone = vary(r, r.choice([(0.25, 0.24, 0.23), (0.6, 0.55, 0.48), (0.85, 0.83, 0.8), (0.45, 0.3, 0.2)]))
    top = make("noise", stone, shade(stone, 0.6), 0.03, 0.4)
    p.box(0, d / 2 - 0.03, 0.1, w, d - 0.06, h - 0.14, m)
    p.box(0, d / 2 - 0.06, 0, w - 0.02, d - 0.14, 0.1, DARK)
    p.box(0, d / 2, h - 0.04, w, d + 0.02, 0.04, top)
    backs = make(
        "tiles",
        vary(r, r.choice([*PALES, (0.5, 0.55, 0.5), (0.7, 0.6, 0.45)])),
        (0.6, 0.58, 0.55),
        r.choice([0.1, 0.15]),
        0.3,
    )
    p.box(0, 0.01, h, w, 0.015, 0.52, backs)
    n, handle = max(2, round(w / 0.5)), metal(r)
    upper = r.random() < 0.75
    stove = r.randrange(n)
    for k in range(n):
        x, each = -w / 2 + (k + 0.5) * w / n, w / n
        if k == stove:
            p.box(x, d - 0.03, 0.1, each - 0.01, 0.05, h - 0.15, r.choice([DARK, CERAMIC, metal(r)]))
            p.box(x, d, 0.7, each * 0.8, 0.04, 0.025, handle)
            p.box(x, d, 0.25, each * 0.7, 0.005, 0.35, DARK)
            for i in (-0.25, 0.25):
                for y in (0.17, 0.42):
                    p.cylinder(x + i * each, y, h, 0.08, 0.012, DARK)
            if upper:
                p.box(x, 0.22, 1.5, each, 0.44, 0.12, r.choice([DARK, CERAMIC, metal(r)]))
        else:
            p.box(x, d - 0.045, 0.11, each - 0.015, 0.03, 0.56, m)
            p.box(x, d - 0.045, 0.69, each - 0.015, 0.03, 0.15, m)
            p.box(x, d - 0.02, 0.76, 0.12, 0.02, 0.015, handle)
            p.box(x + each * 0.38, d - 0.02, 0.48, 0.015, 0.02, 0.13, handle)
            if upper:
                p.box(x, 0.17, 1.42, each - 0.01, 0.33, 0.72, m)
                p.box(x + each * 0.38, 0.345, 1.46, 0.015, 0.02, 0.13, handle)
            if k == (stove + 2) % n:
                p.box(x, d / 2, h, each * 0.85, 0.42, 0.008, metal(r))
                p.cylinder(x, 0.1, h, 0.014, 0.25, metal(r))
                p.box(x, 0.18, h + 0.24, 0.02, 0.18, 0.02, metal(r))
            else:
                p.surfaces.append(Surface(x, d / 2, h, each / 2 - 0.06, 0.2, 0.45))
    return p


def fridge(r: Random) -> Piece:
    p, m = Piece(0.7, 0.68, 1.75), r.choice([CERAMIC, metal(r), DARK])
    split = r.choice([0.5, 1.15])
    p.box(0, 0.32, 0.03, 0.7, 0.62, 1.72, m)
    p.box(0, 0.66, 0.05, 0.69, 0.04, split - 0.06, m)
    p.box(0, 0.66, split, 0.69, 0.04, 1.74 - split, m)
    for z in (split - 0.35, split + 0.06):
        p.box(-0.3, 0.7, z, 0.025, 0.04, 0.28, metal(r))
    p.surfaces.append(Surface(0, 0.35, 1.75, 0.25, 0.22, 0.4))
    return p


def washer(r: Random) -> Piece:
    p = Piece(0.6, 0.6, 0.87)
    p.box(0, 0.3, 0, 0.6, 0.58, 0.87, CERAMIC)
    p.cylinder(0, 0.6, 0.42, 0.2, 0.03, r.choice([DARK, metal(r)]), tilt=1.5708)
    p.box(0, 0.59, 0.74, 0.56, 0.02, 0.1, pale(r))
    p.surfaces.append(Surface(0, 0.3, 0.87, 0.2, 0.2, 0.6))
    return p


def toilet(r: Random) -> Piece:
    p = Piece(0.4, 0.7, 0.8)
    p.box(0, 0.1, 0.38, 0.4, 0.2, 0.4, CERAMIC)
    p.cylinder(0, 0.4, 0, 0.13, 0.3, CERAMIC)
    p.ball(0, 0.44, 0.32, 0.38, 0.5, 0.22, CERAMIC)
    p.ball(0, 0.44, 0.42, 0.39, 0.5, 0.06, r.choice([CERAMIC, wood(r)]))
    return p


def washstand(r: Random) -> Piece:
    p = cabinet(r, r.uniform(0.6, 1.3), 0.5, 0.82)
    p.box(0, 0.26, 0.82, p.width + 0.02, 0.52, 0.035, make("noise", vary(r, r.choice(PALES)), scale=0.04, gloss=0.4))
    p.ball(0, 0.28, 0.86, 0.42, 0.34, 0.1, CERAMIC)
    p.cylinder(0, 0.08, 0.85, 0.012, 0.2, metal(r))
    p.box(0, 0.14, 1.04, 0.02, 0.13, 0.02, metal(r))
    p.surfaces = [Surface(s * (p.width / 2 - 0.1), 0.25, 0.855, 0.06, 0.18, 0.4) for s in (-1, 1)]
    return p


def bathtub(r: Random) -> Piece:
    w, d = r.uniform(1.5, 1.75), 0.75
    p = Piece(w, d, 0.56)
    side = r.choice([CERAMIC, make("tiles", vary(r, r.choice(PALES)), (0.6, 0.6, 0.58), 0.15, 0.3)])
    p.box(0, 0.04, 0, w, 0.08, 0.55, side)
    p.box(0, d - 0.04, 0, w, 0.08, 0.55, side)
    for x in (-w / 2 + 0.05, w / 2 - 0.05):
        p.box(x, d / 2, 0, 0.1, d, 0.55, side)
    p.box(0, d / 2, 0, w, d, 0.15, CERAMIC)
    if r.random() < 0.6:
        p.box(w * r.uniform(-0.35, 0.35), d - 0.04, 0.3, r.uniform(0.4, 0.9), 0.03, 1.65, cloth(r))
    return p


def clutter(r: Random, room: float) -> Piece:  # noqa: PLR0912 - one branch per thing
    """A small thing that stands on a surface, at most `room` metres high. Its frame's origin is its foot's middle."""
    p = Piece(0.2, 0.2, 0.2)
    kind = r.randrange(12)
    if kind in (0, 10):
        z = 0.0
        for _ in range(r.randint(1, 5)):
            h = r.uniform(0.015, 0.045)
            p.box(0, 0, z, r.uniform(0.14, 0.24), r.uniform(0.11, 0.18), h, paint(r), r.uniform(-0.3, 0.3))
            z += h
    elif kind == 1:
        p.cylinder(0, 0, 0, r.uniform(0.035, 0.05), min(room, r.uniform(0.08, 0.14)), paint(r))
    elif kind == 2:
        h = min(room, r.uniform(0.18, 0.32))
        m, radius = paint(r), r.uniform(0.03, 0.045)
        p.cylinder(0, 0, 0, radius, h * 0.7, m)
        p.cylinder(0, 0, h * 0.7, radius * 0.4, h * 0.3, m)
    elif kind == 3:
        p.ball(0, 0, 0.05, 0.24, 0.24, 0.1, paint(r))
        for k in range(3):
            p.ball(
                0.05 * (k - 1), 0.03 * (k % 2), 0.1, 0.075, 0.075, 0.075, make("plain", vary(r, r.choice(BRIGHTS[:5])))
            )
    elif kind == 4:
        pot = plant(r, min(room, r.uniform(0.2, 0.4)))
        for q in pot.primitives:
            p.primitives.append(q._replace(centre=(q.centre[0], q.centre[1] - pot.depth / 2, q.centre[2])))
    elif kind == 5:
        p.box(0, 0, 0, 0.33, 0.23, 0.018, DARK)
        p.box(0, -0.13, 0.01, 0.33, 0.012, 0.22, DARK, tilt=0.25)
    elif kind == 6:
        p.box(
            0,
            0,
            0,
            r.uniform(0.08, 0.25),
            r.uniform(0.06, 0.2),
            min(room, r.uniform(0.05, 0.25)),
            r.choice([paint, wood, cloth])(r),
        )
    elif kind == 7 and room > 0.45 and r.random() < 0.6:
        h = r.uniform(0.35, 0.5)
        p.cylinder(0, 0, 0, 0.06, 0.02, metal(r))
        p.ball(0, 0, h * 0.3, 0.12, 0.12, h * 0.5, paint(r))
        p.cylinder(0, 0, h * 0.58, 0.12, h * 0.4, make("plain", (0.97, 0.9, 0.76), glow=r.choice([0, 0, 1.0, 2.0])))
    elif kind == 8:
        p.box(0, 0, 0, 0.21, 0.3, 0.004, make("plain", (0.95, 0.95, 0.93)))
        p.box(0.06, 0.04, 0.004, 0.21, 0.29, 0.004, make("plain", (0.9, 0.9, 0.86)), 0.4)
    elif kind == 9 and r.random() < 0.5:
        m = cloth(r)
        p.ball(0, 0, 0.09, 0.16, 0.14, 0.18, m)
        p.ball(0, 0, 0.22, 0.12, 0.11, 0.12, m)
        for x in (-0.05, 0.05):
            p.ball(x, 0, 0.28, 0.05, 0.03, 0.05, m)
    else:
        h = min(room, r.uniform(0.15, 0.28))
        p.box(0, 0, 0, h * 0.75, 0.015, h, wood(r), tilt=0.2)
        p.box(
            0,
            0.009,
            0.02,
            h * 0.6,
            0.012,
            h - 0.05,
            make("picture", vary(r, r.choice(BRIGHTS)), vary(r, r.choice(PALES)), 0.15),
            tilt=0.2,
        )
    return p


def hanging(r: Random, kind: str) -> tuple[Piece, float]:
    """A picture, mirror, clock, board, shelf or switch, and at which height its foot hangs, metres."""
    p, z = Piece(0, 0, 0), r.uniform(1.25, 1.5)
    if kind in ("picture", "mirror"):
        w, h = r.uniform(0.25, 1.1), r.uniform(0.25, 0.8)
        p.box(0, 0.013, 0, w, 0.026, h, body(r))
        edge = r.uniform(0.04, 0.14) * min(w, h)
        paper = pale(r)
        art = make(
            "picture",
            vary(r, r.choice(BRIGHTS + FABRICS)),
            vary(r, r.choice(PALES + BRIGHTS)),
            r.uniform(0.2, 0.6),
            0.2,
        )
        p.box(
            0,
            0.017,
            edge / 2,
            w - edge,
            0.024,
            h - edge,
            paper if kind == "picture" else make("picture", (0.75, 0.78, 0.78), (0.5, 0.5, 0.48), 1, 0.6),
        )
        if kind == "picture":
            p.box(0, 0.018, edge * 1.2, w - edge * 2.4, 0.025, h - edge * 2.4, art)
    elif kind == "clock":
        w, h, z = 0.3, 0.3, 1.9
        p.cylinder(0, 0.015, 0.15 - 0.015, 0.15, 0.03, body(r), tilt=math.pi / 2)
        p.cylinder(0, 0.02, 0.15 - 0.015, 0.13, 0.03, CERAMIC, tilt=math.pi / 2)
        p.box(0, 0.036, 0.15, 0.012, 0.004, 0.1, DARK)
        p.box(0.03, 0.036, 0.15, 0.06, 0.004, 0.012, DARK)
    elif kind == "board":
        w, h, z = r.uniform(1.2, 2.6), r.uniform(0.9, 1.2), 0.9
        p.box(0, 0.015, 0, w, 0.03, h, body(r))
        p.box(
            0,
            0.018,
            0.03,
            w - 0.06,
            0.03,
            h - 0.06,
            r.choice([CERAMIC, make("noise", (0.6, 0.45, 0.3)), make("plain", (0.12, 0.25, 0.18))]),
        )
        for _ in range(r.randint(0, 8)):
            p.box(r.uniform(-0.4, 0.4) * w, 0.022, r.uniform(0.1, 0.65) * h, 0.21, 0.026, 0.29, paint(r))
    elif kind == "shelf":
        w, h = r.uniform(0.6, 1.2), 0.35
        p.box(0, 0.11, 0, w, 0.22, 0.025, body(r))
        for k in range(r.randint(2, 5)):
            item = clutter(r, 0.3)
            x = -w / 2 + 0.12 + k * (w - 0.2) / 5
            p.primitives += [
                q._replace(centre=(q.centre[0] + x, q.centre[1] + 0.12, q.centre[2] + 0.025)) for q in item.primitives
            ]
    else:
        w, h, z = 0.08, 0.12, 1.1
        p.box(0, 0.006, 0, 0.08, 0.012, 0.12, CERAMIC)
    p.width, p.height = w, h
    return p, z
