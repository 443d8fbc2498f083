"""The tables of steps, and how those on files refuse what they cannot do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from depthbench.compression.executed import executed
from depthbench.compression.precision_steps import PRECISION_STEPS
from depthbench.compression.precisions import PRECISIONS, calibrated, resolved_options
from depthbench.compression.recipes import RECIPES
from depthbench.compression.steps import STEPS

Images = list[NDArray[np.float32]]
Exported = Callable[[str, int], Path]
INT8 = [precision for precision in PRECISIONS if calibrated(precision)]


class Files:
    """Images, a score that never changes, and no memory."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def calibration(self) -> Images:
        return self.images

    def score(self, _model: Path | ort.InferenceSession, _places: Sequence[int] | None = None) -> Mapping[str, float]:
        return {"delta1": 0.5}

    def cached(self, _key: Any, build: Callable[[], Any]) -> Any:
        return build()


def test_every_recipe_can_be_carried_out() -> None:
    assert {step.kind for recipe in RECIPES.values() for step in recipe.steps} == set(STEPS)
    assert set(PRECISION_STEPS) == set(PRECISIONS)


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_precision_steps_write_the_file(
    precision: str, exported: Exported, calibration: Images, tmp_path: Path
) -> None:
    source, out = exported("dense", 13), tmp_path / "new" / "out.onnx"
    report = PRECISION_STEPS[precision](source, out, Files(calibration), **resolved_options(precision, {}))
    assert (out.read_bytes() == source.read_bytes()) == (precision == "fp32")
    if precision in INT8:
        assert 15 < report["sqnr_db"] < 60
        form = precision == "int8-trt"  # which ONNX Runtime is not meant to run
        assert form or report["int8_macs_share"] == round(executed(out).int8_share, 4)
        assert (report["int8_macs_share"] > 0.7) == (precision != "int8-weights")


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_precision_steps_refuse_a_truncated_file(precision: str, calibration: Images, tmp_path: Path) -> None:
    source = tmp_path / "truncated.onnx"
    source.write_bytes(b"\x08\x08\x12\x07pytorch\x1a")
    with pytest.raises(ValueError, match=r"truncated\.onnx: not a whole ONNX model \("):
        PRECISION_STEPS[precision](source, tmp_path / "out.onnx", Files(calibration))


@pytest.mark.parametrize("precision", INT8)
def test_precision_steps_refuse_images_without_information(precision: str, exported: Exported, tmp_path: Path) -> None:
    grey = np.full((1, 3, 64, 64), 0.5, np.float32)
    for images, message in (
        ([], "calibration: no images, at least one is needed"),
        ([grey], "calibration: every image is constant (1 in all), ranges cannot be told from them"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared below)
            PRECISION_STEPS[precision](exported("dense", 13), tmp_path / "out.onnx", Files(images))
        assert str(error.value) == message
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("precision", INT8)
def test_precision_steps_take_a_users_file(precision: str, calibration: Images, tmp_path: Path) -> None:
    """Of an old opset, with an open batch, other names and a resize to a size: nothing that this package exports."""
    model = onnx.parser.parse_model("""
        <ir_version: 7, opset_import: ["" : 11]>
        mine (float[N, 3, 64, 64] picture) => (float[N, 1, 64, 64] metres)
        <float[8, 3, 3, 3] w, float[8, 8, 3, 3] v, float[1, 8, 1, 1] u, float[0] roi, float[0] scales,
         int64[4] size = {1, 8, 64, 64}>
        {
            a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (picture, w)
            b = Relu (a)
            c = Conv <pads = [1, 1, 1, 1]> (b, v)
            d = Resize <mode = "nearest"> (c, roi, scales, size)
            metres = Conv (d, u)
        }
    """)
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "v": (8, 8, 3, 3), "u": (1, 8, 1, 1), "roi": (0,), "scales": (0,)}
    known = [tensor for tensor in model.graph.initializer if tensor.name == "size"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(known)
    for name, shape in shapes.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    onnx.save(model, tmp_path / "mine.onnx")
    report = PRECISION_STEPS[precision](tmp_path / "mine.onnx", tmp_path / "out.onnx", Files(calibration))
    assert report["sqnr_db"] > 15
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["picture", "metres"]


@pytest.mark.parametrize("precision", INT8)
def test_a_quantized_file_is_not_quantized_again(
    precision: str, exported: Exported, calibration: Images, tmp_path: Path
) -> None:
    source = tmp_path / "int8.onnx"
    PRECISION_STEPS["int8-weights"](exported("dense", 13), source, Files(calibration))
    with pytest.raises(ValueError, match=r"int8\.onnx: it is quantized already, a float32 file is needed$"):
        PRECISION_STEPS[precision](source, tmp_path / "out.onnx", Files(calibration))


def test_files_are_quantized_without_torch() -> None:
    code = "import sys, depthbench.compression.precision_steps; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
