"""Protocols: what the network sees and which pixels count."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from depthbench.suites.data import DATASETS, Sample
from depthbench.suites.protocols import MEDIAN_SCALE, PROTOCOLS, nearest_32, resize


def _sample(height: int, width: int) -> Sample:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (3, height, width)).astype(np.float32) / np.float32(255)
    return Sample(rgb, rng.uniform(0.5, 9.5, (1, height, width)).astype(np.float32))


def test_every_data_set_has_a_default_protocol() -> None:
    assert {info.protocol for info in DATASETS.values()} <= set(PROTOCOLS)
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert [name for name in PROTOCOLS if not name.endswith(MEDIAN_SCALE)] == [
        "native",
        "nyu-fastdepth",
        "nyu-eigen",
        "kitti-garg",
        "kitti-eigen",
    ]


@pytest.mark.parametrize(("side", "expected"), [(1, 32), (47, 32), (48, 64), (240, 256), (320, 320), (480, 480)])
def test_nearest_multiple_of_32(side: int, expected: int) -> None:
    assert nearest_32(side) == expected


@pytest.mark.parametrize(
    ("protocol", "size", "expected"),
    [
        ("native", None, (256, 320)),
        ("native", (128, 160), (128, 160)),
        ("nyu-eigen", None, (224, 224)),
        ("nyu-fastdepth", None, (224, 224)),
        ("nyu-fastdepth", (256, 320), (256, 320)),
        ("kitti-garg", None, (352, 1216)),
        ("kitti-eigen", None, (352, 1216)),
    ],
)
def test_input_size(protocol: str, size: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    prepared = PROTOCOLS[protocol].prepare(_sample(240, 320), size)
    assert prepared.input.shape == (1, 3, *expected)
    assert prepared.input.dtype == np.float32
    assert prepared.input.min() >= 0
    assert prepared.input.max() <= 1


def test_native_leaves_image_and_depth_alone() -> None:
    sample = _sample(64, 96)
    prepared = PROTOCOLS["native"].prepare(sample)
    assert np.array_equal(prepared.input[0], sample.rgb)
    assert np.array_equal(prepared.depth, sample.depth[0])
    assert prepared.mask.all()


def test_native_counts_every_pixel_with_ground_truth() -> None:
    sample = _sample(64, 96)
    sample.depth[0, :10] = 0
    assert PROTOCOLS["native"].prepare(sample).mask.sum() == 54 * 96


def test_fastdepth_is_its_own_transform_of_8_bit_pictures() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    depth = np.random.default_rng(2).uniform(0.5, 15, (480, 640)).astype(np.float32)
    sample = Sample(np.moveaxis(picture, 2, 0).astype(np.float32) / np.float32(255), depth[None])
    prepared = PROTOCOLS["nyu-fastdepth"].prepare(sample)

    def own(image: Image.Image) -> np.ndarray:
        small = image.resize((333, 250), Image.Resampling.NEAREST).crop((14, 11, 318, 239))
        return np.asarray(small.resize((224, 224), Image.Resampling.NEAREST))

    assert np.array_equal((prepared.input[0] * 255).round(), np.moveaxis(own(Image.fromarray(picture)), 2, 0))
    assert np.array_equal(prepared.depth, own(Image.fromarray(depth)))
    assert prepared.mask.all()  # no cap


def test_eigen_crop_and_range() -> None:
    sample = _sample(480, 640)
    sample.depth[0, 100, 100:103] = (10.0, 1e-3, 0.0)
    mask = PROTOCOLS["nyu-eigen"].prepare(sample).mask
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 470, 41, 600)
    assert mask.sum() == 426 * 560 - 3


def test_prediction_outside_the_crop_does_not_count() -> None:
    sample = _sample(480, 640)
    prepared = PROTOCOLS["nyu-eigen"].prepare(sample)
    prediction = sample.depth.copy()
    prediction[0, :45] = 100.0
    assert prepared.score(prediction[None])["rmse_m"] == 0
    prediction[0, 45, 41] += 1
    assert prepared.score(prediction[None])["rmse_m"] == pytest.approx(1 / np.sqrt(426 * 560), rel=1e-5)


def test_prediction_returns_bilinearly_with_pixel_centres() -> None:
    prepared = PROTOCOLS["native"].prepare(_sample(2, 4), (32, 32))
    restored = prepared.restore(np.array([[1.0, 3.0]], np.float32)[None, None])
    assert restored == pytest.approx(np.array([[1.0, 1.5, 2.5, 3.0]] * 2))
    assert prepared.restore(np.full((1, 1, 32, 32), -3, np.float32)).max() == np.float32(0.01)


def test_resize_smaller_is_an_average() -> None:
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (8, 32))
    assert resize(stripes, 8, 16)[:, 2:-2] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("protocol", "height", "expected"),
    [
        # rows and columns of the crop as int32 of the published shares, by hand for KITTI's two common sizes
        ("kitti-garg", 375, (153, 371, 44, 1197)),
        ("kitti-garg", 370, (151, 366, 44, 1197)),
        ("kitti-eigen", 375, (124, 342, 44, 1197)),
        ("kitti-eigen", 370, (122, 337, 44, 1197)),
    ],
)
def test_kitti_crops_and_range(protocol: str, height: int, expected: tuple[int, int, int, int]) -> None:
    sample = _sample(height, 1242)
    sample.depth[0, 200, 100:104] = (80.0, 1e-3, 0.0, 79.9)
    mask = PROTOCOLS[protocol].prepare(sample, (32, 32)).mask
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = expected
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == expected
    assert mask.sum() == (bottom - top) * (right - left) - 3


def test_median_scale_forgives_a_factor_and_says_so_in_its_name() -> None:
    sample = _sample(480, 640)
    sample.depth[0, 100] = 0
    plain, scaled = (PROTOCOLS[name].prepare(sample) for name in ("nyu-eigen", "nyu-eigen+median-scale"))
    prediction = sample.depth[None] / 3 + np.float32(0.1)
    assert plain.score(prediction)["rmse_m"] > 1
    got = scaled.score(prediction)
    counted = scaled.mask
    factor = np.median(sample.depth[0][counted]) / np.median(prediction[0, 0][counted])
    by_hand = prediction[0, 0][counted] * factor - sample.depth[0][counted]
    assert got["rmse_m"] == pytest.approx(np.sqrt(np.mean(by_hand.astype(np.float64) ** 2)), rel=1e-5)
    assert scaled.score(prediction * 7)["rmse_m"] == pytest.approx(scaled.score(prediction)["rmse_m"], rel=1e-5)
    assert scaled.restore(prediction) == pytest.approx(prediction[0, 0] * factor, rel=1e-5)
    assert (scaled.crop, scaled.max_depth) == (plain.crop, plain.max_depth)


def test_inputs_of_other_sizes_come_from_the_same_picture() -> None:
    sample = _sample(96, 128)
    prepared = PROTOCOLS["native"].prepare(sample, (64, 64))
    assert prepared.resized((64, 64)) is prepared.input
    assert np.array_equal(prepared.resized((32, 96)), PROTOCOLS["native"].prepare(sample, (32, 96)).input)
