"""Outputs that a board sent back, against those of the file that it was given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from depthbench.compression.quantize import quantize_int8_trt
from depthbench.suites.export import export_onnx
from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.targets.board_results import compare_outputs
from depthbench.suites.targets.board_steps import BoardCell, frames

SIZE = (64, 64)


def depths(path: Path, level: ort.GraphOptimizationLevel) -> list[NDArray[np.float32]]:
    """(1, 1, H, W) of each of two frames."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"rgb": image})[0] for image in frames(*SIZE, 2)]


def sent(outputs: list[NDArray[np.float32]]) -> dict[str, bytes]:
    """What a board with one engine sends of its outputs."""
    texts = [json.dumps([{"name": "depth", "values": depth.ravel().tolist()}]).encode() for depth in outputs]
    return {"engine-0.sha256": b"", **{f"output-0-{i}.json": text for i, text in enumerate(texts)}}


def test_an_int8_engine_is_compared_with_its_file_as_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = export_onnx(build_model(resolve_model("tst-t")).eval(), tmp_path / "fp32.onnx", SIZE, opset=13)
    out = tmp_path / "int8.onnx"
    quantize_int8_trt(source, out, frames(*SIZE, 4))
    cell = BoardCell(out, "int8-trt")
    written = compare_outputs(cell, sent(depths(out, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)))
    own_kernels = compare_outputs(cell, sent(depths(out, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)))
    assert written < own_kernels / 4


def test_a_file_that_the_runtime_refuses_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"onnx")
    with pytest.raises(ValueError, match=r"a\.onnx: ONNX Runtime refuses it "):
        compare_outputs(BoardCell(path, "fp32"), sent([]))
