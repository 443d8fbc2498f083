"""Random furnished rooms with exact metric depth, rendered when they are read."""

from depthbench.suites.data.rooms.layout import random_scene
from depthbench.suites.data.rooms.render import MAX_DEPTH, MIN_DEPTH, render, render_scene
from depthbench.suites.data.rooms.scene import SPLITS, Camera, Look, Scene, build, intrinsics, look_at

__all__ = [
    "MAX_DEPTH",
    "MIN_DEPTH",
    "SPLITS",
    "Camera",
    "Look",
    "Scene",
    "build",
    "intrinsics",
    "look_at",
    "random_scene",
    "render",
    "render_scene",
]
