"""Measuring on this CPU, with real ONNX Runtime sessions in a real process; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from depthbench.suites.targets.desktop_cpu import measure
from depthbench.suites.targets.engine import Measured, MeasureProfile, latency
from depthbench.suites.targets.intervals import Timings, median_interval, paired_ratio

TINY = MeasureProfile(seconds=0.1, samples=20, block_s=0.02, warmup_s=0.02, warmup_runs=10)


def convolution(path: Path, kind: int = TensorProto.FLOAT) -> Path:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (1, 3, 3, 3), np.ones(27, np.float32))
    cast = helper.make_node("Cast", ["rgb"], ["x"], to=TensorProto.FLOAT)
    node = helper.make_node("Conv", ["x", "w"], ["depth"], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [cast, node],
        "g",
        [helper.make_tensor_value_info("rgb", kind, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, (1, 1, 32, 32))],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_measure_interleaves_and_keeps_raw_samples(tmp_path: Path) -> None:
    files = [convolution(tmp_path / "a.onnx"), convolution(tmp_path / "b.onnx", TensorProto.UINT8)]
    shares: list[float] = []
    results = measure(files, TINY, progress=shares.append)
    assert len(results) == 2
    for one in results:
        assert len(one.warmup_ms) >= 10
        assert len(one.samples_ms) >= 20
        assert min(one.samples_ms) > 0
        assert len(one.blocks) == len(one.samples_ms)
    assert set(results[0].blocks) == set(results[1].blocks)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_file_that_is_refused_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(convolution(tmp_path / "a.onnx").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"broken\.onnx: ONNX Runtime refuses it: "):
        measure([path], TINY)


def test_a_worker_that_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ValueError, match=r"a\.onnx: the measuring process ended with code 1 and no result$"):
        measure([convolution(tmp_path / "a.onnx")], TINY)


def test_paired_ratio_is_of_medians_by_round() -> None:
    rng = np.random.default_rng(0)
    drift = np.repeat(1 + 0.5 * np.sin(np.arange(40)), 10)  # the machine slows both down alike
    blocks = np.repeat(np.arange(40), 10).tolist()
    first = Timings((2.0 * drift * rng.normal(1, 0.01, 400)).tolist(), blocks)
    second = Timings((4.0 * drift * rng.normal(1, 0.01, 400)).tolist(), blocks)
    ratio, (low, high) = paired_ratio(first, second)
    assert ratio == pytest.approx(0.5, rel=0.005)
    assert low < 0.5 < high
    assert high - low < 0.01


def test_median_interval_covers_the_median() -> None:
    low, high = median_interval(np.random.default_rng(1).normal(10, 1, 500).tolist())
    assert 9.8 < low < 10 < high < 10.2
    assert median_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_noisy_is_flagged() -> None:
    rng = np.random.default_rng(2)
    wild = Measured(rng.lognormal(0, 1, 100).tolist(), [0] * 100)
    calm = Measured(rng.normal(5, 0.01, 100).tolist(), [0] * 100)
    assert latency(wild).flags == ["noisy"]
    assert latency(calm).flags == []
    assert latency(calm).samples_ms == calm.samples_ms
