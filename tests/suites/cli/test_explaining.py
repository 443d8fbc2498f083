from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from depthbench.suites.cli.app import invoke
from depthbench.suites.cli.explaining import split_recipe


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, int], Path]:
    """Write a network of one convolution with ``width`` channels."""

    def network(name: str, width: int) -> Path:
        weight = numpy_helper.from_array(np.ones((width, 3, 3, 3), np.float32), "w")
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 4)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width, 32, 32])
        graph = helper.make_graph([node], "g", [x], [y], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return network


def test_two_files_as_tables_and_as_json(write: Callable[[str, int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    parent, child = str(write("parent.onnx", 64)), str(write("child.onnx", 20))
    assert invoke(["explain", parent, child, "--seconds", "0.2"]) == 0
    captured = capsys.readouterr()
    for words in ("Time by operator class on desktop-cpu (measured)", "What changed most", "95 % interval"):
        assert words in captured.out
    assert "profiling: 100%" in captured.err
    assert invoke(["explain", parent, child, "--seconds", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parent_model"] == parent
    assert found["child"]["gmacs_by_precision"] == {"fp32": pytest.approx(32 * 32 * 27 * 20 / 1e9)}
    assert found["off_grid"][0]["channels"] == 20
    assert 1 <= len(found["sentences"]) <= 3
    assert len(found["wall_speedup"]) == 3


def test_a_board_is_predicted(write: Callable[[str, int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    parent, child = str(write("parent.onnx", 64)), str(write("child.onnx", 32))
    assert invoke(["explain", parent, child, "--target", "jetson-orin-nano", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["how"] == "predicted"
    assert found["notes"][0].startswith("predicted from the fused graph, not measured")


def test_a_catalogue_model_and_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "jetson-orin-nano", "--size", "64x64", "--json"]
    assert invoke(["explain", "tst-t", "tst-t:fp16", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parent_model"] == "tst-t"
    assert "of tst-t, in fp16 (predicted)" in found["sentences"][0]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tst-s", ("tst-s", "fp32")),
        ("tst-s:int8", ("tst-s", "int8")),
        ("tst-s@int8", ("tst-s", "int8")),
        ("net.onnx:int8", ("net.onnx", "int8")),
        ("net.onnx", ("net.onnx", "fp32")),
        ("package.module:build", ("package.module:build", "fp32")),
        ("package.module:build@prune30", ("package.module:build", "prune30")),
    ],
)
def test_model_and_recipe_are_told_apart(name: str, parts: tuple[str, str]) -> None:
    assert split_recipe(name) == parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.onnx", "nowhere.onnx"], "nowhere.onnx: no such file"),
        (["tst-s:int9", "tst-s"], "unknown recipe 'int9'"),
        (["tst-z", "tst-s"], "unknown model 'tst-z'"),
        (["tst-s", "tst-s", "--target", "jetson-nanoo"], "unknown target 'jetson-nanoo'"),
        (["a.json", "b.onnx"], "a.json: a layer profile of trtexec is compared with another one, not with a network"),
        (["a.json", "b.json"], "a.json: no such file"),
        (["a.onnx", "b.onnx", "--size", "64x64"], "a.onnx: an ONNX file has its own input size"),
        (
            ["a.onnx", "b.onnx", "--child-layers", "c.json"],
            "--parent-layers and --child-layers belong to layer profiles",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["explain", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_picture_that_is_none_is_refused(
    write: Callable[[str, int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "image.png").write_bytes(b"no picture")
    network = str(write("parent.onnx", 16))
    assert invoke(["explain", network, network, "--image", str(tmp_path / "image.png")]) == 2
    assert "image.png: not a picture" in capsys.readouterr().err
