"""Evaluation of real, small ONNX files on images that the test writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from depthbench.suites.data import DepthDataset, open_dataset
from depthbench.suites.evaluate import evaluate_many, evaluate_onnx
from depthbench.suites.metrics import ALL_METRICS, METRICS

RealData = Callable[[str], Path]


def _network(path: Path, height: int | str = 32, width: int | str = 64, *, factor: float = 10.0) -> Path:
    """depth = factor · mean of the channels."""
    scale = helper.make_tensor("factor", TensorProto.FLOAT, (1,), [factor])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "factor"], ["metres"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, height, width))
        for n, c in (("image", 3), ("metres", 1))
    ]
    graph = helper.make_graph(nodes, "grey", ends[:1], ends[1:], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight images, each of one grey value g, with depth 10 g/255 m everywhere."""
    for i in range(8):
        grey = 51 + 20 * i
        for kind, value in (
            ("rgb", np.full((40, 60, 3), grey, np.uint8)),
            ("depth", np.full((40, 60), grey * 40, np.uint16)),
        ):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(value).save(tmp_path / "data" / kind / f"{i}.png")
    return tmp_path / "data"


def _open(root: Path) -> DepthDataset:
    return open_dataset("folder", "test", root=root, depth_scale=255 * 4)


def test_perfect_network(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = evaluate_onnx(
        _network(tmp_path / "m.onnx"), _open(root), "native", samples=3, progress=lambda i, n: seen.append((i, n))
    )
    summary = result.summary()
    assert tuple(summary) == ("n", *ALL_METRICS)
    assert {name: summary[name] for name in ("n", *METRICS)} == pytest.approx(
        {"n": 7, **dict.fromkeys(METRICS, 0), "delta1": 1, "delta2": 1, "delta3": 1}, abs=1e-4
    )
    assert math.isnan(summary["rmse_m_0_1m"])  # no image has anything so near
    assert result.size == (32, 64)
    assert seen == [(i + 1, 7) for i in range(7)]
    assert (result.rgb.shape, result.rgb.dtype) == ((5, 3, 40, 60), np.uint8)
    assert (result.depth.shape, result.depth.dtype) == ((5, 40, 60), np.float16)
    assert np.allclose(result.prediction, result.depth, rtol=2e-3)
    assert [int(rgb[0, 0, 0]) * 10 / 255 for rgb in result.rgb] == pytest.approx(result.depth[:, 0, 0], rel=2e-3)


def test_a_tenth_too_far(root: Path, tmp_path: Path) -> None:
    result = evaluate_onnx(_network(tmp_path / "m.onnx", factor=11.0), _open(root), "native", limit=4)
    assert result.n == 4
    assert result.metrics["abs_rel"] == pytest.approx([0.1] * 4, rel=1e-4)
    assert result.metrics["rmse_log"] == pytest.approx([math.log(1.1)] * 4, rel=1e-4)
    assert result.summary()["rmse_m"] == pytest.approx(np.mean(result.metrics["rmse_m"]))


def test_the_worst_images_are_pictured(root: Path, tmp_path: Path) -> None:
    result = evaluate_onnx(_network(tmp_path / "m.onnx", factor=11.0), _open(root), "native", samples=2)
    errors = result.metrics["rmse_m"]
    worst = sorted(range(1, 6), key=lambda i: -errors[i])[:2]  # the first and the last are pictured anyway
    assert result.pictured == sorted({0, 6, *worst})
    shown = [np.sqrt(np.mean((p.astype(float) - d) ** 2)) for p, d in zip(result.prediction, result.depth, strict=True)]
    assert shown == pytest.approx([errors[i] for i in result.pictured], rel=0.02)


def test_open_input_size_is_the_callers_or_the_protocols(root: Path, tmp_path: Path) -> None:
    path = _network(tmp_path / "m.onnx", "H", "W")
    for size in (None, (64, 32)):
        assert evaluate_onnx(path, _open(root), "native", size=size, limit=1).summary()["rmse_m"] < 1e-4
    fixed = _network(tmp_path / "f.onnx")
    with pytest.raises(ValueError, match=rf"^{fixed}: its input is 32x64, not 64x32$"):
        evaluate_onnx(fixed, _open(root), "native", size=(64, 32))


@pytest.fixture
def kitti(root: Path) -> Path:
    """The images with depth only above the rows that count for KITTI, but for the image 3."""
    for path in (root / "depth").iterdir():
        if path.stem != "3":
            depth = np.zeros((40, 60), np.uint16)
            depth[:4] = 2000
            Image.fromarray(depth).save(path)
    return root


def test_image_without_a_pixel_that_counts_is_not_counted(kitti: Path, tmp_path: Path) -> None:
    dataset = _open(kitti)
    result = evaluate_onnx(_network(tmp_path / "m.onnx"), dataset, "kitti-garg")
    [place] = [i for i, name in enumerate(result.images) if name.endswith("3")]
    assert (result.n, len(result.images)) == (1, 7)
    assert result.summary()["rmse_m"] == result.metrics["rmse_m"][place] < 1e-3
    stored = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [value is None for value in stored["metrics"]["rmse_m"]] == [i != place for i in range(7)]
    assert stored["dataset_digest"] == dataset.digest
    assert (stored["groups"], stored["skipped"]) == ([], [])


def test_nothing_to_score(kitti: Path, tmp_path: Path) -> None:
    Image.fromarray(np.pad(np.full((4, 60), 9, np.uint16), ((0, 36), (0, 0)))).save(kitti / "depth" / "3.png")
    with pytest.raises(ValueError, match=r"^folder test: no image has valid ground truth under protocol kitti-garg$"):
        evaluate_onnx(_network(tmp_path / "m.onnx"), _open(kitti), "kitti-garg")


def test_several_files_at_once_score_as_each_alone(root: Path, tmp_path: Path) -> None:
    paths = [
        _network(tmp_path / "a.onnx"),
        _network(tmp_path / "b.onnx", 64, 32, factor=8.0),
        _network(tmp_path / "c.onnx", "H", "W", factor=12.0),
    ]
    reads: list[int] = []
    dataset = _open(root)

    class Counting(type(dataset)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> object:
            reads.append(index)
            return super().__getitem__(index)

    together = evaluate_many([(path, None) for path in paths], Counting(**vars(dataset)), "nyu-eigen", workers=3)
    assert sorted(reads) == list(range(7))
    for path, result in zip(paths, together, strict=True):
        alone = evaluate_onnx(path, dataset, "nyu-eigen")
        assert result.to_json() == alone.to_json()
        assert np.array_equal(result.prediction, alone.prediction)


def test_groups_and_median_scale(root: Path, tmp_path: Path) -> None:
    cameras = tmp_path / "cameras"
    for i in range(4):
        camera = cameras / ("near" if i < 3 else "far")
        camera.mkdir(parents=True, exist_ok=True)
        Image.open(root / "rgb" / f"{i}.png").save(camera / f"{i}.jpg", quality=100)
        depth = np.asarray(Image.open(root / "depth" / f"{i}.png")).astype(np.float64)
        depth[:20] *= 1.05
        Image.fromarray((depth * (1000 / 1020 if i < 3 else 2.0)).astype(np.uint16)).save(camera / f"{i}.png")
    dataset = open_dataset("indoor-open", "test", root=cameras)
    path = _network(tmp_path / "m.onnx")
    plain, scaled = (evaluate_onnx(path, dataset, name) for name in ("native", "native+median-scale"))
    assert plain.groups == ["far", "near", "near", "near"]
    assert [plain.summary(group)["n"] for group in ("far", "near")] == [1, 3]
    assert plain.summary("far")["delta1"] == 0
    assert plain.summary("near")["delta1"] == plain.summary()["delta1"] * 4 / 3 == 1
    assert (scaled.protocol, scaled.summary("far")["delta1"]) == ("native+median-scale", 1)


def test_broken_images_are_counted(root: Path, tmp_path: Path) -> None:
    bad = root / "depth" / f"{_open(root).label(2).removeprefix('rgb/')}.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"^{bad}: [^\n]+$"):
        evaluate_onnx(_network(tmp_path / "m.onnx"), _open(root), "native")
    dataset = open_dataset("folder", "test", root=root, depth_scale=255 * 4, skip_broken=1)
    result = evaluate_onnx(_network(tmp_path / "m.onnx"), dataset, "native")
    assert (result.n, len(result.skipped)) == (6, 1)
    assert result.to_json()["skipped"][0].startswith(f"{bad}: ")


def test_bad_files_and_names(root: Path, tmp_path: Path) -> None:
    path = _network(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"^unknown protocol 'nativ'; did you mean native\?"):
        evaluate_onnx(path, _open(root), "nativ")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/no.onnx: no such file$"):
        evaluate_onnx(tmp_path / "no.onnx", _open(root), "native")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"^{path}: ONNX Runtime refuses it \([^\n]*\)$"):
        evaluate_onnx(path, _open(root), "native")


def test_prediction_that_is_not_finite_names_the_image(root: Path, tmp_path: Path) -> None:
    path = _network(tmp_path / "m.onnx", factor=math.inf)
    dataset = _open(root)
    with pytest.raises(
        ValueError, match=rf"^{path}: {dataset.label(0)}: the prediction is not finite at 2400 of 2400 pixels$"
    ):
        evaluate_onnx(path, dataset, "native")


def test_published_network_on_nyu_scores_as_an_independent_script_found(real_data: RealData) -> None:
    path, images = real_data("external/fastdepth_224_float.onnx"), real_data("nyu_labeled/test").parent
    dataset = open_dataset("nyu-labeled", "test", root=images)
    got = evaluate_onnx(path, dataset, "nyu-fastdepth").summary()
    expected = {"rmse_m": 0.6080, "abs_rel": 0.1672, "delta1": 0.7690}
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=5e-3)
    assert got["n"] == 654
