"""Artefacts evaluated together have the same evaluations as alone; one that fails does not take the others with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from depthbench.suites.data import Access, open_dataset
from depthbench.suites.evaluate import evaluate_onnx
from depthbench.suites.models import file_sha256
from depthbench.suites.plan import Data
from depthbench.suites.results import read_json
from depthbench.suites.running import shared_evaluation
from depthbench.suites.running.shared_evaluation import evaluations, share
from depthbench.suites.stages import Artefact


def _artefact(folder: Path, factor: float, size: tuple[int, int] = (32, 32)) -> Artefact:
    """depth = factor · mean of the channels."""
    path = folder / f"{factor}.onnx"
    scale = helper.make_tensor("factor", TensorProto.FLOAT, (1,), [factor])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "factor"], ["metres"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, *size)) for n, c in (("image", 3), ("metres", 1))
    ]
    graph = helper.make_graph(nodes, "grey", ends[:1], ends[1:], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Artefact(f"key-{factor}", path, file_sha256(path), size, "fp32", [], {})


@pytest.fixture
def data(tmp_path: Path) -> tuple[Data, Path]:
    root = tmp_path / "data"
    root.mkdir()
    for i in range(5):
        Image.fromarray(np.full((40, 60, 3), 60 + 20 * i, np.uint8)).save(root / f"{i}.jpg")
        Image.fromarray(np.full((40, 60), 2000 + 700 * i, np.uint16)).save(root / f"{i}.png")
    images = open_dataset("folder", "test", root=root)
    return Data("folder", "test", len(images), "native", images.digest), root


def test_together_as_alone_and_only_once(
    data: tuple[Data, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description, root = data
    group = [_artefact(tmp_path, 9.0), _artefact(tmp_path, 10.0, (64, 32)), _artefact(tmp_path, 11.0)]
    stored, failures = evaluations(group, description, Access(root))
    assert failures == {}
    images = open_dataset("folder", "test", root=root)
    for made in group:
        alone = evaluate_onnx(made.path, images, "native")
        assert read_json(stored[made.key].metrics)["metrics"] == alone.to_json()["metrics"]
        with np.load(stored[made.key].samples) as pictures:
            assert np.array_equal(pictures["prediction"], alone.prediction)
    monkeypatch.setattr("depthbench.suites.evaluate.evaluate_many", None)  # whatever is in the store is not made again
    assert evaluations(group[::-1], description, Access(root)) == (stored, {})


def test_one_that_fails_leaves_the_others(data: tuple[Data, Path], tmp_path: Path) -> None:
    description, root = data
    bad = _artefact(tmp_path, float("inf"))
    good = [_artefact(tmp_path, 7.0), _artefact(tmp_path, 8.0)]
    stored, failures = evaluations([good[0], bad, good[1]], description, Access(root))
    assert set(stored) == {made.key for made in good}
    assert list(failures) == [bad.key]
    assert failures[bad.key].startswith(f"accuracy: ValueError: {bad.path}: ")
    assert failures[bad.key].endswith("the prediction is not finite at 2400 of 2400 pixels")


def test_key_knows_the_metrics(data: tuple[Data, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description, root = data
    made = _artefact(tmp_path, 6.0)
    first, _ = evaluations([made], description, Access(root))
    monkeypatch.setattr(shared_evaluation, "ALL_METRICS", ("rmse_m", "another"))
    second, _ = evaluations([made], description, Access(root))
    assert first[made.key].digest != second[made.key].digest


def test_shares_are_alike_in_work(tmp_path: Path) -> None:
    sizes = [(32, 32), (64, 64), (32, 32), (96, 96), (32, 32), (32, 32)]
    made = [_artefact(tmp_path, float(i), size) for i, size in enumerate(sizes)]
    groups = share(made, at_once=3)
    assert [[one.size for one in group] for group in groups] == [
        [(96, 96), (32, 32), (32, 32)],
        [(64, 64), (32, 32), (32, 32)],
    ]
    assert share([]) == []
    assert [len(group) for group in share(made, workers=2)] == [1] * 6
    many = [_artefact(tmp_path, float(i)) for i in range(50)]
    assert sorted(len(group) for group in share(many)) == [10] * 5
    assert sorted(len(group) for group in share(many, workers=2)) == [8] * 4 + [9] * 2
    assert sorted(len(group) for group in share(many, at_once=4, workers=3)) == [3] * 10 + [4] * 5
    assert [len(group) for group in share(made[:2], workers=2)] == [1, 1]


def test_no_share_has_all_of_one_form(tmp_path: Path) -> None:
    made = [_artefact(tmp_path, float(i)) for i in range(8)]  # of four models, in float and in INT8
    for group in share(made, at_once=4):
        assert sum(made.index(one) % 2 for one in group) == 2
