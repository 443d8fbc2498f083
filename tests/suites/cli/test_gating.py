"""``depthbench gate`` and ``depthbench history`` as a user calls them, on real files with real sessions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from depthbench.suites.cli.app import invoke

QUICK = """
schema_version: 1
data: {name: folder, split: test, limit: 12}
timing: {rounds: 10, block_s: 0.002, warmup_s: 0.01}
defaults:
  latency: {tolerance: 0.9, reason: these tests judge no time}
"""

Invoke = Callable[..., int]


def network(path: Path, scale: float = 1.0, width: int = 4, name: str = "depth") -> Path:
    """A depth network of two convolutions: about ``scale`` times the brightness, in metres."""
    rng = np.random.default_rng(0)
    first = np.abs(rng.normal(0.3, 0.1, (width, 3, 3, 3))).astype(np.float32)
    last = np.full((1, width, 1, 1), scale / width, np.float32)
    nodes = [
        helper.make_node("Conv", ["rgb", "w1"], ["a"], name="/first/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="/first/Relu"),
        helper.make_node("Conv", ["b", "w2"], [name], name="/last/Conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, (1, 3, 64, 64))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 64, 64))],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(last, "w2")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two equal sides, images and a policy, as the current folder."""
    network(tmp_path / "base" / "net.onnx")
    network(tmp_path / "head" / "net.onnx")
    rng = np.random.default_rng(0)
    for folder in ("rgb", "depth"):
        (tmp_path / "images" / folder).mkdir(parents=True)
    for i in range(16):
        rgb = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(tmp_path / "images" / "rgb" / f"{i}.png")
        depth = (rgb.mean(axis=2) * 12 + 500).astype(np.uint16)
        Image.fromarray(depth).save(tmp_path / "images" / "depth" / f"{i}.png")
    (tmp_path / "efficiency.yaml").write_text(QUICK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_gate(place: Path) -> Invoke:
    """Call the gate on the two sides with the test's images."""

    def call(*more: str, base: str = "base", head: str = "head") -> int:
        return invoke(["gate", "--base", base, "--head", head, "--data-root", str(place / "images"), *more])

    return call


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr, without progress."""
    lines = capsys.readouterr().err.splitlines()
    return "\n".join(line for line in lines if not re.search(r": \d+%$", line))


def test_unchanged_folders_pass(run_gate: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_gate("--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["verdict"] == "pass"
    assert {check["state"] for check in value["checks"]} == {"pass"}
    assert value["values"]["net"]["params"] == 112
    assert value["values"]["net"]["accuracy"]["rmse_m"] > 0


def test_unchanged_files_are_timed_when_asked(run_gate: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_gate("--json", "--time-identical", "--no-accuracy") == 0
    value = json.loads(capsys.readouterr().out)
    [attempt, *_] = value["attempts"]["net"]
    assert len(attempt["rounds"]) >= 10
    assert attempt["onnxruntime"][0] == attempt["onnxruntime"][1]
    latency = next(check for check in value["checks"] if check["metric"] == "latency")
    assert latency["interval"][0] <= latency["change"] <= latency["interval"][1]


def test_a_wider_network_fails_and_is_accepted(
    place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    network(place / "head" / "net.onnx", width=6)
    assert run_gate("--no-latency", "--out", "out") == 1
    text = said(capsys)
    assert "fail: net: params: 112 → 168 (+50.00%) in first.Conv (+54 params), last.Conv (+2 params)" in text
    summary = (place / "out" / "summary.md").read_text("utf-8")
    assert "❌" in summary
    assert "| ✗ | net | params | 112 | 168 | +50.00% | exact | first.Conv, last.Conv |" in summary
    suite = ElementTree.parse(place / "out" / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    cases = {case.get("name"): case for case in suite}
    assert cases["params"].find("failure") is not None
    assert cases["macs"].find("skipped") is not None
    assert cases["shapes"].find("failure") is None

    assert run_gate("--no-latency", "--accept", "--reason", "sharper edges") == 0
    difference = said(capsys)
    assert "+    params: 168" in difference
    assert "+    reason: sharper edges" in difference
    assert run_gate("--no-latency", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    states = {check["metric"]: check["state"] for check in value["checks"]}
    assert states["params"] == states["macs"] == "accepted"

    network(place / "head" / "net.onnx", width=7)
    assert run_gate("--no-latency") == 1


def test_a_gain_beyond_the_tolerance_stops_until_accepted(
    place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    network(place / "head" / "net.onnx", scale=1.05)
    first = run_gate("--no-latency")
    worse = said(capsys)
    network(place / "base" / "net.onnx", scale=1.05)
    network(place / "head" / "net.onnx", scale=1.0)
    second = run_gate("--no-latency")
    better = said(capsys)
    assert (first, second) == (1, 1)
    gain, loss = (better, worse) if "stale" in better else (worse, better)
    assert "the reference is stale, settle it with --accept" in gain
    assert "stale" not in loss
    assert "worse than 1.0%" in loss
    assert run_gate("--no-latency", "--accept") == 0
    assert "accuracy:" in said(capsys)
    assert run_gate("--no-latency") == 0


def test_another_signature_fails(place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    network(place / "head" / "net.onnx", name="disparity")
    assert run_gate() == 1
    assert "fail: net: signature: output depth: float32 → output disparity: float32" in said(capsys)


def test_two_single_files_are_a_pair(place: Path, run_gate: Invoke) -> None:
    shutil.copy(place / "base" / "net.onnx", place / "other.onnx")
    assert run_gate(base="base/net.onnx", head="other.onnx") == 0


def test_a_missing_model_is_ambiguous(place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    network(place / "base" / "gone.onnx")
    network(place / "base" / "again.onnx")
    network(place / "head" / "again.onnx")
    assert run_gate("--no-latency") == 0
    text = said(capsys)
    assert "ambiguous: gone: only the base has it; the head: it is not there" in text
    assert text.splitlines()[-1].startswith("ambiguous: ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--only", "nett"], "unknown artefact 'nett'; did you mean net? (choices: net)"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
        (["--reference", "damaged.yaml"], "damaged.yaml: damaged reference: models.net.params: "),
        (["--reference", "newer.yaml"], "newer.yaml: schema_version 2 is not readable here (this program reads 1)"),
        (["--reference", "binary.yaml"], "binary.yaml: not valid YAML"),
        (["--config", "wrong.yaml"], "wrong.yaml: timing.round: unknown key 'round'; did you mean rounds?"),
    ],
)
def test_bad_input_is_one_line(
    place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    (place / "damaged.yaml").write_text("models: {net: {reason: x, onnxruntime: '1', params: many}}\n")
    (place / "newer.yaml").write_text("schema_version: 2\n")
    (place / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (place / "wrong.yaml").write_text("timing: {round: 3}\n")
    assert run_gate(*arguments) == 2
    text = said(capsys)
    assert text.startswith(f"depthbench: {line}")
    assert len(text.splitlines()) == 1


def test_sides_that_are_none(place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "empty").mkdir()
    (place / "base" / "net.onnx").write_bytes(b"no onnx")
    assert run_gate(base="empty") == 2
    assert said(capsys) == "depthbench: empty: no ONNX files in it, and no run"
    assert run_gate(base="v9.9.9") == 2
    assert said(capsys).startswith("depthbench: v9.9.9: neither a folder nor a git revision here")
    assert run_gate() == 2
    assert said(capsys).startswith("depthbench: base/net.onnx: not an ONNX file, or a truncated one")
    assert invoke(["gate", "--base", "base"]) == 2
    assert said(capsys) == "depthbench: gate needs --base and --head, or --pytest-benchmark A.json B.json"


def test_a_file_that_is_no_depth_network_has_no_accuracy(
    place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("base", "head"):
        model = onnx.load(place / side / "net.onnx")
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
        weights = np.ones((4, 4, 3, 3), np.float32)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
        onnx.save(model, place / side / "net.onnx")
    assert run_gate("--json") == 0
    value = json.loads(capsys.readouterr().out)
    accuracy = next(check for check in value["checks"] if check["metric"] == "accuracy")
    assert accuracy["state"] == "skipped"


def benchmark_file(path: Path, factor: float, **more: Any) -> Path:
    rng = np.random.default_rng(0)

    def one(name: str, seconds: float, **extra: Any) -> dict[str, Any]:
        data = (seconds * (1 + rng.normal(0, 0.01, 50))).tolist()
        stats = {"median": float(np.median(data)), "data": data}
        return {
            "name": name,
            "fullname": f"tests/benchmarks/test_hot_paths.py::{name}",
            "stats": stats,
            "extra_info": extra,
        }

    value = {"benchmarks": [one("test_control", 0.01, control=True), one("test_session", 0.02 * factor)], **more}
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.5, 0), (1.5, 1)])
def test_two_files_of_pytest_benchmark(place: Path, factor: float, code: int) -> None:
    before, after = benchmark_file(place / "a.json", 1.0), benchmark_file(place / "b.json", factor)
    assert invoke(["gate", "--pytest-benchmark", str(before), str(after)]) == code


def test_history(place: Path, run_gate: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    for i, width in enumerate((4, 4, 4, 4, 6, 6, 6, 6)):
        network(place / "head" / "net.onnx", width=width)
        run_gate("--no-latency", "--out", f"gates/{i}")
        path = place / "gates" / str(i) / "gate.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": f"2026-01-0{i + 1}T00:00:00+00:00"}))
    capsys.readouterr()
    assert invoke(["history", "gates", "--metric", "params_m", "--plot", "history.png", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    [series] = value["series"]
    assert (series["artefact"], series["n"]) == ("net", 8)
    assert [change["index"] for change in series["changes"]] == [4]
    assert series["changes"][0]["source"] == "4"
    assert (place / "history.png").read_bytes().startswith(b"\x89PNG")
    assert invoke(["history", "gates", "--metric", "parms"]) == 2
    assert "unknown metric 'parms'" in said(capsys)
    assert invoke(["history", "images"]) == 2
    assert said(capsys) == "depthbench: images: no run with finished cells and no gate.json"
    assert run_gate("--no-latency", "--out", "last", "--history", "gates") == 1
    assert "▁▁▁▁████" in (place / "last" / "summary.md").read_text("utf-8")
