"""The rooms against geometry worked out here by other means, and their promises of repeatability."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from depthbench.suites.data import rooms
from depthbench.suites.data.rooms.pieces import BOX, CYLINDER, SPHERE, Primitive, make
from depthbench.suites.data.rooms.scene import scene_key

PAINT = make("plain", (0.7, 0.7, 0.7))
LIGHT = (0.0, 0.0, 2.0, 3.0, 3.0, 3.0, 0.1)


def scene_of(*primitives: Primitive, pitch: float = 0.0, roll: float = 0.0) -> rooms.Scene:
    """Primitives seen from (0, 0, 0) along x, with left as y and up as z."""
    return rooms.build(list(primitives), [LIGHT], rooms.look_at((0, 0, 0), 0, pitch, roll), rooms.Look())


def solid(
    kind: int, centre: tuple[float, float, float], half: tuple[float, float, float], yaw: float = 0.0, tilt: float = 0.0
) -> Primitive:
    return Primitive(kind, centre, half, yaw, tilt, PAINT)


def pixel_rays(height: int = 240, width: int = 320) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right and down components of the view rays with forward component 1, from NYU's published calibration."""
    sx, sy = width / 640, height / 480
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    return (u + 0.5 - (325.58 + 0.5) * sx) / (518.86 * sx), (v + 0.5 - (253.74 + 0.5) * sy) / (519.47 * sy)


def depth_of(scene: rooms.Scene, height: int = 240, width: int = 320) -> NDArray[np.float64]:
    return rooms.render_scene(scene, height=height, width=width)[1][0].double().numpy()


def nearest_by_planes(scene: rooms.Scene, right: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
    """z-depth of the scene in doubles, every ray against every primitive: a box as six faces, a round as its quadric."""
    r = scene.camera.rotation.astype(np.float64)
    d = right[..., None] * r[:, 0] + down[..., None] * r[:, 1] + r[:, 2]
    best = np.full(right.shape, np.inf)
    for kind, centre, axes, half in zip(scene.kind, scene.centre, scene.axes, scene.half, strict=True):
        m = axes.astype(np.float64) / half.astype(np.float64)[:, None]
        o, w = m @ (scene.camera.position.astype(np.float64) - centre), d @ m.T
        candidates = []
        with np.errstate(divide="ignore", invalid="ignore"):
            faces = (0, 1, 2) if kind == BOX else (2,) if kind == CYLINDER else ()
            for k in faces:
                for side in (-1, 1):
                    t = (side - o[k]) / w[..., k]
                    p = o + t[..., None] * w
                    others = [i for i in range(3) if i != k]
                    within = np.abs(p[..., others]).max(-1) <= 1 if kind == BOX else (p[..., :2] ** 2).sum(-1) <= 1
                    candidates.append(np.where(within, t, np.inf))
            if kind != BOX:
                n = 2 if kind == CYLINDER else 3
                a, b, c = (w[..., :n] ** 2).sum(-1), (w[..., :n] * o[:n]).sum(-1), (o[:n] ** 2).sum() - 1
                t = (-b - np.sqrt(b * b - a * c)) / a
                p = o + t[..., None] * w
                on_side = np.abs(p[..., 2]) <= 1 if kind == CYLINDER else np.isfinite(t)
                candidates.append(np.where(on_side & np.isfinite(t), t, np.inf))
        for t in candidates:
            best = np.where((t > 0) & (t < best), t, best)
    return best


def test_a_wall_across_the_view_has_one_depth() -> None:
    depth = depth_of(scene_of(solid(BOX, (3.5, 0, 0), (0.5, 5, 5))))
    np.testing.assert_allclose(depth, 3.0, rtol=1e-5)


@pytest.mark.parametrize("pitch", [-0.5, -0.2])
def test_the_floor_is_a_plane_under_a_tilted_camera(pitch: float) -> None:
    depth = depth_of(scene_of(solid(BOX, (0, 0, -1.6), (50, 50, 0.1)), pitch=pitch))
    _, down = pixel_rays()
    descent = down * math.cos(pitch) - math.sin(pitch)  # of a ray with forward component 1
    expected = np.where(descent > 0, 1.5 / np.maximum(descent, 1e-9), np.inf)
    np.testing.assert_allclose(depth, np.where(expected <= rooms.MAX_DEPTH, expected, 0), rtol=1e-4)


def test_a_sphere_has_the_depth_of_its_quadratic_equation() -> None:
    right, down = pixel_rays()
    centre, radius = np.array([0.3, -0.2, 2.5]), 0.7  # right, down, forward
    a, b, c = right**2 + down**2 + 1, right * centre[0] + down * centre[1] + centre[2], centre @ centre - radius**2
    root = b * b - a * c
    expected = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    depth = depth_of(scene_of(solid(SPHERE, (2.5, -0.3, 0.2), (0.7, 0.7, 0.7))))
    inner = np.abs(root) > 1e-5  # at the very rim single precision may decide either way
    np.testing.assert_allclose(depth[inner], expected[inner], rtol=1e-4)
    assert (expected > 0).sum() > 5000


def test_an_upright_cylinder_and_its_lid() -> None:
    right, down = pixel_rays()
    # A column of radius 0.5 m, 3 m ahead, whose lid lies 0.4 m below the camera.
    depth = depth_of(scene_of(solid(CYLINDER, (3, 0, -1.4), (0.5, 0.5, 1.0))))
    a = right**2 + 1
    root = 9 - a * (9 - 0.25)
    side = np.where(root > 0, (3 - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    side = np.where((down * side > 0.4) & (down * side < 2.4), side, np.inf)
    lid = np.where(down > 0, 0.4 / np.maximum(down, 1e-9), np.inf)
    lid = np.where((right * lid) ** 2 + (lid - 3) ** 2 < 0.25, lid, np.inf)
    expected = np.minimum(side, lid)
    expected = np.where(np.isfinite(expected), expected, 0)
    wrong = np.abs(depth - expected) > 1e-4 * np.maximum(expected, 1)
    assert (lid < side).sum() > 500
    assert np.isfinite(side).sum() > 2000
    assert wrong.sum() <= 5  # of 76,800 pixels, on the rim


def test_a_turned_box_shows_two_faces() -> None:
    right, _ = pixel_rays()
    # A cube's edge points at the camera: its faces meet 2 m ahead, each at 45° to the view.
    depth = depth_of(scene_of(solid(BOX, (2 + math.sqrt(2), 0, 0), (1, 1, 9), yaw=math.pi / 4)))
    expected = 2 / (1 - np.abs(right))
    seen = np.abs(right) * expected < math.sqrt(2) - 1e-3
    assert seen.mean() > 0.6
    np.testing.assert_allclose(depth[seen], expected[seen], rtol=1e-4)


def test_roll_turns_the_picture() -> None:
    """With the camera rolled by 90° a floor stands at the picture's side."""
    depth = depth_of(scene_of(solid(BOX, (0, 0, -1.6), (50, 50, 0.1)), roll=math.pi / 2))
    right, _ = pixel_rays()
    expected = np.where(right > 0, 1.5 / np.maximum(right, 1e-9), np.inf)
    np.testing.assert_allclose(depth, np.where(expected <= rooms.MAX_DEPTH, expected, 0), rtol=1e-4)


@pytest.mark.parametrize(("split", "index"), [("train", 11), ("test", 3), ("calibration", 8)])
def test_every_pixel_of_a_room_agrees_with_a_reference_caster(split: str, index: int) -> None:
    scene = rooms.random_scene(5, split, index)
    depth = depth_of(scene, 96, 128)
    expected = nearest_by_planes(scene, *pixel_rays(96, 128))
    expected = np.where(expected <= rooms.MAX_DEPTH, expected, 0)
    wrong = np.abs(depth - expected) > 1e-3 * np.maximum(expected, 1)
    assert wrong.mean() < 1e-3  # rims of thin things only


def test_a_shadow_falls_behind_what_stands_in_the_light() -> None:
    wall, post = solid(BOX, (4.1, 0, 0), (0.1, 5, 5)), solid(BOX, (2, 0, 0), (0.1, 0.3, 0.3))
    light = (0.0, -2.5, 0.0, 20.0, 20.0, 20.0, 0.02)
    look = rooms.Look(ambient=np.full(3, 0.05, np.float32))
    camera = rooms.look_at((0, 0, 0), 0, 0, 0)
    lit, shaded = (
        rooms.render_scene(rooms.build(things, [light], camera, look))[0].float().mean(0)
        for things in ([wall], [wall, post])
    )
    # The light is to the right (y = -2.5), so the post's shadow lies to the left: y = 2.5 on the wall at x = 4.
    column = round(float(rooms.intrinsics(240, 320)[2]) + 259.43 * -2.3 / 4)
    assert shaded[127, column] < 0.6 * lit[127, column]


def test_a_room_is_a_function_of_seed_split_and_index_alone() -> None:
    torch.manual_seed(1)
    random.seed(1)
    rgb, depth = rooms.render(3, "train", [4, 9, 2], height=120, width=160)
    torch.manual_seed(2)
    random.seed(2)
    before = torch.get_rng_state(), random.getstate()
    alone_rgb, alone_depth = rooms.render(3, "train", [9], height=120, width=160)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert torch.equal(rgb[1], alone_rgb[0])
    assert torch.equal(depth[1], alone_depth[0])


def test_threads_do_not_change_a_bit() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = rooms.render(3, "test", [5])
        torch.set_num_threads(2)
        two = rooms.render(3, "test", [5])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_splits_and_seeds_never_share_a_scene() -> None:
    keys = {scene_key(seed, split, i) for seed in (0, 1, 11) for split in rooms.SPLITS for i in range(3000)}
    assert len(keys) == 3 * 3 * 3000
    pictures = {
        rooms.render(0, split, [i], height=64, width=96)[0].numpy().tobytes()
        for split in rooms.SPLITS
        for i in range(3)
    }
    assert len(pictures) == 9
    places = {rooms.random_scene(0, split, i).centre.tobytes() for split in rooms.SPLITS for i in range(8)}
    assert len(places) == 24


def test_rooms_are_furnished_and_in_range() -> None:
    depths, pictures = [], []
    for i in range(12):
        scene = rooms.random_scene(1, "train", i)
        assert scene.objects >= 25
        assert {BOX, CYLINDER, SPHERE} == set(scene.kind.tolist())
        rgb, depth = rooms.render_scene(scene, height=120, width=160)
        assert rgb.dtype == torch.uint8
        assert depth.dtype == torch.float32
        valid = depth[depth > 0]
        assert valid.min() >= rooms.MIN_DEPTH
        assert valid.max() <= rooms.MAX_DEPTH
        assert len(valid) > 0.9 * depth.numel()
        assert rgb.float().std() > 12
        depths.append(float(valid.mean()))
        pictures.append(rgb)
    assert 2.0 < np.mean(depths) < 4.0  # NYU's images have 3.0 m
    assert np.std(depths) > 0.3
    assert 70 < torch.stack(pictures).float().mean() < 160


def test_the_camera_is_held_by_hand() -> None:
    for i in range(20):
        camera = rooms.random_scene(2, "calibration", i).camera
        assert 0.9 <= camera.position[2] <= 1.8
        pitch = math.degrees(math.asin(float(camera.rotation[2, 2])))
        assert -25.1 <= pitch <= 10.1
        np.testing.assert_allclose(camera.rotation.T @ camera.rotation, np.eye(3), atol=1e-5)
        assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-5)


def test_sizes_and_shapes() -> None:
    rgb, depth = rooms.render(0, "test", [1, 0], height=50, width=70)
    assert rgb.shape == (2, 3, 50, 70)
    assert depth.shape == (2, 1, 50, 70)
    rgb, depth = rooms.render(0, "test", [1])
    assert rgb.shape == (1, 3, 240, 320)
    assert depth.shape == (1, 1, 240, 320)


def test_the_lens_changes_the_picture_and_not_the_depth() -> None:
    scene = rooms.random_scene(0, "train", 3)
    other = dataclasses.replace(scene, look=dataclasses.replace(scene.look, noise=0.05, brightness=0.3, motion=2))
    (rgb, depth), (rgb2, depth2) = (rooms.render_scene(s, height=96, width=128) for s in (scene, other))
    assert torch.equal(depth, depth2)
    assert not torch.equal(rgb, rgb2)


def test_an_unknown_split_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"^split 'val' is not one of train, calibration, test$"):
        rooms.render(0, "val", [0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_draws_the_same_room() -> None:
    rgb, depth = rooms.render(0, "test", [6])
    rgb_gpu, depth_gpu = (x.cpu() for x in rooms.render(0, "test", [6], device="cuda"))
    assert ((depth - depth_gpu).abs() > 1e-3 * depth.clamp(min=1)).float().mean() < 1e-3
    assert ((rgb.float() - rgb_gpu.float()).abs() > 8).float().mean() < 0.01
