"""What furniture is made of: primitives, the pieces they compose, and materials.

A piece stands in its own frame in metres: x to its right, y from its back (0) to its front (its depth), z up from its
foot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from depthbench.suites.data.rooms.textures import PATTERNS

BOX, CYLINDER, SPHERE = 0, 1, 2
Colour = tuple[float, float, float]  # sRGB, 0..1


class Material(NamedTuple):
    pattern: int
    first: Colour
    second: Colour
    scale: float = 0.1  # metres, size of the pattern's element
    gloss: float = 0.0
    glow: float = 0.0


class Primitive(NamedTuple):
    kind: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float  # radians about z
    tilt: float  # radians about the primitive's own x axis, before the yaw
    material: Material


class Surface(NamedTuple):
    """A horizontal rectangle on which small things stand."""

    x: float
    y: float
    z: float
    half_x: float
    half_y: float
    room: float  # free height above


@dataclass
class Piece:
    width: float
    depth: float
    height: float
    primitives: list[Primitive] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)

    def box(
        self, x: float, y: float, z: float, w: float, d: float, h: float, m: Material, yaw: float = 0, tilt: float = 0
    ) -> None:
        """A box of size w × d × h whose foot's middle is at (x, y, z)."""
        self.primitives.append(Primitive(BOX, (x, y, z + h / 2), (w / 2, d / 2, h / 2), yaw, tilt, m))

    def cylinder(
        self, x: float, y: float, z: float, r: float, h: float, m: Material, yaw: float = 0, tilt: float = 0
    ) -> None:
        """A cylinder of radius r and length h whose foot's middle is at (x, y, z) before it is tilted."""
        self.primitives.append(Primitive(CYLINDER, (x, y, z + h / 2), (r, r, h / 2), yaw, tilt, m))

    def ball(
        self, x: float, y: float, z: float, w: float, d: float, h: float, m: Material, yaw: float = 0, tilt: float = 0
    ) -> None:
        """An ellipsoid of size w × d × h whose middle is at (x, y, z)."""
        self.primitives.append(Primitive(SPHERE, (x, y, z), (w / 2, d / 2, h / 2), yaw, tilt, m))

    def legs(
        self, w: float, d: float, h: float, thick: float, m: Material, y: float = 0, *, round_: bool = False
    ) -> None:
        """Four legs at the corners of w × d, the back ones at y."""
        for x in (-w / 2 + thick, w / 2 - thick):
            for front in (y + thick, y + d - thick):
                if round_:
                    self.cylinder(x, front, 0, thick / 2, h, m)
                else:
                    self.box(x, front, 0, thick, thick, h, m)


Maker = Callable[[Random], Piece]

# fmt: off
WOODS: list[Colour] = [
    (0.72, 0.52, 0.33), (0.55, 0.36, 0.2), (0.36, 0.22, 0.13), (0.8, 0.65, 0.45), (0.47, 0.25, 0.15),
    (0.62, 0.42, 0.25), (0.25, 0.16, 0.11), (0.85, 0.74, 0.58),
]
FABRICS: list[Colour] = [
    (0.5, 0.42, 0.34), (0.3, 0.3, 0.33), (0.65, 0.6, 0.52), (0.25, 0.3, 0.42), (0.45, 0.18, 0.16),
    (0.36, 0.4, 0.3), (0.75, 0.7, 0.62), (0.2, 0.17, 0.16), (0.55, 0.3, 0.18), (0.4, 0.46, 0.5),
]
BRIGHTS: list[Colour] = [
    (0.75, 0.15, 0.12), (0.1, 0.3, 0.6), (0.15, 0.45, 0.25), (0.85, 0.65, 0.15), (0.85, 0.45, 0.15),
    (0.5, 0.2, 0.45), (0.85, 0.85, 0.82), (0.12, 0.12, 0.14), (0.3, 0.6, 0.65), (0.8, 0.5, 0.5),
]
PALES: list[Colour] = [
    (0.93, 0.91, 0.87), (0.9, 0.87, 0.8), (0.87, 0.87, 0.87), (0.95, 0.94, 0.92), (0.83, 0.8, 0.73),
]
# fmt: on


def vary(r: Random, colour: Colour, amount: float = 0.06) -> Colour:
    """The colour, lighter or darker, and a little off in hue."""
    gain = 1 + r.uniform(-2, 2) * amount
    red, green, blue = (min(1.0, max(0.02, c * gain + r.uniform(-amount, amount) / 2)) for c in colour)
    return red, green, blue


def shade(colour: Colour, gain: float) -> Colour:
    return min(1.0, colour[0] * gain), min(1.0, colour[1] * gain), min(1.0, colour[2] * gain)


def make(
    pattern: str, first: Colour, second: Colour | None = None, scale: float = 0.1, gloss: float = 0.0, glow: float = 0.0
) -> Material:
    return Material(PATTERNS.index(pattern), first, second or shade(first, 0.75), scale, gloss, glow)


def wood(r: Random) -> Material:
    colour = vary(r, r.choice(WOODS))
    return make("wood", colour, shade(colour, r.uniform(0.55, 0.8)), gloss=r.choice([0, 0.1, 0.25]))


def body(r: Random) -> Material:
    """What cabinets and tables are made of: wood, or white, black or grey lacquer."""
    if r.random() < 0.7:
        return wood(r)
    return make("plain", vary(r, r.choice([*PALES, (0.15, 0.15, 0.16), (0.5, 0.5, 0.5)])), gloss=0.15)


def cloth(r: Random) -> Material:
    colour = vary(r, r.choice(FABRICS))
    kind = r.random()
    if kind < 0.65:
        return make("fabric", colour, shade(colour, 1.3))
    if kind < 0.85:
        return make("stripes", colour, vary(r, r.choice(PALES + FABRICS)), r.uniform(0.04, 0.2))
    return make(r.choice(["checks", "picture"]), colour, vary(r, r.choice(PALES + BRIGHTS)), r.uniform(0.05, 0.3))


def metal(r: Random) -> Material:
    grey = r.choice([0.12, 0.35, 0.6, 0.75])
    return make("plain", (grey, grey, grey * 1.02), gloss=0.5)


def paint(r: Random) -> Material:
    return make("plain", vary(r, r.choice(BRIGHTS + PALES)), gloss=r.choice([0, 0.2, 0.4]))


def pale(r: Random) -> Material:
    return make("plain", vary(r, r.choice(PALES), 0.03), gloss=0.2)


DARK = make("plain", (0.06, 0.06, 0.07), gloss=0.4)
CERAMIC = make("plain", (0.93, 0.93, 0.92), gloss=0.5)
