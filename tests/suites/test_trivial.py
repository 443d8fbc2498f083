"""The trivial predictor, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from depthbench.suites.data import Sample
from depthbench.suites.trivial import mean_depth, write_constant


class Three:
    """Three 2×2 images, some pixels missing."""

    name, split, digest = "three", "train", "d"

    def __init__(self, *depths: list[list[float]]) -> None:
        self.depths = depths

    def __len__(self) -> int:
        return len(self.depths)

    def __getitem__(self, index: int) -> Sample:
        depth = np.array(self.depths[index], np.float32)[None]
        return Sample(np.zeros((3, *depth.shape[1:]), np.float32), depth)

    def label(self, index: int) -> str:
        return str(index)


def test_missing_pixels_do_not_count() -> None:
    data = Three([[1, 2], [3, 0]], [[3, 0], [0, 0]], [[2, 4], [0, 6]])
    np.testing.assert_allclose(mean_depth(data, (2, 2)), [[2, 3], [3, 6]])


def test_faults() -> None:
    with pytest.raises(ValueError, match=r"^three: 1 pixels have no ground truth in any training image$"):
        mean_depth(Three([[1, 2], [3, 0]]), (2, 2))
    with pytest.raises(ValueError, match=r"^three: image 1 is \(1, 2\), others are \(2, 2\): no mean per pixel$"):
        mean_depth(Three([[1, 2], [3, 1]], [[1, 1]]), (2, 2))


def test_the_file_gives_the_mean_whatever_the_image(tmp_path: Path) -> None:
    depth = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
    session = ort.InferenceSession(write_constant(depth, tmp_path / "mean.onnx"), providers=["CPUExecutionProvider"])
    for value in (0.0, 0.7):
        [out] = session.run(None, {"rgb": np.full((1, 3, 8, 8), value, np.float32)})
        np.testing.assert_array_equal(out[0, 0], depth)
