"""Training batches: geometry of the crop, determinism, variation of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthbench.suites.data import DepthDataset, Sample, open_dataset
from depthbench.suites.data.rooms_dataset import DEPTH_UNITS
from depthbench.suites.training.config import Augment, load_config
from depthbench.suites.training.data import (
    Batches,
    RenderedRooms,
    blurred,
    crop,
    decoded,
    depth_units,
    feed,
    stored_size,
    vary,
)

STILL = Augment(crop=1, flip=False, gamma=0, brightness=0, contrast=0, colour=0, gray=0, noise=0)


@pytest.fixture
def dataset(tmp_path: Path) -> DepthDataset:
    rng = np.random.default_rng(0)
    for kind in ("test", "train"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
    for i in range(6):
        picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((320, 240))
        picture.save(tmp_path / "pairs" / "train" / f"{i}.jpg")
        Image.fromarray(rng.integers(500, 20_000, (240, 320)).astype(np.uint16)).save(
            tmp_path / "pairs" / "train" / f"{i}.png"
        )
    return open_dataset("folder", "train", root=tmp_path / "pairs")


def _bar(width: int) -> tuple[np.ndarray, np.ndarray]:
    """A white bar, ``width`` pixels wide, in the middle of a grey wall; everything 3 m away."""
    rgb = np.full((3, 240, 320), 60, np.uint8)
    rgb[:, :, 160 - width // 2 : 160 + width // 2] = 255
    return rgb, np.full((240, 320), 3 * DEPTH_UNITS, np.uint16)


@pytest.mark.parametrize("share", [1.0, 0.8, 0.75])
def test_crop_keeps_the_size_of_things(share: float) -> None:
    """Width in metres is pixels · depth / focal length, with the data's own focal length before and after."""
    rgb, depth = crop(*_bar(96), share, (0.5, 0.5), (240, 320))
    pixels = int((rgb[0, 120] > 0.6).sum())
    assert pixels * float(depth[0, 120, 160]) == pytest.approx(96 * 3, rel=0.01)
    assert depth.unique().tolist() == pytest.approx([3 * share])


def test_crop_picks_rgb_and_depth_at_the_same_place() -> None:
    """Both ramps along x and y, so any shift between the two shows."""
    y, x = np.mgrid[:240, :320]
    units = (5000 + 40 * x + 50 * y).astype(np.uint16)
    rgb = np.stack([(x * 0.75), y, np.zeros_like(x)]).astype(np.uint8)
    for flip in (False, True):
        picture, depth = crop(rgb, units, 0.8, (0.25, 1.0), (128, 160), flip=flip)
        expected = (5000 + 40 * (picture[0] * 255 / 0.75) + 50 * (picture[1] * 255)) / DEPTH_UNITS * 0.8
        assert (depth[0] - expected).abs().max() < 0.03


def test_missing_depth_stays_missing_and_far_depth_becomes_missing(dataset: DepthDataset) -> None:
    units = np.zeros((240, 320), np.uint16)
    units[:, 160:] = 5 * DEPTH_UNITS
    _, depth = crop(np.zeros((3, 240, 320), np.uint8), units, 0.9, (0, 0), (64, 64))
    assert depth.unique().tolist() == pytest.approx([0, 4.5])
    _, depths = Batches([dataset], {"folder": 1}, STILL, batch=8, seed=0, max_depth=4.0)(0, [(64, 64)])
    assert depths.max() <= 4
    assert (depths == 0).any()


def test_decoded_once_with_depth_to_a_fifth_of_a_millimetre(dataset: DepthDataset) -> None:
    (records,) = decoded(dataset).chunks
    assert records["rgb"].shape == (6, 3, 240, 320)
    sample = dataset[2]
    assert np.array_equal(records["rgb"][2], (sample.rgb * 255).round())
    metres = records["depth"][2] / DEPTH_UNITS
    far = sample.depth[0] >= 65535 / DEPTH_UNITS
    assert far.any()
    assert (metres[far] == 0).all()
    assert metres[~far] == pytest.approx(sample.depth[0][~far], abs=1.01e-4)
    (again,) = decoded(dataset).chunks
    assert again.filename == records.filename
    assert Path(records.filename).name == f"{dataset.digest[:32]}-240x320.npy"


@pytest.fixture
def kitti(tmp_path: Path) -> DepthDataset:
    """Three wide street scenes: brightness rises from left to right, every tenth pixel has a depth of up to 80 m."""
    rng = np.random.default_rng(0)
    shape = (120, 396)
    root = tmp_path / "kitti"
    (root / "depth").mkdir(parents=True)
    (root / "rgb").mkdir()
    ramp = np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8)[:, None], (*shape, 3))
    lines = []
    for i in range(3):
        Image.fromarray(ramp).save(root / "rgb" / f"{i}.png")
        depth = np.where(rng.random(shape) < 0.1, rng.integers(3 * 256, 80 * 256, shape), 0)
        Image.fromarray(depth.astype(np.uint16)).save(root / "depth" / f"{i}.png")
        lines.append(f"rgb/{i}.png depth/{i}.png 721.5\n")
    (root / "eigen_train_files_with_gt.txt").write_text("".join(lines))
    return open_dataset("kitti-eigen", "train", root=root)


def test_streets_keep_their_shape_and_all_their_depth(kitti: DepthDataset) -> None:
    assert stored_size(kitti) == (240, 792)
    truth = kitti[1].depth[0].repeat(2, axis=0).repeat(2, axis=1)
    kept = decoded(kitti, depth_units(80))
    (records,) = kept.chunks
    assert ((records["depth"][1] > 0) == (truth > 0)).all()
    assert np.abs(records["depth"][1] / kept.units - truth).max() < 0.5 / kept.units + 1e-5
    assert (np.diff(records["rgb"][1, 0].astype(int), axis=1) >= 0).all()

    _, depth = Batches([kitti], {"kitti-eigen": 1}, STILL, batch=4, seed=0, max_depth=80.0)(0, [(96, 320)])
    assert float(depth.max()) > 75
    assert float((depth > 13.2).float().mean()) > 0.07
    _, near = Batches([kitti], {"kitti-eigen": 1}, STILL, batch=4, seed=0, max_depth=10.0)(0, [(96, 320)])
    assert 9 < float(near.max()) <= 10


def test_steps_of_depth_follow_the_farthest() -> None:
    assert [depth_units(far, crop) for far, crop in ((10, 1), (10, 0.5), (4, 1))] == [5000] * 3  # as they always were
    assert [depth_units(13), depth_units(80), depth_units(80, 0.75)] == [5000, 819, 614]
    for far, share in ((80.0, 1.0), (80.0, 0.75), (655.0, 1.0)):
        assert 65_534 * 0.98 < far / share * depth_units(far, share) <= 65_534


def test_the_shape_is_that_of_most_images(dataset: DepthDataset) -> None:
    class Shaped:
        def __init__(self, *shapes: tuple[int, int]) -> None:
            self.shapes = shapes

        def __len__(self) -> int:
            return len(self.shapes)

        def __getitem__(self, index: int) -> Sample:
            return Sample(np.zeros((3, *self.shapes[index]), np.float32), np.ones((1, *self.shapes[index]), np.float32))

    assert stored_size(Shaped((480, 640))) == stored_size(Shaped((968, 1296))) == (240, 320)
    assert stored_size(Shaped((640, 480))) == (320, 240)
    assert stored_size(Shaped((9, 16), (480, 640), (30, 40))) == (240, 320)
    assert stored_size(dataset) == (240, 320)


def test_batch_is_a_function_of_seed_and_step(dataset: DepthDataset) -> None:
    def batches(seed: int) -> Batches:
        return Batches([dataset], {"folder": 1}, Augment(), batch=4, seed=seed)

    sizes = [(64, 64), (64, 96)]
    first, second = batches(1), batches(1)
    later = second(7, sizes)
    assert all(torch.equal(a, b) for a, b in zip(first(3, sizes), second(3, sizes), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first(7, sizes), later, strict=True))
    assert not torch.equal(first(3, sizes[:1])[0], first(4, sizes[:1])[0])
    assert not torch.equal(first(3, sizes[:1])[0], batches(2)(3, sizes[:1])[0])
    assert {first(step, sizes)[0].shape[3] for step in range(12)} == {64, 96}


def test_mixture_draws_by_weight(dataset: DepthDataset) -> None:
    class Renamed:
        name, split, digest = "other", "train", dataset.digest[::-1]
        label = dataset.label

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            sample = dataset[index]
            sample.depth[:] = 1
            return sample

    batches = Batches([dataset, Renamed()], {"folder": 1, "other": 3}, STILL, batch=400, seed=0)
    _, depth = batches(0, [(32, 32)])
    assert ((depth == 1).all(dim=(1, 2, 3)).float().mean() - 0.75).abs() < 0.07


def test_pictures_stay_in_range_and_vary() -> None:
    rgb = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    varied = vary(rgb, Augment(), np.random.default_rng(0))
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert (varied - rgb).abs().mean(dim=(1, 2, 3)).min() > 0.01
    assert torch.allclose(vary(rgb, STILL, np.random.default_rng(0)), rgb, atol=1e-6)
    gray = vary(rgb, Augment(**{**STILL.model_dump(), "gray": 0.999}), np.random.default_rng(0))
    assert torch.allclose(gray[:, 0], gray[:, 2], atol=1e-6)


def test_blur_is_a_gaussian_of_the_given_width() -> None:
    rgb = torch.zeros(3, 3, 33, 33)
    rgb[:, :, 16, 16] = 1
    soft = blurred(rgb, torch.tensor([0.0, 1.0, 2.0]))
    assert torch.equal(soft[0], rgb[0])
    offsets = torch.arange(33) - 16.0
    for i, deviation in ((1, 1.0), (2, 2.0)):
        for axis in (0, 1):
            profile = soft[i, 0].sum(axis)
            assert float(profile.sum()) == pytest.approx(1, abs=1e-5)
            assert float((profile * offsets**2).sum()) == pytest.approx(deviation**2, rel=0.03)
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert torch.allclose(blurred(flat, torch.tensor([3.0])), flat, atol=1e-6)


def test_blur_softens_and_its_absence_draws_nothing() -> None:
    rgb = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = vary(rgb, Augment(), np.random.default_rng(0))
    assert torch.equal(plain, vary(rgb, Augment(blur=0), np.random.default_rng(0)))
    soft = vary(rgb, STILL.model_copy(update={"blur": 3.0}), np.random.default_rng(0))
    assert soft.diff(dim=3).abs().mean() < 0.7 * rgb.diff(dim=3).abs().mean()


def test_feed_gives_the_batches_in_order(dataset: DepthDataset) -> None:
    changes = {"samples": 32, "batch": 4, "stages": [{"share": 1, "sizes": ["32x32", "64x64"]}]}
    batches = Batches([dataset], {"folder": 1}, Augment(), batch=4, seed=1)
    streams = []
    for workers in (0, 2):
        with feed(batches, load_config("train", {**changes, "workers": workers}), 3) as stream:
            streams.append([rgb for rgb, _ in stream])
    assert len(streams[0]) == 5
    assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))


def test_rooms_on_a_device_are_endless_and_repeatable() -> None:
    rooms = RenderedRooms("cpu")
    (rgb, units), (again, _) = rooms.draw(np.random.default_rng(3)), rooms.draw(np.random.default_rng(3))
    assert np.array_equal(rgb, again)
    assert (rgb.shape, rgb.dtype, units.shape, units.dtype) == ((3, 240, 320), np.uint8, (240, 320), np.uint16)
    assert units[units > 0].min() >= 0.3 * DEPTH_UNITS
    assert not np.array_equal(rgb, rooms.draw(np.random.default_rng(4))[0])
