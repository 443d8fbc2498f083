"""What ``explain`` says of a pair, on kernels that are known; ``test_explain_pairs`` runs real files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from depthbench.suites.explain import Explanation, Side, explain, explained
from depthbench.suites.explaining.board import predicted_kernels, trtexec_kernels, trtexec_pair
from depthbench.suites.explaining.kernels import Kernel, base_operator, by_class
from depthbench.suites.explaining.matching import matched
from depthbench.suites.explaining.profiles import Rates, run_pair

RATES = Rates({"fp32": 100e9, "int8": 400e9}, ((1e5, 100e9), (1e8, 50e9)), 0.002, 16)


def conv(name: str, ms: float, *, channels: int = 64, executed: int | None = None, precision: str = "fp32") -> Kernel:
    """A pointwise convolution of 64 channels at 10,000 positions."""
    ran = executed or channels
    macs = 64 * 10_000
    kernel = Kernel(
        name, "Conv", "pointwise", ms, macs * ran, 4_000_000, precision, channels, ran, macs * channels, 10_000
    )
    return RATES.judged(replace(kernel, window=(1, 1), inputs=(f"{name}_in",), outputs=(f"{name}_out",)))


def other(name: str, op: str, kind: str, ms: float, **fields: object) -> Kernel:
    defaults = {"bytes": 2_000_000, "precision": "fp32", "inputs": (f"{name}_in",), "outputs": (f"{name}_out",)}
    return RATES.judged(Kernel(name, op, kind, ms, 0, **{**defaults, **fields}))  # type: ignore[arg-type]


def pair(parent: list[Kernel], child: list[Kernel], gains: dict[str, float] | None = None) -> Explanation:
    sides = [Side("parent", "measured", tuple(parent), 1.0), Side("child", "measured", tuple(child), 1.0)]
    return explained("desktop-cpu", sides, gains or {"int8": 4.0}, 16)


PARENT = [conv("a", 0.5), conv("b", 0.5)]
INT8 = [conv("a", 0.125, precision="int8"), conv("b", 0.125, precision="int8")]


def test_a_child_that_keeps_its_promise_has_no_cause() -> None:
    found = pair(PARENT, INT8)
    assert found.speedup == pytest.approx(4)
    assert found.cause is None
    assert found.sentences == ["child takes 0.25 times the time of parent, as its arithmetic promises."]


def test_a_child_without_any_saving_is_told_so() -> None:
    found = pair(PARENT, PARENT)
    assert found.sentences == [
        "child executes 100% of the multiply-accumulates of parent, in fp32: there is nothing in it that could make it faster."
    ]


def test_conversions_name_the_operators_that_they_stand_around() -> None:
    resize = other("r", "Resize", "resize", 0.02, inputs=("a_f",), outputs=("r_out",))
    q = other("q", "QuantizeLinear", "quantize", 0.6, inputs=("r_out",), outputs=("b_in",))
    dq = other("dq", "DequantizeLinear", "quantize", 0.6, inputs=("a_out",), outputs=("a_f",))
    found = pair(PARENT, [INT8[0], dq, resize, q, INT8[1]])
    assert found.cause == "conversions"
    assert found.sentences == [
        "82% of the INT8 time goes into 2 Quantize/Dequantize nodes around the Resize nodes: let Resize run on the numbers and "
        "the layout of its neighbours (one scale for its input and output), or keep the whole stretch in floating point."
    ]
    assert found.child.share(lambda kernel: kernel.is_conversion) == pytest.approx(1.2 / 1.47)


def test_layers_left_in_float_are_told_from_those_that_cannot_be_quantized() -> None:
    left = pair(PARENT, [conv("a", 0.5), INT8[1], INT8[1]])
    assert left.cause == "float operators"
    assert (
        "most of it into Conv (1 node, 67%): give Conv scales and types that the runtime fuses"
        in left.causes[0].sentence
    )
    cubic = other("gelu", "Erf", "elementwise", 2.0)
    middle = pair([PARENT[0], cubic, PARENT[1]], [INT8[0], cubic, INT8[1]])
    assert middle.cause == "float operators"
    assert "in the middle of the INT8 ones, most of it into Erf (1 node, 89%)" in middle.sentences[1]


def test_padding_of_channels_off_the_grid_is_named() -> None:
    child = [conv("a", 0.5, channels=36, executed=64), conv("b", 0.5, channels=36, executed=64)]
    found = pair(PARENT, child)
    assert found.cause == "padding"
    assert (
        "execute 44% of their MACs on padding (a: 36 channels run as 64): prune to multiples of 16"
        in found.sentences[0]
    )
    assert [row["layer"] for row in found.off_grid()] == ["a", "b"]
    assert found.child.gmacs() == {"fp32": pytest.approx(2 * 64 * 36 * 1e4 / 1e9)}


def test_layers_that_pruning_left_alone_are_named() -> None:
    found = pair([conv("a", 3.0), conv("b", 0.5)], [conv("a", 3.0), conv("b", 0.25, channels=32)])
    assert found.cause == "unchanged layers"
    assert "most of it into a: compress these layers" in found.sentences[0]


def test_launches_are_named() -> None:
    small = [other(f"r{i}", "Reshape", "layout", 0.004, bytes=0) for i in range(400)]
    found = pair([*PARENT, *small], [*INT8, *small])
    assert found.cause == "launch"
    assert "launching 400 small kernels (4 µs each, mostly Reshape)" in found.causes[0].sentence


def test_slow_int8_kernels_are_compared_with_the_parents() -> None:
    slow = [conv("a", 2.0, precision="int8"), conv("b", 2.0, precision="int8")]
    found = pair(PARENT, slow)
    assert found.cause == "kernels"
    assert "2 INT8 kernels of class conv pointwise" in found.sentences[0]
    assert "leave these layers in floating point, where they are no slower" in found.sentences[0]


def test_a_faster_child_is_told_what_holds_it_up() -> None:
    found = pair(PARENT, [*INT8, other("q", "QuantizeLinear", "quantize", 0.2)])
    assert found.sentences[0] == "child is 2.22× as fast as parent; this holds it up most:"
    assert found.sentences[1].startswith("44% of the INT8 time goes into 1 Quantize/Dequantize node")


def test_an_explanation_is_json_without_gaps() -> None:
    found = pair(PARENT, [*INT8, other("q", "QuantizeLinear", "quantize", 2.0)]).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["cause"] == found["causes"][0]["cause"] == "conversions"
    assert found["child"]["gmacs_by_precision"] == {"int8": pytest.approx(2 * 64 * 64 * 1e4 / 1e9)}
    assert found["child"]["conversion_share"] == pytest.approx(2 / 2.25)
    assert sum(found["child"]["share_by_bound"].values()) == pytest.approx(1)
    assert found["changes"][0] == {
        "layer": "QuantizeLinear ×1",
        "class": "quantize",
        "precision": "",
        "before_ms": 0.0,
        "after_ms": 2.0,
    }


def test_layers_are_matched_across_branches_by_what_they_are() -> None:
    wide, narrow = conv("wide", 1.0, channels=64), conv("narrow", 1.0, channels=32)
    pairs = matched([wide, narrow], [replace(narrow, name="n"), replace(wide, name="w")])
    assert {(a.name, b.name) for a, b in pairs} == {("wide", "w"), ("narrow", "n")}


def test_operators_of_the_runtime_stand_for_those_of_onnx() -> None:
    names = {
        "QLinearAdd": "Add",
        "FusedConv": "Conv",
        "NhwcMaxPool": "MaxPool",
        "SkipLayerNormalization": "LayerNormalization",
    }
    assert {name: base_operator(name) for name in names} == names


def padded_network(path: Path) -> Path:
    """Convolutions of 20 channels: a stem, a depthwise one, a pointwise one; then a product and a softmax."""
    rng = np.random.default_rng(0)
    shapes = {"stem": (20, 3, 3, 3), "deep": (20, 1, 3, 3), "point": (20, 20, 1, 1), "matrix": (16, 12)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), f"{n}_w") for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "stem_w"], ["s"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["s"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "deep_w"], ["d"], name="deep", pads=[1] * 4, group=20),
        helper.make_node("Conv", ["d", "point_w"], ["p"], name="point"),
        helper.make_node("MatMul", ["p", "matrix_w"], ["m"], name="matrix"),
        helper.make_node("Softmax", ["m"], ["y"], name="soft"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 20, 16, 12])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_kernels_of_a_real_session_have_the_macs_of_the_file(tmp_path: Path) -> None:
    [ran] = run_pair([padded_network(tmp_path / "net.onnx")], seconds=0.05)
    kinds = [kernel.kind for kernel in ran.kernels if kernel.is_product]
    assert kinds == ["dense", "depthwise", "pointwise", "matmul"]
    positions = 16 * 16
    assert [kernel.useful_macs for kernel in ran.kernels if kernel.is_product] == [
        positions * 20 * 27,
        positions * 20 * 9,
        positions * 20 * 20,
        20 * 16 * 12 * 16,
    ]
    assert all(kernel.macs >= kernel.useful_macs for kernel in ran.kernels)
    assert {kernel.channels for kernel in ran.kernels if kernel.window} == {20}
    assert "normalization" in by_class(ran.kernels)
    assert all(kernel.ms >= 0 for kernel in ran.kernels)
    assert len(ran.measured.samples_ms) == len(ran.measured.blocks)


def test_a_given_image_is_what_runs(tmp_path: Path) -> None:
    path = padded_network(tmp_path / "net.onnx")
    run_pair([path], seconds=0.02, image=np.ones((1, 3, 16, 16), np.float32))
    with pytest.raises(ValueError, match="input x is 1x3x16x16, not 1x3x8x8"):
        run_pair([path], seconds=0.02, image=np.ones((1, 3, 8, 8), np.float32))


def test_bad_files_and_targets_are_one_line(tmp_path: Path) -> None:
    good = padded_network(tmp_path / "net.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ValueError, match="no such ONNX file"):
        explain(good, tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match=r"broken\.onnx: ONNX Runtime refuses it") as error:
        explain(good, broken, seconds=0.05)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"unknown target 'jetson-nanoo'.*jetson-nano"):
        explain(good, good, target="jetson-nanoo")
    with pytest.raises(ValueError, match="target desktop-cuda has no profile here"):
        explain(good, good, target="desktop-cuda")


def test_a_board_is_predicted_and_says_so(tmp_path: Path) -> None:
    path = padded_network(tmp_path / "net.onnx")
    kernels = predicted_kernels(path, "jetson-orin-nano", "fp16")
    assert {kernel.bound for kernel in kernels} <= {"launch", "arithmetic", "memory"}
    found = explain(path, path, target="jetson-orin-nano", names=("a", "b"), precisions=("fp16", "int8"))
    assert found.child.how == "predicted"
    assert found.wall_speedup is None
    assert found.cause == "launch"  # nothing in so small a network fills the board
    assert found.sentences[-1] == "These times are predicted for b, not measured."
    assert found.notes[1] == "a in fp16, b in int8"
    with pytest.raises(ValueError, match="jetson-nano has no fast INT8: use fp16"):
        explain(path, path, target="jetson-nano", precisions=("fp16", "int8"))


def layer(name: str, kind: str, precision: str = "Half", **fields: object) -> dict[str, object]:
    told = {"Int8": "Thirty-two wide channel vectorized row major Int8 format", "Half": "Row major linear FP16 format"}
    tensor = [{"Name": "t", "Dimensions": [1, 64, 56, 56], "Format/Datatype": told[precision]}]
    return {"Name": name, "LayerType": kind, "Inputs": tensor, "Outputs": tensor, **fields}


def trtexec_files(folder: Path, name: str, layers: list[tuple[dict[str, object], float]]) -> tuple[Path, Path]:
    profile, info = folder / f"{name}.profile.json", folder / f"{name}.layers.json"
    rows = [{"name": one["Name"], "timeMs": ms * 100, "averageMs": ms, "percentage": 1.0} for one, ms in layers]
    profile.write_text(json.dumps([{"count": 100}, *rows]))
    info.write_text(json.dumps({"Layers": [one for one, _ in layers], "Bindings": []}))
    return profile, info


def test_trtexec_files_are_explained(tmp_path: Path) -> None:
    convolution = {"Kernel": [1, 1], "Groups": 1, "OutMaps": 64}
    half = [(layer("conv1", "CaskConvolution", **convolution), 0.2), (layer("up", "Resize"), 0.05)]
    int8 = [
        (layer("conv1", "CaskConvolution", "Int8", **convolution), 0.1),
        (layer("Reformatting CopyNode for up", "Reformat", "Int8"), 0.3),
        (layer("up", "Resize"), 0.05),
        (layer("Reformatting CopyNode 2", "Reformat"), 0.3),
    ]
    (a, a_info), (b, b_info) = trtexec_files(tmp_path, "a", half), trtexec_files(tmp_path, "b", int8)
    found = trtexec_pair((a, b), (a_info, b_info), ("fp16", "int8"))
    assert found.speedup == pytest.approx(0.25 / 0.75)
    assert found.cause == "conversions"
    assert found.sentences[0].startswith("80% of the INT8 time goes into 2 Reorder nodes")
    assert found.child.gmacs() == {"int8": pytest.approx(64 * 64 * 56 * 56 / 1e9)}
    assert [kernel.kind for kernel in trtexec_kernels(a, a_info)] == ["pointwise", "resize"]
    bare = trtexec_pair((a, b), (None, None), ("fp16", "int8"))
    assert bare.cause == "conversions"
    assert "without trtexec's layer information (--exportLayerInfo) MACs and precisions are not known" in bare.notes
    with pytest.raises(ValueError, match=r"a\.layers\.json: not a file of trtexec"):
        trtexec_kernels(a_info)
