"""Files for larger batches: real exports and graphs that do not allow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from depthbench.compression.executed import quiet
from depthbench.suites.export import export_onnx
from depthbench.suites.models import MODELS
from depthbench.suites.targets import BUILT_IN, desktop_cpu
from depthbench.suites.targets.batches import parse_batches, rebatched
from depthbench.suites.targets.engine import MeasureProfile
from depthbench.suites.targets.measuring import Work, measure_group


@pytest.mark.parametrize("model", ["tst-t", "fastdepth-pruned", "mobilevit-xxs"])
def test_every_image_is_computed_for_itself(model: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = export_onnx(MODELS[model].build(), tmp_path / "one.onnx", (64, 64))
    out = rebatched(path, 3, tmp_path / "three.onnx")
    images = np.random.default_rng(1).random((3, 3, 64, 64), dtype=np.float32)
    [depth] = ort.InferenceSession(str(out), quiet()).run(None, {"rgb": images})
    single = ort.InferenceSession(str(path), quiet())
    for image, got in zip(images, depth, strict=True):
        [wanted] = single.run(None, {"rgb": image[None]})
        np.testing.assert_allclose(got[None], wanted, rtol=1e-3, atol=1e-4)


def written(path: Path, body: str, output: str = "float[1,3,8,8] depth") -> Path:
    text = f'<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,8,8] rgb) => ({output}) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_an_image_that_sees_its_neighbours_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", "m = ReduceMax <axes = [0, 2, 3], keepdims = 1> (rgb) depth = Add (rgb, m)")
    with pytest.raises(
        ValueError, match=r"^m\.onnx: the graph does not allow a batch of 4: an image's depth changes by "
    ):
        rebatched(path, 4, tmp_path / "out.onnx")


def test_a_graph_of_fixed_shape_is_refused(tmp_path: Path) -> None:
    body = (
        "s = Constant <value = int64[1] {192}> () x = Reshape (rgb, s) t = Constant <value = int64[4] {1, 3, 8, 8}> () "
    )
    good = written(tmp_path / "good.onnx", body + "depth = Reshape (x, t)")
    assert rebatched(good, 4, tmp_path / "out.onnx").is_file()
    ones = "o = Constant <value = float[1, 192] {" + ", ".join(["1.0"] * 192) + "}> () "
    sums = ones + "k = Constant <value = int64[2] {192, 1}> () x = Reshape (rgb, k) depth = MatMul (o, x)"
    bad = written(tmp_path / "bad.onnx", sums, "float[1,1] depth")
    with pytest.raises(ValueError, match=r"^bad\.onnx: the graph does not allow a batch of 2: "):
        rebatched(bad, 2, tmp_path / "out.onnx")


def test_sizes() -> None:
    assert parse_batches("1,4, 8,4") == (1, 4, 8)
    for wrong in ("", "0", "a", "1,,2", "257", "-1"):
        with pytest.raises(ValueError, match=r"not batch sizes from 1 to 256, for example 1,4,8$"):
            parse_batches(wrong)


def test_throughput_stands_beside_the_latency(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = MeasureProfile(seconds=0.1, samples=20, block_s=0.02, warmup_s=0.02, warmup_runs=10)
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", tiny)
    shares: list[float] = []
    work = [Work(path, "fp32", (32, 32)) for path in networks]
    for one in measure_group(BUILT_IN["desktop-cpu"], work, "quick", batches=(1, 4), progress=shares.append):
        assert one.latency is not None
        rates = one.latency.details["throughput"]
        assert [rate["batch"] for rate in rates] == [1, 4]
        assert all(len(rate["samples_ms"]) == len(rate["blocks"]) >= 20 for rate in rates)
        assert rates[0]["samples_ms"] != one.latency.samples_ms
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
