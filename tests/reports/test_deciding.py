"""The commands choose, compare and table, on constructed runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from depthbench.reports.load import load_run
from depthbench.suites.cli.app import invoke
from depthbench.suites.cli.deploying import trtexec_lines
from depthbench.suites.results import Record
from depthbench.suites.storage.store import Store

MakeRun = Callable[..., Path]


def grey_depth(path: Path, height: int, width: int) -> None:
    """An ONNX file whose depth is the mean of the three colours, in metres."""
    shape = [1, 3, height, width]
    node = helper.make_node("ReduceMean", ["rgb"], ["depth"], axes=[1], keepdims=1)
    graph = helper.make_graph(
        [node],
        "grey",
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, height, width])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Record], None]:
    """Put the file of a record into a cache of its own."""
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))

    def put(record: Record) -> None:
        def build(folder: Path) -> dict[str, object]:
            grey_depth(folder / "model.onnx", *record.size)
            return {"lineage": [asdict(link) for link in record.lineage], "sha256": "0"}

        Store("artefacts").make(record.id[:20], build)

    return put


def test_choose_says_which_and_how_sure(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_run(lambda r: r if r.target == "cpu" else None)
    assert invoke(["choose", str(root), "--board", "cpu", "--fps", "200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Take tst-s prune30 224×224: rmse_m 0.567 on rooms (native), 4.8 ms on cpu."
    assert lines[1].endswith("sure that it fits and that none of the 11 that fit is better")
    assert lines[3].startswith("Runner-up: tst-s int8 224×224: rmse_m 0.572 on rooms (native), 4.5 ms")
    assert any(line.startswith("Excluded by fps: 12: ") for line in lines)
    assert lines[-1] == "Note: 1 cell failed"


def test_choose_json_and_exit_codes(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(make_run(lambda r: r if r.target == "cpu" else None))
    assert invoke(["choose", root, "--board", "cpu", "--fps", "1000", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["best"], answer["exported"], len(answer["misses"])) == (None, None, 3)
    assert (answer["misses"][0]["dataset"], answer["misses"][0]["protocol"]) == ("rooms", "native")
    assert invoke(["choose", root, "--board", "gpu"]) == 2
    assert capsys.readouterr().err == "depthbench: unknown target of this run 'gpu'; did you mean cpu? (choices: cpu)\n"
    assert invoke(["choose", root, "--board", "cpu", "--metric", "rmse"]) == 2
    assert "unknown metric 'rmse'; did you mean rmse_m?" in capsys.readouterr().err
    assert invoke(["choose", root + "x", "--board", "cpu"]) == 2
    assert "no run here" in capsys.readouterr().err


def test_the_exported_example_runs(
    make_run: MakeRun, stored: Callable[[Record], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_run(lambda r: r if r.target == "jetson-nano" and r.model == "tst-s" else None)
    record = next(r for r in load_run(root).records if r.recipe == "fp16")
    stored(record)
    out = tmp_path / "chosen"
    assert invoke(["choose", str(root), "--board", "jetson-nano", "--export", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["exported"] == str(out)
    names = {"model.onnx", "README.md", "numbers.json", "example.py", "deploy.sh"}
    assert {path.name for path in out.iterdir()} == names
    assert os.access(out / "deploy.sh", os.X_OK)
    subprocess.run(["sh", "-n", str(out / "deploy.sh")], check=True)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Jetson Nano (JetPack 4.6, TensorRT 8.2.1)" in card
    assert "| latency, predicted | 13.2 ms (9.24 to 17.2) |" in card
    assert json.loads((out / "numbers.json").read_text())["best"]["id"] == record.id
    assert len((out / "example.py").read_text().splitlines()) <= 40

    picture, depth = tmp_path / "in.png", tmp_path / "depth.png"
    Image.new("RGB", (100, 60), (51, 102, 153)).save(picture)
    done = subprocess.run(
        [sys.executable, str(out / "example.py"), str(picture), str(depth)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("100x60, 0.40 to 0.40 m")
    with Image.open(depth) as image:
        assert image.size == (100, 60)
        np.testing.assert_allclose(np.asarray(image), 400, atol=1)
    usage = subprocess.run([sys.executable, str(out / "example.py")], capture_output=True, text=True, check=False)
    assert usage.returncode == 1
    assert usage.stderr.startswith("Depth of an image: python example.py IMAGE.jpg DEPTH.png")


def test_a_file_is_not_written_over(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_run(lambda r: r if r.target == "cpu" and r.model == "tst-s" else None)
    (tmp_path / "taken").write_text("mine")
    assert invoke(["choose", str(root), "--board", "cpu", "--export", str(tmp_path / "taken")]) == 2
    assert capsys.readouterr().err == f"depthbench: {tmp_path / 'taken'}: not a folder\n"


@pytest.mark.parametrize(
    ("target", "precision", "build", "measure"),
    [
        ("jetson-nano", "fp16", "--fp16 --workspace=1024", "--duration=60 --exportTimes"),
        ("jetson-xavier-nx", "int8-trt", "--int8 --fp16 --memPoolSize=workspace:1024", "--duration=60 --exportTimes"),
        (
            "jetson-orin-nano-super",
            "fp32",
            "--saveEngine=model.engine --memPoolSize=workspace:1024",
            "--noDataTransfers --useSpinWait --useCudaGraph --separateProfileRun",
        ),
    ],
)
def test_trtexec_lines_fit_the_jetpack(target: str, precision: str, build: str, measure: str) -> None:
    record = Record(
        "x", "ok", "m", "f", "r", (224, 224), target, "board", dataset="d", protocol="p", precision=precision
    )
    lines = trtexec_lines(record)
    assert build in lines[0]
    assert measure in lines[1]


def test_no_trtexec_line_for_a_cpu() -> None:
    assert (
        trtexec_lines(Record("x", "ok", "m", "f", "r", (2, 2), "desktop-cpu", "cpu", dataset="d", protocol="p")) == []
    )


def test_compare_prints_environments_first(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_run(lambda r: r if r.target == "cpu" and r.model == "tst-t" else None, "a")
    b = make_run(lambda r: r if r.target == "cpu" and r.model == "tst-t" and r.recipe != "int8" else None, "b")
    manifest = json.loads((b / "run.json").read_text())
    manifest["libraries"]["onnxruntime"] = "9.9"
    (b / "run.json").write_text(json.dumps(manifest))
    assert invoke(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert out.index("The two runs were not made alike") < out.index("3 cells in both, 0 of them differ")
    assert "Only in A: 1 cells" in out
    assert "rooms (native)" in out
    assert invoke(["compare", str(a), str(b), "--all"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "tst-t" in line]
    assert len(rows) == 4
    assert all("rooms" in row for row in rows)
    assert invoke(["compare", str(a), str(b), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [fact["name"] for fact in answer["environment"]] == ["onnxruntime"]
    assert answer["vanished"][0]["recipe"] == "int8"


def test_table_command(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(make_run(lambda r: r if r.target in {"cpu", "jetson-nano"} else None))
    assert invoke(["table", root, "--target", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("### cpu: rooms (native)\n\n| network | recipe |")
    assert invoke(["table", root, "--format", "latex"]) == 0
    assert capsys.readouterr().out.count(r"\begin{table}") == 2
    assert invoke(["table", root, "--format", "word"]) == 2
    assert "unknown format 'word'" in capsys.readouterr().err
