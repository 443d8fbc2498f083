"""The commands predict and calibrate, and profile on a graph without weight values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

Refused = Callable[[str, Path], list[str]]


def depthbench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from depthbench.suites.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=300
    )


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A network of which the file has the shapes of the weights but not their values."""
    weight = TensorProto(name="w", dims=(64, 3, 3, 3), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights-not-included")
    nodes = [
        helper.make_node("Conv", ["rgb", "w"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="act"),
        helper.make_node("MaxPool", ["r"], ["y"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    x = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, (1, 3, 64, 96))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight]))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 13))
    onnx.save(model, tmp_path / "graph.onnx")
    return tmp_path


def test_predict_tells_all_in_json(graph: Path) -> None:
    done = depthbench("predict", "graph.onnx", "--board", "jetson-tx2", "--power-mode", "MAX-Q", "--json", cwd=graph)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (value["model"], value["board"], value["precision"]) == ("graph.onnx", "jetson-tx2", "fp16")
    assert (value["power_mode"], value["predicted"], value["kernels"]) == ("max-q", True, 2)
    assert value["interval_ms"][0] < value["latency_ms"] < value["interval_ms"][1]
    assert set(value["share_by_class"]) == {"dense", "pooling"}
    assert {layer["name"] for layer in value["top_layers"]} == {"first", "pool"}
    assert value["bound"] in ("arithmetic", "memory", "launch")


def test_predict_for_people(graph: Path) -> None:
    done = depthbench("predict", "graph.onnx", "--board", "jetson-nano", cwd=graph)
    assert done.returncode == 0, done.stderr
    assert "graph.onnx (fp32) on jetson-nano in fp16: predicted, not measured" in done.stdout
    assert "most expensive layers" in done.stdout


def test_predict_lists_boards_with_their_error(graph: Path) -> None:
    done = depthbench("predict", "--list", "--json", cwd=graph)
    assert done.returncode == 0, done.stderr
    rows = {(row["board"], row["precision"]): row for row in json.loads(done.stdout)["boards"]}
    assert 0 < rows["jetson-nano", "fp16"]["median_error"] < 0.5
    assert ("jetson-tx2", "int8") not in rows
    assert "median error" in depthbench("predict", "--list", cwd=graph).stdout


def test_profile_of_a_graph_without_weights(graph: Path) -> None:
    done = depthbench("profile", "graph.onnx", "--json", cwd=graph)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["size"] == "64x96"
    assert value["gmacs"]["onnx"] == pytest.approx(64 * 27 * 64 * 96 / 1e9)
    assert value["params_m"] == pytest.approx(64 * 27 / 1e6)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("predict graph.onnx", "predict needs a MODEL and --board (depthbench predict --list shows the boards)"),
        ("predict graph.onnx --board jetson-nano --precision int8", "jetson-nano has no fast INT8: use fp16"),
        (
            "predict graph.onnx --board jetson-nano --power-mode 7w",
            "unknown power mode of jetson-nano '7w'; did you mean",
        ),
        ("predict nix.onnx --board jetson-nano", "nix.onnx: no such ONNX file"),
        ("predict graph.onnx --board desktop-cpu", "desktop-cpu is not calibrated yet: run depthbench calibrate"),
        ("predict graph.onnx --board jetson-nano --calibration graph.onnx", "graph.onnx: not a calibration"),
        ("calibrate", "calibrate of boards needs --out FILE"),
        ("calibrate --target jetson", "unknown target 'jetson' to calibrate (choices: boards, desktop-cpu)"),
        ("calibrate --from . --out c.json", ".: not a run (it has no records folder)"),
        ("calibrate graph.onnx --out c.json", "models are measured for --target desktop-cpu alone"),
        ("calibrate graph.onnx --target desktop-cpu", "1 networks are too few to calibrate desktop-cpu"),
    ],
)
def test_bad_input(command: str, fault: str, graph: Path, refused: Refused) -> None:
    [line] = [line for line in refused(command, graph) if line.startswith("depthbench: ")]
    assert fault in line
