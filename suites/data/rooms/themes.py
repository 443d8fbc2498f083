"""What kinds of room there are: sizes, furniture, floors and the colours of walls."""

from __future__ import annotations

from dataclasses import dataclass

from depthbench.suites.data.rooms import fixtures as x
from depthbench.suites.data.rooms import furniture as f
from depthbench.suites.data.rooms.pieces import PALES, WOODS, Colour, Maker


@dataclass(frozen=True)
class Theme:
    weight: float  # how often the theme is drawn
    size: tuple[float, float, float, float]  # shorter side from, to; longer side from, to (metres)
    along_walls: tuple[Maker, ...]
    in_middle: tuple[Maker, ...]
    floors: tuple[str, ...]  # patterns, keys of FLOORS
    decor: tuple[str, ...] = ("picture", "picture", "clock", "shelf", "switch")


# fmt: off
THEMES: dict[str, Theme] = {
    "bedroom": Theme(
        6, (3, 4.5, 3.4, 5.5),
        (f.bed, f.nightstand, f.nightstand, f.wardrobe, f.cabinet, f.desk, f.shelf, f.chair, f.floor_lamp, f.tv_stand,
         f.armchair, f.carton),
        (f.carton, f.ottoman, f.chair, f.bin_),
        ("planks", "noise", "noise"),
    ),
    "living": Theme(
        4, (3.4, 5.5, 4, 7),
        (f.sofa, f.sofa, f.tv_stand, f.shelf, f.sideboard, f.floor_lamp, f.plant, f.armchair, f.cabinet, f.piano, f.table),
        (f.coffee_table, f.armchair, f.ottoman, f.sofa, f.plant, f.table),
        ("planks", "planks", "noise", "tiles"),
    ),
    "kitchen": Theme(
        3, (2.8, 4, 3.2, 6),
        (x.counter, x.counter, x.fridge, f.cabinet, x.washer, f.shelf, x.counter, f.bin_, f.carton),
        (f.table, f.chair, f.stool, f.stool),
        ("tiles", "tiles", "planks", "checks"),
    ),
    "dining": Theme(
        2.5, (3, 5, 3.6, 6),
        (f.sideboard, f.cabinet, f.shelf, f.plant, f.chair, f.floor_lamp, f.cabinet),
        (f.table, f.table, f.plant),
        ("planks", "tiles", "noise"),
    ),
    "office": Theme(
        3, (3, 5, 3.5, 8),
        (f.desk, f.desk, f.desk, f.cabinet, f.shelf, f.shelf, f.wardrobe, f.carton, f.plant, f.bin_),
        (f.office_chair, f.desk, f.table, f.office_chair, f.carton),
        ("noise", "noise", "tiles", "planks"),
        ("board", "picture", "clock", "switch", "shelf"),
    ),
    "bathroom": Theme(
        1.5, (2.3, 3, 2.6, 4),
        (x.washstand, x.toilet, x.bathtub, x.washer, f.cabinet, f.bin_, f.wardrobe),
        (f.bin_, f.stool),
        ("tiles", "tiles", "checks"),
        ("mirror", "picture", "shelf", "switch"),
    ),
    "classroom": Theme(
        1.2, (5, 7, 6, 9),
        (f.cabinet, f.shelf, f.table, f.table, f.desk, f.cabinet, f.carton),
        (f.table, f.table, f.table, f.table, f.chair, f.chair, f.desk),
        ("tiles", "noise", "planks"),
        ("board", "board", "clock", "picture"),
    ),
    "store": Theme(
        1.2, (4.5, 6.5, 6, 9),
        (f.store_shelf,) * 6,
        (f.store_shelf, f.store_shelf, f.store_shelf, f.table, f.carton, f.store_shelf),
        ("noise", "tiles", "planks"),
        ("picture", "picture"),
    ),
    "corridor": Theme(
        0.8, (2.3, 3, 7, 9),
        (f.cabinet, f.plant, f.chair, f.shelf, f.table, f.carton, f.bin_),
        (f.carton,),
        ("tiles", "noise", "planks"),
        ("picture", "picture", "board"),
    ),
    "storage": Theme(
        1, (2.8, 4.5, 3.5, 6),
        (f.store_shelf, f.wardrobe, f.carton, f.carton, f.table, f.cabinet, x.washer, f.store_shelf),
        (f.carton, f.carton, f.chair, f.table),
        ("noise", "tiles", "planks"),
        ("shelf", "switch"),
    ),
}
WALLS: list[Colour] = [
    *PALES, *PALES, (0.85, 0.78, 0.62), (0.72, 0.8, 0.82), (0.8, 0.82, 0.7), (0.75, 0.7, 0.65), (0.88, 0.8, 0.72),
    (0.62, 0.66, 0.7), (0.7, 0.45, 0.35), (0.55, 0.62, 0.5), (0.9, 0.83, 0.55),
]
# fmt: on
FLOORS: dict[str, list[Colour]] = {
    "planks": WOODS,
    "noise": [(0.6, 0.54, 0.45), (0.5, 0.5, 0.5), (0.4, 0.42, 0.47), (0.72, 0.68, 0.6), (0.45, 0.33, 0.28)],
    "tiles": [(0.85, 0.82, 0.76), (0.7, 0.62, 0.52), (0.75, 0.75, 0.75), (0.5, 0.42, 0.35), (0.62, 0.42, 0.3)],
    "checks": [(0.85, 0.83, 0.78), (0.75, 0.7, 0.6)],
}
