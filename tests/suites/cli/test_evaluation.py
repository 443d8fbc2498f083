"""The command eval, on networks and images that the test writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from depthbench.suites.cli.app import invoke
from depthbench.suites.cli.artefacts import deployed
from depthbench.suites.cli.evaluation import _Entry
from depthbench.suites.data import Access
from depthbench.suites.metrics import ALL_METRICS


def _network(path: Path, factor: float) -> Path:
    """depth = factor · mean of the channels."""
    scale = helper.make_tensor("factor", TensorProto.FLOAT, (1,), [factor])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "factor"], ["metres"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, 32, 32)) for n, c in (("image", 3), ("metres", 1))
    ]
    graph = helper.make_graph(nodes, "grey", ends[:1], ends[1:], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks exact.onnx and far.onnx, and data/ with twelve images of camera a and three of camera b."""
    monkeypatch.chdir(tmp_path)
    _network(tmp_path / "exact.onnx", 10.0)
    _network(tmp_path / "far.onnx", 13.0)
    rng = np.random.default_rng(0)
    for i in range(15):
        folder = tmp_path / "data" / ("a" if i < 12 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        grey = int(rng.integers(40, 200))
        Image.fromarray(np.full((40, 60, 3), grey, np.uint8)).save(folder / f"{i:02d}.jpg", quality=100)
        noise = rng.uniform(0.95, 1.05, (40, 60))
        Image.fromarray((grey / 255 * 10_000 * noise).astype(np.uint16)).save(folder / f"{i:02d}.png")
    return tmp_path


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert invoke(["eval", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


DATA = ("--data", "indoor-open", "--data-root", "data")


@pytest.mark.usefixtures("place")
def test_one_model_on_one_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    got = _json(capsys, "exact.onnx", *DATA)
    assert (got["n"], got["delta1"], got["protocol"], got["size"]) == (15, 1, "native", "32x32")
    assert (got["model"], got["recipe"], got["weights"], got["skipped"]) == ("exact.onnx", "fp32", None, [])
    assert got["data"] == "indoor-open"
    assert set(ALL_METRICS) < set(got)
    assert got["rmse_m_0_1m"] is None  # nothing is so near
    assert "against" not in got
    assert "groups" not in got
    assert invoke(["eval", "exact.onnx", *DATA]) == 0
    assert "protocol native" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("place")
def test_every_images_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    got = _json(capsys, "far.onnx", *DATA, "--per-image")
    assert len({one["image"] for one in got["images"]}) == len(got["images"]) == 15
    for metric in ("rmse_m", "delta1"):
        assert np.mean([one[metric] for one in got["images"]]) == pytest.approx(got[metric])
    assert {one["rmse_m_0_1m"] for one in got["images"]} == {None}
    assert invoke(["eval", "far.onnx", *DATA, "--per-image"]) == 2
    assert capsys.readouterr().err.strip() == "depthbench: --per-image: needs --json, a table has no room for it"


@pytest.mark.usefixtures("place")
def test_against_gives_paired_differences(capsys: pytest.CaptureFixture[str]) -> None:
    got = _json(capsys, "far.onnx", *DATA, "--against", "exact.onnx")
    exact, far = (_json(capsys, name, *DATA) for name in ("exact.onnx", "far.onnx"))
    assert (got["against"], got["n_pairs"]) == ("exact.onnx", 15)
    for metric in ("rmse_m", "delta1"):
        assert got[metric] == far[metric]
        assert got[f"against_{metric}"] == exact[metric]
        difference = got[f"{metric}_difference"]
        assert difference == pytest.approx(far[metric] - exact[metric])
        low, high = got[f"{metric}_difference_ci95"]
        assert low <= difference <= high
    assert got["rmse_m_difference_ci95"][0] > 0
    back = _json(capsys, "exact.onnx", *DATA, "--against", "far.onnx")
    assert back["rmse_m_difference"] == -got["rmse_m_difference"]


@pytest.mark.usefixtures("place")
def test_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    got = _json(capsys, "far.onnx", *DATA, "--against", "exact.onnx", "--by-group")
    a, b = got["groups"]["a"], got["groups"]["b"]
    assert (a["n"], b["n"], a["n_pairs"], b["n_pairs"]) == (12, 3, 12, 3)
    assert 12 * a["rmse_m"] + 3 * b["rmse_m"] == pytest.approx(15 * got["rmse_m"])
    assert len(a["rmse_m_difference_ci95"]) == 2
    assert b["rmse_m_difference_ci95"] is None  # three images are too few
    assert b["rmse_m_difference"] > 0


@pytest.mark.usefixtures("place")
def test_median_scale_is_in_the_protocols_name(capsys: pytest.CaptureFixture[str]) -> None:
    exact, far = (_json(capsys, name, *DATA, "--median-scale") for name in ("exact.onnx", "far.onnx"))
    assert far["protocol"] == exact["protocol"] == "native+median-scale"
    assert far["rmse_m"] == pytest.approx(exact["rmse_m"], rel=1e-5)


@pytest.mark.usefixtures("place")
def test_table_of_several_models_and_data_sets(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["far.onnx", "mean-depth", "--data", "indoor-open=data", "--data", "folder=data", "--limit", "12"]
    with pytest.raises(AssertionError):
        _json(capsys, *command)  # indoor-open has no training images to take the mean of
    assert "indoor-open: no train split" in capsys.readouterr().err
    command.remove("mean-depth")
    got = _json(capsys, *command, "--against", "exact.onnx")["evaluations"]
    assert [(one["data"], one["model"], one["n"]) for one in got] == [
        ("indoor-open", "far.onnx", 12),
        ("indoor-open", "exact.onnx", 12),
        ("folder", "far.onnx", 12),
        ("folder", "exact.onnx", 12),
    ]
    assert ["against" in one for one in got] == [True, False, True, False]
    assert invoke(["eval", *command, "--against", "exact.onnx", "--by-group", "--markdown"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:5] == ["data", "model", "input", "group", "images"]
    assert lines[0][-2:] == ["rmse_m - exact.onnx's", "delta1 - exact.onnx's"]
    assert set(lines[1]) == {"---"}
    assert [line[0].strip() for line in lines[2:]] == [
        *["indoor-open test, protocol native"] * 4,
        *["folder test, protocol native"] * 2,
    ]
    assert [line[3] for line in lines[2:4]] == ["all", "a"]
    assert invoke(["eval", *command, "--against", "exact.onnx"]) == 0
    shown = capsys.readouterr().out
    assert "indoor-open test, protocol native" in shown
    assert "folder test, protocol native" in shown


def test_broken_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = place / "data" / "a" / "03.png"
    bad.write_bytes(bad.read_bytes()[:50])
    assert invoke(["eval", "exact.onnx", *DATA, "--json"]) == 2
    said = capsys.readouterr()
    assert (said.out, [line for line in said.err.splitlines() if "depthbench: " in line]) == (
        "",
        [f"depthbench: data/a/03.png: cannot be decoded ({said.err.split('decoded (')[1].strip()}"],
    )
    got = _json(capsys, "exact.onnx", *DATA, "--skip-broken", "2")
    assert (got["n"], len(got["skipped"])) == (14, 1)
    assert got["skipped"][0].startswith("data/a/03.png: ")
    assert invoke(["eval", "exact.onnx", *DATA, "--skip-broken", "1"]) == 0
    assert "1 broken ones left out" in " ".join(capsys.readouterr().out.split())
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(place / "data" / "b" / "13.png")
    assert invoke(["eval", "exact.onnx", *DATA, "--skip-broken", "1"]) == 2
    assert "data/b/13.png" in capsys.readouterr().err


def test_broken_training_images_of_the_mean_depth(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data" / "a").rename(place / "data" / "train")
    (place / "data" / "b").rename(place / "data" / "test")
    (place / "data" / "train" / "03.png").write_bytes(b"")
    command = ("mean-depth", "--data", "folder=data", "--size", "32x32")
    assert invoke(["eval", *command]) == 2
    assert "depthbench: data/train/03.png: not an image" in capsys.readouterr().err
    got = _json(capsys, *command, "--skip-broken", "1")
    assert (got["n"], got["skipped"]) == (3, [])


@pytest.fixture
def tiny(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network of a few convolutions."""
    (place / "tiny_nets.py").write_text(
        "from torch import nn\n\n"
        "def few():\n"
        "    layers = [nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 8), (8, 8), (8, 8), (8, 1))]\n"
        "    return nn.Sequential(*(one for layer in layers for one in (layer, nn.ReLU()))).eval()\n"
    )
    monkeypatch.syspath_prepend(place)
    return "tiny_nets:few"


def test_size_left_out_is_the_protocols(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {
        protocol: _json(capsys, tiny, *DATA, "--limit", "1", "--protocol", protocol)["size"]
        for protocol in ("native", "nyu-eigen")
    }
    assert sizes == {"native": "32x64", "nyu-eigen": "224x224"}
    assert _json(capsys, tiny, *DATA, "--limit", "1", "--size", "64x32")["size"] == "64x32"


def test_calibration_shows_its_progress(tiny: str, place: Path) -> None:
    (place / "data" / "a").rename(place / "data" / "calibration")
    (place / "data" / "b").rename(place / "data" / "test")
    for i, path in enumerate(sorted((place / "data" / "calibration").glob("*.jpg"))):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    told: list[tuple[str, float, float]] = []
    deployed(
        tiny,
        "int8",
        "32x32",
        lambda *step: told.append(step),  # type: ignore[arg-type]
        calibrate_on="folder",
        access=Access(place / "data"),
    )
    read = [("calibration images (folder)", i + 1, 12) for i in range(12)]
    assert told == [*read, ("quantizing", 0, 1), ("quantizing", 1, 1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tst-s", ("tst-s", "int8")),
        ("tst-s@prune30", ("tst-s", "prune30")),
        ("dir@2/net.onnx", ("dir@2/net.onnx", "int8")),
        ("dir@2/net.onnx@fp16", ("dir@2/net.onnx", "fp16")),
        ("net@2.onnx", ("net@2.onnx", "int8")),
    ],
)
def test_model_and_recipe(text: str, expected: tuple[str, str]) -> None:
    entry = _Entry.parse(text, "int8")
    assert (entry.model, entry.recipe) == expected


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("far.onnx --against nix", "unknown model 'nix' "),
        ("far.onnx --against exact.onnx@nix", "unknown recipe 'nix' "),
        ("far.onnx --data indoor-open=data --data rooms --data-root data", "--data-root data: belongs to one data set"),
        ("far.onnx exact.onnx --weights w.safetensors", "--weights w.safetensors: belongs to one model, not to 2"),
        ("far.onnx --data rooms=data --limit 1", "--data rooms=data: rooms is rendered here, it has no files"),
        ("far.onnx --data rooms --data-root data", "--data-root data: rooms is rendered here, it has no files"),
        ("far.onnx --data rooms --limit 1 --by-group", "--by-group: rooms has no groups"),
        ("far.onnx --data indoor-open=nix", "nix"),
        ("far.onnx --protocol nyu-eigen+median", "did you mean nyu-eigen+median-scale?"),
    ],
)
@pytest.mark.usefixtures("place")
def test_bad_input(command: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["eval", *command.split()]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert fault in said.err


@pytest.mark.usefixtures("place")
def test_no_number_is_nan(capsys: pytest.CaptureFixture[str]) -> None:
    got = _json(capsys, "exact.onnx", *DATA, "--limit", "1")
    assert not any(isinstance(value, float) and math.isnan(value) for value in got.values())
