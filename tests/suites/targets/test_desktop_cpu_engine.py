"""Fresh processes, control arm, settings, and what the flags are made of; real ONNX Runtime sessions, no time asserted."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthbench.suites.targets import BUILT_IN, Target
from depthbench.suites.targets.desktop_cpu import (
    CpuSettings,
    Measured,
    MeasureProfile,
    check_settings,
    compare,
    latency,
    measure,
    tails,
)
from depthbench.suites.targets.measuring import Work, measure_group
from depthbench.suites.targets.watch import EnergyCounter, contaminated, cpu_mhz, throttled

TINY = MeasureProfile(seconds=0.1, samples=20, block_s=0.02, warmup_s=0.02, warmup_runs=10)


def test_each_file_and_the_control_have_a_process(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    first, second = measure(networks, TINY, control=True)
    assert len({process.pid for process in started}) == 3
    assert all(process.returncode is not None for process in started)
    assert len(first.control_ms) == len(first.control_blocks) >= 20
    assert set(first.blocks) == set(second.blocks) == set(first.control_blocks)
    assert second.control_ms == []
    found = compare(first, second)
    assert found.control is not None
    assert found.interval999[0] <= found.interval95[0] <= found.ratio <= found.interval95[1] <= found.interval999[1]


def test_facts_beside_the_samples(networks: list[Path]) -> None:
    [one] = measure(networks[:1], TINY)
    details = latency(one, 1).details
    assert details["load_ms"] > 0
    assert details["first_ms"] == one.warmup_ms[0]
    assert details["peak_mem_mb"] >= details["idle_mem_mb"] > 0
    assert len(details["foreign_cores"]) == len(set(one.blocks))
    assert ("energy_mj" in details) != ("energy_absent" in details)
    assert details["clock"] == "wall"


def test_affinity_binds_the_process(networks: list[Path]) -> None:
    core = min(os.sched_getaffinity(0))
    [one] = measure(networks[:1], TINY, affinity=[core])
    assert len(one.samples_ms) >= 20
    with pytest.raises(ValueError, match=r"^core 999 is not here \(usable: "):
        measure(networks[:1], TINY, affinity=[999])


def test_a_runtime_that_is_not_there(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown runtime 'openvin'; did you mean openvino"):
        measure(networks[:1], TINY, runtime="openvin")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"^runtime openvino is not installed: pip install 'depthbench\[openvino\]'$"):
        check_settings(CpuSettings(runtime="openvino"))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino(networks: list[Path], tmp_path: Path) -> None:
    [one] = measure(networks[:1], TINY, runtime="openvino")
    assert len(one.samples_ms) >= 20
    assert one.facts["version"].startswith("20")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"broken\.onnx: OpenVINO refuses it: "):
        measure([broken], TINY, runtime="openvino")


def test_foreign_load_is_flagged(networks: list[Path]) -> None:
    burn = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
    try:
        [one] = measure(networks[:1], MeasureProfile(0.5, 20, 0.1, 0.05, 10))
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert "contaminated" in latency(one, 1).flags


def test_contaminated_is_more_than_a_tenth_of_the_rounds() -> None:
    assert not contaminated([])
    assert not contaminated([0.0] * 18 + [99.0])
    assert contaminated([0.0] * 8 + [99.0])


def test_a_difference_needs_the_999_interval_to_exclude_1() -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(40), 10).tolist()

    def arm(scale: float) -> list[float]:
        return (scale * rng.normal(1, 0.02, 400)).tolist()

    same = Measured([], arm(5), blocks, arm(5), blocks)
    assert not compare(same, Measured([], arm(5), blocks)).different
    assert compare(same, Measured([], arm(5.25), blocks)).different
    # the file differs from itself as much as from the other one: nothing is declared
    unsteady = Measured([], arm(5), blocks, arm(5.25), blocks)
    assert not compare(unsteady, Measured([], arm(5.25), blocks)).different


def test_percentiles_need_their_samples() -> None:
    assert tails([1.0] * 63) == {}
    assert list(tails([1.0] * 64)) == ["p90_ms"]
    assert list(tails([1.0] * 662)) == ["p90_ms", "p95_ms", "p99_ms"]


def test_clocks(tmp_path: Path) -> None:
    assert cpu_mhz(tmp_path) is None
    for core, khz in (("cpu0", "2400000"), ("cpu1", "3100000")):
        (tmp_path / core / "cpufreq").mkdir(parents=True)
        (tmp_path / core / "cpufreq" / "scaling_cur_freq").write_text(khz)
    assert cpu_mhz(tmp_path) == 3100
    assert throttled([3100, 3100, 3050, 2400, 2400, 2400])
    assert not throttled([3100, 3000, 3100, 3050])
    assert not throttled([])


def test_energy_counter(tmp_path: Path) -> None:
    assert EnergyCounter(tmp_path).absent == "this machine offers no energy counter (no RAPL)"
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "energy_uj").write_text("9000")
    (package / "max_energy_range_uj").write_text("10000")
    counter = EnergyCounter(tmp_path)
    assert counter.absent is None
    before = counter.read_uj()
    (package / "energy_uj").write_text("9500")
    assert counter.spent_mj(before) == 0.5
    (package / "energy_uj").write_text("500")  # it has run over
    assert counter.spent_mj(before) == 1.5


def test_measure_group_on_a_cpu_and_on_a_target_of_another_package(
    networks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from depthbench.suites.targets import desktop_cpu

    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    work = [Work(path, "fp32", (32, 32)) for path in networks]
    outcomes = measure_group(BUILT_IN["desktop-cpu"], work, "quick")
    assert [outcome.reason for outcome in outcomes] == [None, None]
    assert outcomes[0].latency is not None
    assert outcomes[0].latency.threads == 1
    assert outcomes[0].environment["runtime"] == "onnxruntime"
    plugin = Target(
        "theirs", "cpu", "measured", "", lambda: None, measure=lambda work, *_, **__: ["theirs"] * len(work)
    )
    assert measure_group(plugin, work, "quick") == ["theirs", "theirs"]
    with pytest.raises(ValueError, match=r"^target jetson-nano is predicted, not measured$"):
        measure_group(BUILT_IN["jetson-nano"], work, "quick")


def test_no_cuda_is_a_named_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from depthbench.suites.targets import desktop_cuda

    monkeypatch.setattr(desktop_cuda, "DRIVER", tmp_path / "none")
    assert BUILT_IN["desktop-cuda"].probe() == "no CUDA device: there is no NVIDIA driver here"
    [one] = measure_group(BUILT_IN["desktop-cuda"], [Work(tmp_path / "x.onnx", "fp32", (32, 32))], "quick")
    assert one.reason == "an ONNX file alone cannot run in torch; give a catalogue model or package.module:function"
