"""A scene as arrays: convex primitives, lights, a camera and how it takes the picture."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data.rooms.pieces import Primitive

SPLITS = ("train", "calibration", "test")
Floats = NDArray[np.float32]

# NYU Depth v2's colour camera at 640×480: focal lengths and principal point in pixels.
NYU_FX, NYU_FY, NYU_CX, NYU_CY = 518.86, 519.47, 325.58, 253.74


def intrinsics(height: int, width: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of an image that covers the view of NYU's 480×640, pixel centres at whole numbers."""
    sx, sy = width / 640, height / 480
    return NYU_FX * sx, NYU_FY * sy, (NYU_CX + 0.5) * sx - 0.5, (NYU_CY + 0.5) * sy - 0.5


@dataclass(frozen=True)
class Camera:
    """`rotation`'s columns are the directions of image right, image down and the optical axis in the room's frame."""

    position: Floats  # (3,) metres
    rotation: Floats  # (3, 3)


@dataclass(frozen=True)
class Look:
    """The light's and the lens's part of an image."""

    ambient: Floats = field(default_factory=lambda: np.full(3, 0.5, np.float32))
    balance: Floats = field(default_factory=lambda: np.ones(3, np.float32))  # gain of each channel
    brightness: float = 0.42  # mean of the image after the response curve, about
    contrast: float = 1.0
    vignette: float = 0.0  # share of light lost in the corners
    noise: float = 0.0  # standard deviation at mid-grey
    blur: float = 0.0  # share of a binomial filter, per pass
    motion: int = 0  # pixels of horizontal motion blur
    noise_seed: int = 0


@dataclass(frozen=True)
class Scene:
    """N convex primitives and L lights.

    A primitive is a cube [-1, 1]³, or the cylinder or ball in it, scaled by `half`, turned and moved. The rows of
    `axes[i]` are primitive i's own axes in the room's frame.
    """

    kind: NDArray[np.int64]  # (N,) BOX, CYLINDER or SPHERE
    centre: Floats  # (N, 3)
    axes: Floats  # (N, 3, 3)
    half: Floats  # (N, 3)
    pattern: NDArray[np.int64]  # (N,)
    colours: Floats  # (N, 2, 3) linear
    surface: Floats  # (N, 3) scale of the pattern, gloss, glow
    lights: Floats  # (L, 7) position, linear colour, radius
    camera: Camera
    look: Look = field(default_factory=Look)
    objects: int = 0  # how many things were placed, walls not counted


def scene_key(seed: int, split: str, index: int) -> int:
    """The 128-bit number that a scene is a function of; no two (seed, split, index) share one."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    return int.from_bytes(hashlib.sha256(f"rooms/{seed}/{split}/{index}".encode()).digest()[:16], "little")


def build(
    primitives: list[Primitive], lights: list[tuple[float, ...]], camera: Camera, look: Look, objects: int = 0
) -> Scene:
    """Arrays of the primitives, given in the room's frame; a light is x, y, z, red, green, blue, radius."""
    yaw = np.array([p.yaw for p in primitives])
    tilt = np.array([p.tilt for p in primitives])
    cy, sy, ct, st, zero = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt), np.zeros(len(primitives))
    axes = np.stack([cy, sy, zero, -sy * ct, cy * ct, st, sy * st, -cy * st, ct], axis=1)
    materials = [p.material for p in primitives]
    return Scene(
        kind=np.array([p.kind for p in primitives], np.int64),
        centre=np.array([p.centre for p in primitives], np.float32),
        axes=axes.reshape(-1, 3, 3).astype(np.float32),  # (N, 3, 3)
        half=np.array([p.half for p in primitives], np.float32),
        pattern=np.array([m.pattern for m in materials], np.int64),
        colours=np.array([(m.first, m.second) for m in materials], np.float32) ** np.float32(2.2),
        surface=np.array([(m.scale, m.gloss, m.glow) for m in materials], np.float32),
        lights=np.array(lights, np.float32).reshape(-1, 7),  # (L, 7)
        camera=camera,
        look=look,
        objects=objects,
    )


def look_at(position: tuple[float, float, float], yaw: float, pitch: float, roll: float) -> Camera:
    """A camera whose axis points `yaw` radians from x towards y and `pitch` radians up."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    forward = np.array([cy * cp, sy * cp, sp])
    right0 = np.array([sy, -cy, 0.0])
    down0 = np.cross(forward, right0)
    right = math.cos(roll) * right0 + math.sin(roll) * down0
    down = math.cos(roll) * down0 - math.sin(roll) * right0
    return Camera(np.array(position, np.float32), np.stack([right, down, forward], axis=1).astype(np.float32))
