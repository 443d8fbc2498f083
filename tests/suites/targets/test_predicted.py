"""Predicted latencies: single kernels by hand, precisions, labels, and errors."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from depthbench.baselines import build_fastdepth
from depthbench.suites.export import export_onnx
from depthbench.suites.targets.predict_calibrate import read_calibration
from depthbench.suites.targets.predicted import BOARDS, INTERVAL_NOTE, boards, check, predict

SCALE = (numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z"))


def bare(name: str, *dims: int, kind: int = TensorProto.FLOAT) -> TensorProto:
    """A stored tensor of which the file has the shape but not the values."""
    tensor = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights-not-included")
    return tensor


def saved(folder: Path, nodes: Sequence[NodeProto], weights: Sequence[TensorProto], shape: Sequence[int | str]) -> Path:
    """An ONNX file of a network from ``x`` to ``y``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(weights))
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def convolution(folder: Path, channels: int = 64, side: int = 56) -> Path:
    """A 3×3 convolution and its ReLU."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    return saved(folder, nodes, [bare("w", channels, channels, 3, 3)], (1, channels, side, side))


def quantized_convolution(folder: Path, channels: int = 64, side: int = 56) -> Path:
    """The same with quantize/dequantize pairs, followed by a pair."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    weight = bare("w", channels, channels, 3, 3, kind=TensorProto.INT8)
    return saved(folder, nodes, [*SCALE, weight], (1, channels, side, side))


P = read_calibration().parameters


def board_factor(board: str) -> float:
    """What every kernel takes more when no power mode is named."""
    return P[f"board.{board}"] * P[f"unlocked.{BOARDS[board].gpu}"] ** 0.5


@pytest.mark.parametrize(("precision", "gain"), [("fp16", P["half"]), ("fp32", 1.0)])
def test_a_convolution_by_hand(tmp_path: Path, precision: str, gain: float) -> None:
    prediction = predict(convolution(tmp_path), "jetson-nano", precision)
    waste = (1 + P["thin.cores.channels"] / 64) * (1 + P["thin.cores.terms"] / 576)
    waste *= 1 + P["thin.cores.positions"] / 56**2
    seconds = 64 * 64 * 9 * 56 * 56 * waste / (0.236e12 / 2 * gain * P["cores.dense"] * P["compute.Maxwell"])
    seconds += P["launch_us.Maxwell"] * 1e-6 + P["fill"] * 576 / 921.6e6
    assert prediction.latency_ms == pytest.approx(seconds * 1e3 * board_factor("jetson-nano"))
    assert prediction.bound == "arithmetic"
    assert prediction.share_by_class == {"dense": 1.0}
    assert [(layer.name, layer.ops, layer.bound) for layer in prediction.top_layers] == [
        ("first", "Conv+Relu", "arithmetic")
    ]


def test_a_memory_bound_kernel_by_hand(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], [], (1, 64, 480, 640))
    prediction = predict(path, "jetson-tx2", "fp16")
    launch = P["launch_us.Pascal"] * 1e-3
    moved = 2 * 64 * 480 * 640 * 2 / (59.7e9 * P["memory.elementwise"] * P["bandwidth.Pascal"]) * 1e3
    assert prediction.latency_ms == pytest.approx((launch + moved) * board_factor("jetson-tx2"))
    assert prediction.bound == "memory"
    doubled = predict(path, "jetson-tx2", "fp32").latency_ms
    assert doubled == pytest.approx((launch + 2 * moved) * board_factor("jetson-tx2"))


def test_tiny_kernels_cost_their_launches(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    prediction = predict(saved(tmp_path, nodes, [], (1, 4, 4)), "jetson-orin-nano-super")
    assert prediction.bound == "launch"
    assert prediction.kernels == 2
    launches = 2 * P["launch_us.Ampere"] * 1e-3 * board_factor("jetson-orin-nano-super")
    assert prediction.latency_ms == pytest.approx(launches, rel=0.01)


def test_a_power_mode_scales_by_its_clocks(tmp_path: Path) -> None:
    path = convolution(tmp_path)
    full, slow = (predict(path, "jetson-nano", power_mode=mode) for mode in ("maxn", "5W"))
    assert (full.power_mode, slow.power_mode) == ("maxn", "5w")
    assert slow.latency_ms / full.latency_ms == pytest.approx(921.6 / 640)
    low, high = read_calibration().intervals["stated"]
    assert full.interval_ms == (full.latency_ms * low, full.latency_ms * high)
    unstated = predict(path, "jetson-nano")
    assert unstated.power_mode is None
    assert unstated.latency_ms / full.latency_ms == pytest.approx(P["unlocked.Maxwell"] ** 0.5)


def test_memory_follows_the_memory_clock(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], [], (1, 64, 480, 640))
    full, slow = (predict(path, "jetson-tx2", power_mode=mode).latency_ms for mode in ("max-n", "max-q"))
    assert slow / full == pytest.approx(1866 / 1331, rel=0.02)


def test_time_in_a_class_hardly_calibrated_is_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Softmax", ["x"], ["y"])], [], (1, 64, 480, 640))
    prediction = predict(path, "jetson-nano")
    assert prediction.out_of_domain
    assert prediction.notes == ("out of domain: 100% of the time in classes hardly calibrated (softmax 100%)",)
    (tmp_path / "c").mkdir()
    assert not predict(convolution(tmp_path / "c"), "jetson-nano").out_of_domain


def test_precision_decides_arithmetic_and_bytes(tmp_path: Path) -> None:
    def latency(path: Path, precision: str) -> float:
        return predict(path, "jetson-xavier-nx", precision).latency_ms

    (tmp_path / "float").mkdir()
    plain, quantized = convolution(tmp_path / "float", 256), quantized_convolution(tmp_path, 256)
    assert latency(plain, "fp32") > latency(plain, "fp16") > latency(quantized, "int8")
    assert latency(quantized, "fp16") == latency(plain, "fp16"), "the pairs vanish"
    assert latency(quantized, "fp32") == latency(plain, "fp32")
    assert predict(quantized, "jetson-xavier-nx", "int8").notes == ()
    assert predict(plain, "jetson-xavier-nx", "int8").notes == (
        "no quantize/dequantize nodes in the file: every convolution and matrix product is taken as INT8",
    )


def test_float_nodes_of_an_int8_file_run_in_fp16(tmp_path: Path) -> None:
    (tmp_path / "float").mkdir()
    tail = helper.make_node("Softmax", ["y"], ["z2"])

    def softmax_ms(path: Path, precision: str) -> float:
        model = onnx.load(path, load_external_data=False)
        model.graph.node.append(tail)
        model.graph.output[0].name = "z2"
        onnx.save(model, path)
        layers = predict(path, "jetson-agx-orin", precision).top_layers
        return next(layer.latency_ms for layer in layers if layer.kind == "softmax")

    in_int8 = softmax_ms(quantized_convolution(tmp_path), "int8")
    assert in_int8 == softmax_ms(convolution(tmp_path / "float"), "fp16")


def test_a_prediction_says_that_it_is_one(tmp_path: Path) -> None:
    prediction = predict(convolution(tmp_path), "jetson-orin-nano")
    assert prediction.kind == "predicted"
    low, high = read_calibration().intervals["unknown"]
    assert prediction.interval_ms == (prediction.latency_ms * low, prediction.latency_ms * high)
    assert prediction.interval_ms[0] < prediction.latency_ms < prediction.interval_ms[1]
    assert sum(prediction.share_by_class.values()) == pytest.approx(1)
    assert sum(prediction.share_by_bound.values()) == pytest.approx(1)
    assert json.loads(json.dumps(prediction.to_json()))["interval_ms"] == list(prediction.interval_ms)
    latency = prediction.latency()
    assert (latency.kind, latency.samples_ms, latency.latency_ms) == ("predicted", [], prediction.latency_ms)
    assert (latency.interval_ms, latency.interval_note) == (prediction.interval_ms, INTERVAL_NOTE)
    json.dumps(latency.details)


def test_boards_are_consistent() -> None:
    assert sorted(BOARDS) == [
        "jetson-agx-orin",
        "jetson-agx-xavier",
        "jetson-nano",
        "jetson-orin-nano",
        "jetson-orin-nano-super",
        "jetson-orin-nx",
        "jetson-tx2",
        "jetson-xavier-nx",
    ]
    assert {name for name, board in BOARDS.items() if board.int8_tops is None} == {"jetson-nano", "jetson-tx2"}
    text = resources.files("depthbench.suites.targets").joinpath("boards.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        peak = int(row["cuda_cores"]) * 2 * float(row["gpu_max_mhz"]) * 1e6 / 1e12
        assert float(row["fp32_tflops"]) == pytest.approx(peak, rel=0.01), row["board"]
        assert row["source"]
        board = BOARDS[row["board"]]
        assert f"launch_us.{board.gpu}" in P
        assert board.modes[0].gpu_mhz == board.gpu_mhz


def test_boards_are_listed_with_their_error() -> None:
    rows = {(row["board"], row["precision"]): row for row in boards()}
    assert ("jetson-nano", "int8") not in rows
    assert rows["jetson-nano", "fp16"]["points"] > 10
    assert 0 < rows["jetson-nano", "fp16"]["median_error"] < 0.5
    assert rows["jetson-xavier-nx", "fp32"]["median_error"] is None
    assert rows["jetson-tx2", "fp16"]["power_modes"] == ["max-n", "max-q", "max-p"]


def test_the_super_mode_is_faster(tmp_path: Path) -> None:
    path = convolution(tmp_path)
    assert predict(path, "jetson-orin-nano-super").latency_ms < predict(path, "jetson-orin-nano").latency_ms


def test_pruned_fastdepth_on_the_tx2(tmp_path: Path) -> None:
    """FastDepth, NetAdapt-pruned, on the TX2's GPU: 5.6 ms in FP32 at MAX-N (Wofk et al., ICRA 2019, TVM)."""
    path = export_onnx(build_fastdepth("fastdepth-pruned"), tmp_path / "m.onnx", (224, 224), opset=13)
    for mode in (None, "max-n"):
        prediction = predict(path, "jetson-tx2", "fp32", power_mode=mode)
        assert prediction.latency_ms == pytest.approx(5.6, rel=0.3)
        assert prediction.interval_ms[0] < 5.6 < prediction.interval_ms[1]
        assert len(prediction.top_layers) == 5


def test_errors_name_the_choices(tmp_path: Path) -> None:
    path = convolution(tmp_path)
    with pytest.raises(ValueError, match=r"^jetson-nano has no fast INT8: use fp16$"):
        predict(path, "jetson-nano", "int8")
    with pytest.raises(ValueError, match="unknown board") as error:
        predict(path, "jetson-nanno")
    assert str(error.value) == (
        "unknown board 'jetson-nanno'; did you mean jetson-nano? (choices: desktop-cpu, jetson-agx-orin, "
        "jetson-agx-xavier, jetson-nano, jetson-orin-nano, jetson-orin-nano-super, jetson-orin-nx, "
        "jetson-tx2, jetson-xavier-nx)"
    )
    with pytest.raises(ValueError, match="unknown precision 'fp8'"):
        check("jetson-tx2", "fp8")
    with pytest.raises(
        ValueError, match=r"^unknown power mode of jetson-nano '7w'; did you mean 5w\? \(choices: 5w, maxn\)$"
    ):
        predict(path, "jetson-nano", power_mode="7W")
    with pytest.raises(ValueError, match=r"^desktop-cpu is calibrated in fp32 alone: use fp32$"):
        predict(path, "desktop-cpu", "fp16")
    with pytest.raises(
        ValueError, match=r"^desktop-cpu is not calibrated yet: run depthbench calibrate --target desktop-cpu$"
    ):
        predict(path, "desktop-cpu", "fp32")
    with pytest.raises(ValueError, match=r"^the calibration is not for desktop-cpu$"):
        predict(path, "desktop-cpu", "fp32", calibration=read_calibration())
    (tmp_path / "dynamic").mkdir()
    dynamic = saved(tmp_path / "dynamic", [helper.make_node("Relu", ["x"], ["y"])], [], (1, "channels", 4, 4))
    with pytest.raises(ValueError, match=r"m\.onnx: input x is 1x\?x4x4: export it with a fixed shape$"):
        predict(dynamic, "jetson-tx2")
    with pytest.raises(ValueError, match=r"missing\.onnx: no such file"):
        predict(tmp_path / "missing.onnx", "jetson-tx2")


def test_predicting_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from depthbench.suites.targets.predicted import predict; "
        f"predict(Path({str(convolution(tmp_path))!r}), 'jetson-nano'); print({{'torch', 'scipy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
