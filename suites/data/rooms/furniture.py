"""Furniture at real-world sizes. A maker takes the random numbers and returns a new piece."""

from __future__ import annotations

from random import Random

from depthbench.suites.data.rooms.pieces import (
    BRIGHTS,
    CERAMIC,
    DARK,
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


def table(r: Random, w: float = 0, d: float = 0, h: float = 0) -> Piece:
    w, d, h = w or r.uniform(0.9, 1.9), d or r.uniform(0.7, 1.0), h or r.uniform(0.7, 0.77)
    p, m, thick = Piece(w, d, h), body(r), r.uniform(0.02, 0.05)
    if r.random() < 0.25:
        radius = min(w, d) / 2
        p.cylinder(0, d / 2, h - thick, radius, thick, m)
        p.cylinder(0, d / 2, 0, 0.04, h - thick, m)
        p.cylinder(0, d / 2, 0, 0.6 * radius, 0.03, m)
        p.surfaces.append(Surface(0, d / 2, h, radius * 0.65, radius * 0.65, 1))
        return p
    p.box(0, d / 2, h - thick, w, d, thick, m)
    p.legs(w - 0.06, d - 0.06, h - thick, r.uniform(0.03, 0.07), r.choice([m, metal(r)]), 0.03, round_=r.random() < 0.3)
    if r.random() < 0.5:
        p.box(0, d / 2, h - thick - 0.09, w - 0.16, d - 0.16, 0.09, m)
    p.surfaces.append(Surface(0, d / 2, h, w / 2 - 0.08, d / 2 - 0.08, 1))
    return p


def coffee_table(r: Random) -> Piece:
    p = table(r, r.uniform(0.7, 1.3), r.uniform(0.5, 0.75), r.uniform(0.35, 0.48))
    if r.random() < 0.5:
        p.box(0, p.depth / 2, 0.12, p.width - 0.2, p.depth - 0.2, 0.02, p.primitives[0].material)
    return p


def chair(r: Random) -> Piece:
    w, d, seat, h = r.uniform(0.4, 0.48), r.uniform(0.42, 0.5), r.uniform(0.43, 0.48), r.uniform(0.8, 1.02)
    p, m = Piece(w, d, h), body(r)
    soft = r.choice([m, cloth(r)])
    p.box(0, d / 2, seat - 0.04, w, d, 0.04 + 0.02 * (soft is not m), soft)
    p.legs(w, d, seat - 0.04, 0.035, m)
    if r.random() < 0.5:
        p.box(0, 0.02, seat + 0.12, w, 0.03, h - seat - 0.12, soft, tilt=0.12)
        for x in (-w / 2 + 0.02, w / 2 - 0.02):
            p.box(x, 0.03, seat, 0.03, 0.03, 0.2, m)
    else:
        for x in (-w / 2 + 0.02, w / 2 - 0.02):
            p.box(x, 0.02, seat, 0.035, 0.035, h - seat, m, tilt=0.1)
        for z in (0.35, 0.65, 0.92):
            p.box(0, 0.02, seat + z * (h - seat) - 0.03, w - 0.06, 0.02, 0.07, m, tilt=0.1)
    return p


def office_chair(r: Random) -> Piece:
    p, m = (
        Piece(0.62, 0.62, 1.0),
        make("fabric", vary(r, r.choice([(0.1, 0.1, 0.12), (0.2, 0.25, 0.4), (0.4, 0.1, 0.1)]))),
    )
    for k in range(5):
        p.box(0.14 * (k - 2) * 0.8, 0.31 + 0.12 * (k % 2) - 0.06, 0.05, 0.05, 0.5, 0.04, DARK, yaw=k * 1.2566)
    p.cylinder(0, 0.31, 0.08, 0.03, 0.36, DARK)
    p.box(0, 0.33, 0.43, 0.5, 0.48, 0.08, m)
    p.box(0, 0.08, 0.58, 0.46, 0.06, r.uniform(0.38, 0.6), m, tilt=0.15)
    if r.random() < 0.6:
        for x in (-0.27, 0.27):
            p.box(x, 0.3, 0.64, 0.05, 0.3, 0.03, DARK)
            p.box(x, 0.3, 0.45, 0.03, 0.04, 0.2, DARK)
    return p


def sofa(r: Random, seats: int = 0) -> Piece:
    seats = seats or r.choice([2, 2, 3])
    arm, d, seat, h = r.uniform(0.12, 0.22), r.uniform(0.8, 1.0), r.uniform(0.4, 0.46), r.uniform(0.75, 0.95)
    w = seats * r.uniform(0.58, 0.7) + 2 * arm
    p, m = Piece(w, d, h), cloth(r)
    p.box(0, d / 2, 0.06, w - 0.02, d, seat - 0.2, m)
    p.box(0, 0.1, 0.1, w, 0.2, h - 0.12, m)
    for x in (-w / 2 + arm / 2, w / 2 - arm / 2):
        p.box(x, d / 2, 0.06, arm, d, r.uniform(0.5, 0.56), m)
        if r.random() < 0.4:
            p.cylinder(x, d / 2, 0.57 - d / 2, arm * 0.56, d, m, tilt=1.5708)
    each = (w - 2 * arm) / seats
    for k in range(seats):
        x = -w / 2 + arm + each * (k + 0.5)
        p.box(x, d / 2 + 0.08, seat - 0.14, each - 0.02, d - 0.2, 0.15, m)
        p.box(x, 0.24, seat, each - 0.02, 0.16, h - seat - 0.02, m, tilt=0.18)
    for _ in range(r.randint(0, seats)):
        p.box(
            r.uniform(-1, 1) * (w / 2 - arm - 0.25), 0.42, seat, 0.42, 0.14, 0.38, cloth(r), r.uniform(-0.3, 0.3), 0.35
        )
    p.surfaces.append(Surface(0, d * 0.65, seat + 0.01, w / 2 - arm - 0.1, 0.15, 0.3))
    return p


def armchair(r: Random) -> Piece:
    return sofa(r, 1)


def bed(r: Random) -> Piece:
    w, d, top = r.choice([0.95, 1.4, 1.6, 1.9]), r.uniform(1.95, 2.1), r.uniform(0.42, 0.65)
    p, m, sheet = Piece(w, d, 1.0), body(r), r.choice([pale(r), cloth(r)])
    p.box(0, 0.03, 0, w + 0.06, 0.06, r.uniform(0.8, 1.2), r.choice([m, cloth(r)]))
    p.box(0, d / 2, 0.08, w, d - 0.06, top - 0.3, m)
    p.box(0, d / 2, top - 0.22, w - 0.04, d - 0.08, 0.22, sheet)
    cover = cloth(r)
    length = r.uniform(0.5, 0.72) * d
    p.box(0, d - length / 2, top - 0.2, w + 0.04, length, 0.24, cover)
    if r.random() < 0.6:
        p.box(0, d - length, top - 0.02, w + 0.05, 0.3, 0.09, sheet)
    pillow = r.choice([sheet, pale(r), cloth(r)])
    for x in [0.0] if w < 1.2 else [-w / 4, w / 4]:
        p.ball(x, 0.28, top + 0.08, min(0.68, w * 0.45 + 0.2), 0.42, 0.2, pillow, r.uniform(-0.1, 0.1), 0.25)
        if r.random() < 0.5:
            p.box(x, 0.5, top, 0.4, 0.13, 0.36, cloth(r), r.uniform(-0.3, 0.3), 0.6)
    p.surfaces.append(Surface(0, d * 0.7, top + 0.05, w / 2 - 0.2, d * 0.2, 0.4))
    return p


def cabinet(r: Random, w: float = 0, d: float = 0, h: float = 0) -> Piece:
    w, d, h = w or r.uniform(0.7, 1.6), d or r.uniform(0.38, 0.55), h or r.choice([0.75, 0.9, 1.1, 1.4])
    p, m = Piece(w, d, h), body(r)
    columns = max(1, round(w / r.uniform(0.4, 0.6)))
    p.box(0, d / 2 - 0.01, 0.05, w, d - 0.02, h - 0.05, m)
    p.box(0, d / 2 - 0.02, 0, w - 0.06, d - 0.08, 0.05, DARK)
    rows, handle = (r.choice([1, 1, 3, 4]) if h < 1.5 else 1), metal(r)
    face = m if r.random() < 0.7 else body(r)
    each_w, each_h = w / columns, (h - 0.07) / rows
    for i in range(columns):
        for j in range(rows):
            x, z = -w / 2 + (i + 0.5) * each_w, 0.06 + j * each_h
            p.box(x, d - 0.012, z + 0.006, each_w - 0.012, 0.024, each_h - 0.012, face)
            if rows > 1:
                p.box(x, d + 0.012, z + each_h / 2, 0.12, 0.02, 0.015, handle)
            else:
                side = 0.4 if i % 2 == 0 else -0.4
                p.box(x + side * each_w, d + 0.012, min(z + each_h * 0.5, 1.0), 0.015, 0.02, 0.14, handle)
    p.surfaces.append(Surface(0, d / 2, h, w / 2 - 0.08, d / 2 - 0.06, 1))
    return p


def wardrobe(r: Random) -> Piece:
    return cabinet(r, r.uniform(0.9, 2.2), r.uniform(0.5, 0.62), r.uniform(1.85, 2.25))


def nightstand(r: Random) -> Piece:
    return cabinet(r, r.uniform(0.38, 0.55), r.uniform(0.35, 0.45), r.uniform(0.45, 0.65))


def sideboard(r: Random) -> Piece:
    return cabinet(r, r.uniform(1.2, 2.0), r.uniform(0.38, 0.5), r.uniform(0.5, 0.85))


def shelf(r: Random, *, store: bool = False) -> Piece:
    w, d, h = r.uniform(0.7, 2.0 if store else 1.3), r.uniform(0.26, 0.4), r.uniform(1.2, 2.2)
    p, m, n = Piece(w, d, h), body(r), r.randint(3, 6)
    gap = (h - 0.08) / n
    for x in (-w / 2 + 0.0125, w / 2 - 0.0125):
        p.box(x, d / 2, 0, 0.025, d, h, m)
    if r.random() < 0.75:
        p.box(0, 0.008, 0.05, w - 0.05, 0.015, h - 0.06, m)
    for k in range(n + 1):
        p.box(0, d / 2, 0.05 + k * gap, w - 0.05, d - 0.01, 0.025, m)
        if k == n:
            break
        x, z = -w / 2 + 0.04, 0.075 + k * gap
        while x < w / 2 - 0.1:
            span = min(r.uniform(0.1, 0.4), w / 2 - 0.04 - x)
            kind = r.random()
            tall = gap * r.uniform(0.55, 0.88)
            if kind < (0.4 if store else 0.68):
                deep = min(d - 0.06, r.uniform(0.14, 0.24))
                books = make("books", (0.5, 0.4, 0.3), (0.85, 0.82, 0.75), r.uniform(0.022, 0.045))
                p.box(x + span / 2, d - 0.02 - deep / 2 - r.uniform(0, 0.03), z, span, deep, min(tall, 0.34), books)
            elif kind < 0.8:
                p.box(
                    x + span / 2,
                    d / 2,
                    z,
                    span * 0.85,
                    d * 0.7,
                    tall * r.uniform(0.4, 1),
                    r.choice([paint, wood, cloth])(r),
                )
            elif kind < 0.88:
                p.cylinder(x + span / 2, d / 2, z, min(span, d) * 0.3, tall * 0.8, paint(r))
            elif kind < 0.92:
                size = min(span, d, tall) * 0.8
                p.ball(x + span / 2, d / 2, z + size / 2, size, size, size, paint(r))
            x += span + r.choice([0.005, 0.01, 0.15])
    p.surfaces.append(Surface(0, d / 2, h, w / 2 - 0.1, d / 2 - 0.06, 0.35))
    return p


def store_shelf(r: Random) -> Piece:
    return shelf(r, store=True)


def screen(p: Piece, r: Random, x: float, y: float, z: float, w: float) -> None:
    """A flat screen with its foot at (x, y, z), seen from the front (+y)."""
    h = w * 0.6
    p.box(x, y, z, w * 0.4, 0.18, 0.015, DARK)
    p.box(x, y - 0.02, z, 0.05, 0.03, h * 0.5, DARK)
    p.box(x, y, z + 0.09, w, 0.035, h, DARK)
    lit = r.random() < 0.5
    picture = make("picture", vary(r, r.choice(BRIGHTS)), vary(r, r.choice(PALES)), 0.4, 0.3, 0.7) if lit else DARK
    p.box(x, y + 0.018, z + 0.105, w - 0.03, 0.004, h - 0.03, picture)


def desk(r: Random) -> Piece:
    w, d, h = r.uniform(1.1, 1.8), r.uniform(0.6, 0.8), r.uniform(0.71, 0.76)
    p, m = Piece(w, d, h), body(r)
    p.box(0, d / 2, h - 0.03, w, d, 0.03, m)
    side = r.choice([-1, 1])
    p.box(side * (w / 2 - 0.22), d / 2, 0.02, 0.4, d - 0.06, h - 0.05, m)
    for k in range(3):
        p.box(side * (w / 2 - 0.22), d - 0.02, 0.05 + k * 0.22, 0.37, 0.02, 0.2, m)
        p.box(side * (w / 2 - 0.22), d, 0.15 + k * 0.22, 0.1, 0.02, 0.015, DARK)
    p.box(-side * (w / 2 - 0.015), d / 2, 0, 0.03, d - 0.04, h - 0.03, m)
    x = r.uniform(-0.2, 0.2)
    screen(p, r, x, 0.2, h, r.uniform(0.42, 0.62))
    p.box(x, d - 0.22, h, 0.43, 0.14, 0.02, r.choice([DARK, pale(r)]))
    p.box(x + 0.32, d - 0.22, h, 0.06, 0.1, 0.03, DARK)
    p.surfaces += [
        Surface(x - 0.55, d / 2, h, 0.14, d / 2 - 0.1, 0.6),
        Surface(x + 0.6, d / 3, h, 0.12, d / 3 - 0.1, 0.6),
    ]
    return p


def tv_stand(r: Random) -> Piece:
    p = cabinet(r, r.uniform(1.0, 1.7), r.uniform(0.38, 0.5), r.uniform(0.42, 0.6))
    screen(p, r, 0, 0.2, p.height, r.uniform(0.7, 1.2))
    x = p.width / 2 - 0.1
    p.surfaces = [
        Surface(x, p.depth / 2, p.height, 0.06, 0.12, 0.5),
        Surface(-x, p.depth / 2, p.height, 0.06, 0.12, 0.5),
    ]
    return p


def floor_lamp(r: Random) -> Piece:
    p, h, m = Piece(0.36, 0.36, 1.6), r.uniform(1.4, 1.75), metal(r)
    p.cylinder(0, 0.18, 0, 0.14, 0.03, m)
    p.cylinder(0, 0.18, 0.03, 0.013, h - 0.2, m)
    p.cylinder(
        0,
        0.18,
        h - 0.25,
        r.uniform(0.12, 0.2),
        r.uniform(0.2, 0.3),
        make("plain", (0.98, 0.88, 0.7), glow=r.choice([0, 1.5, 2.5])),
    )
    return p


def plant(r: Random, size: float = 0) -> Piece:
    h = size or r.uniform(0.6, 1.6)
    w = h * r.uniform(0.4, 0.6)
    p, pot = Piece(w, w, h), h * r.uniform(0.2, 0.3)
    p.cylinder(0, w / 2, 0, min(0.2, h * 0.14), pot, r.choice([paint, pale, wood])(r))
    p.cylinder(0, w / 2, pot, 0.012 + 0.01 * h, h * 0.4, make("wood", (0.35, 0.25, 0.15)))
    green = vary(r, r.choice([(0.2, 0.36, 0.14), (0.3, 0.45, 0.2), (0.14, 0.28, 0.14)]))
    for _ in range(r.randint(9, 16)):
        leaf = make("noise", vary(r, green, 0.05), shade(green, 0.6), 0.02)
        x, y = r.gauss(0, w / 5), r.gauss(0, w / 5)
        z = pot + (h - pot) * r.uniform(0.25, 0.98)
        p.ball(
            x,
            w / 2 + y,
            z,
            w * r.uniform(0.15, 0.3),
            0.02 + 0.03 * h,
            w * r.uniform(0.35, 0.6),
            leaf,
            r.uniform(0, 6.3),
            r.gauss(0, 0.7),
        )
    return p


def stool(r: Random) -> Piece:
    h = r.choice([0.45, 0.65, 0.75])
    p, m = Piece(0.38, 0.38, h), body(r)
    p.cylinder(0, 0.19, h - 0.04, 0.18, 0.04, r.choice([m, cloth(r)]))
    p.legs(0.32, 0.32, h - 0.04, 0.03, m, 0.03, round_=True)
    return p


def carton(r: Random) -> Piece:
    w, d, h = r.uniform(0.25, 0.6), r.uniform(0.25, 0.5), r.uniform(0.2, 0.5)
    p = Piece(w, d, h)
    m = r.choice([make("plain", vary(r, (0.65, 0.5, 0.33))), paint(r), wood(r), cloth(r)])
    p.box(0, d / 2, 0, w, d, h, m)
    p.box(0, d / 2, h * 0.85, w * 0.15, d + 0.004, h * 0.155, make("plain", (0.8, 0.72, 0.55)))
    p.surfaces.append(Surface(0, d / 2, h, w / 2 - 0.08, d / 2 - 0.08, 0.5))
    return p


def bin_(r: Random) -> Piece:
    p = Piece(0.32, 0.32, 0.45)
    p.cylinder(0, 0.16, 0, r.uniform(0.11, 0.16), r.uniform(0.28, 0.6), r.choice([paint(r), metal(r), DARK]))
    return p


def ottoman(r: Random) -> Piece:
    p, m = Piece(0.6, 0.5, 0.42), cloth(r)
    if r.random() < 0.5:
        p.ball(0, 0.25, 0.2, 0.62, 0.6, 0.4, m)
    else:
        p.box(0, 0.25, 0.05, 0.6, 0.5, 0.38, m)
    return p


def piano(r: Random) -> Piece:
    p, m = Piece(1.45, 0.6, 1.2), r.choice([wood(r), DARK])
    p.box(0, 0.15, 0, 1.45, 0.3, 1.2, m)
    p.box(0, 0.42, 0.62, 1.45, 0.3, 0.1, m)
    p.box(0, 0.46, 0.72, 1.25, 0.15, 0.012, CERAMIC)
    for x in (-0.68, 0.68):
        p.box(x, 0.4, 0, 0.08, 0.3, 0.62, m)
    p.surfaces.append(Surface(0, 0.15, 1.2, 0.6, 0.1, 0.6))
    return p
