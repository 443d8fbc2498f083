"""Fresh processes, control arm, settings, and what the flags are made of; real ONNX Runtime sessions, no time asserted."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest

from depthbench.reports.report import build_report
from depthbench.suites.results import Record, RunFolder, write_json
from depthbench.suites.targets import BUILT_IN, Target, desktop_cpu
from depthbench.suites.targets.cpu_worker import _onnxruntime
from depthbench.suites.targets.desktop_cpu import CpuSettings, check_settings, cpu_network, measure, try_measure
from depthbench.suites.targets.engine import Arm, MeasureProfile, latency
from depthbench.suites.targets.intervals import compare, tails
from depthbench.suites.targets.measuring import Work, measure_group
from depthbench.suites.targets.watch import EnergyCounter, contaminated, cpu_mhz, is_busy, throttled

TINY = MeasureProfile(seconds=0.1, samples=20, block_s=0.02, warmup_s=0.02, warmup_runs=10)


def test_each_file_and_the_control_have_a_process(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    first, second = measure(networks, replace(TINY, processes=2), control=True)
    assert len({process.pid for process in started}) == 6
    assert all(process.returncode is not None for process in started)
    assert first.control is not None
    assert len(first.control.samples_ms) == len(first.control.blocks) >= 20
    assert set(first.blocks) == set(second.blocks) == set(first.control.blocks) == set(range(len(first.processes)))
    assert first.processes == sorted(first.processes)
    assert set(first.processes) == {0, 1}
    assert len(first.warmup_ms) >= 20
    assert second.control is None
    found = compare(first, second, first.control)
    assert found.control is not None
    assert found.interval999[0] <= found.interval95[0] <= found.ratio <= found.interval95[1] <= found.interval999[1]


def test_facts_beside_the_samples(networks: list[Path]) -> None:
    ballast = np.ones(2**25)  # 268 MB of this process, no part of the measured one's
    [one] = measure(networks[:1], TINY, processing=True)
    details = latency(one).details
    assert details["peak_mem_mb"] < ballast.nbytes / 1e6
    assert details["load_ms"] > 0
    assert details["first_ms"] == one.warmup_ms[0]
    assert details["peak_mem_mb"] >= details["idle_mem_mb"] > 0
    assert len(details["foreign_cores"]) == len(set(one.blocks))
    assert list(details["pre_ms"]) == ["decode", "resize", "normalise"]
    assert list(details["post_ms"]) == ["to_metres"]
    assert all(
        len(times) == 20 and min(times) > 0 for times in (*details["pre_ms"].values(), *details["post_ms"].values())
    )
    assert ("energy_mj" in details) != ("energy_absent" in details)
    assert details["clock"] == "wall"


def test_affinity_binds_the_process(networks: list[Path]) -> None:
    core = min(os.sched_getaffinity(0))
    [one] = measure(networks[:1], TINY, CpuSettings(affinity=(core,)))
    assert len(one.samples_ms) >= 20
    with pytest.raises(ValueError, match=r"^core 999 is not here \(usable: "):
        measure(networks[:1], TINY, CpuSettings(affinity=(999,)))


def test_a_runtime_that_is_not_there(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown runtime 'openvin'; did you mean openvino"):
        measure(networks[:1], TINY, CpuSettings(runtime="openvin"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"^runtime openvino is not installed: pip install 'depthbench\[openvino\]'$"):
        check_settings(CpuSettings(runtime="openvino"))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino(networks: list[Path], tmp_path: Path) -> None:
    [one] = measure(networks[:1], TINY, CpuSettings(runtime="openvino"))
    assert len(one.samples_ms) >= 20
    assert one.facts["version"].startswith("20")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"broken\.onnx: OpenVINO refuses it: "):
        measure([broken], TINY, CpuSettings(runtime="openvino"))


def test_foreign_load_is_flagged_in_the_record_and_in_the_report(
    networks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", MeasureProfile(0.5, 20, 0.1, 0.05, 10))
    burn = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
    try:
        [one] = measure_group(BUILT_IN["desktop-cpu"], [Work(networks[0], "fp32", (32, 32))], "quick")
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert one.latency is not None
    assert "contaminated" in one.latency.flags
    folder = RunFolder(tmp_path / "run")
    place = {"size": (32, 32), "target": "desktop-cpu", "target_kind": "cpu", "dataset": "folder", "protocol": "native"}
    folder.write_record(Record("one", "ok", "net", "file", "fp32", latency=one.latency, **place))
    write_json(folder.manifest, {"cells": ["one"]})
    page = build_report(folder.root, notebook=False).read_text("utf-8")
    assert re.search(r'<td class="remarks"[^>]*>[^<]*contaminated', page)
    assert "contaminated" in (folder.root / "report" / "cells.csv").read_text("utf-8").splitlines()[1]


@pytest.mark.parametrize("cores", [1, 2, 16, 128])
def test_one_working_process_is_seen_on_any_machine(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert is_busy(0.9)
    assert not is_busy(0.2)


def test_contaminated_is_more_than_a_tenth_of_the_rounds() -> None:
    assert not contaminated([])
    assert not contaminated([0.0] * 18 + [99.0])
    assert contaminated([0.0] * 8 + [99.0])


def test_threads_do_not_spin_on_in_the_next_one_s_turn(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[onnxruntime.InferenceSession] = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *words, **more: made.append(real(*words, **more)) or made[-1]
    )
    _onnxruntime(str(networks[0]), {"threads": 2, "seed": 0})
    options = made[0].get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


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
    (package / "name").write_text("package-0\n")
    for other, name in (
        ("intel-rapl:1", "psys"),
        ("intel-rapl:0:0", "core"),
    ):  # what holds packages, and what they hold
        (tmp_path / other).mkdir()
        (tmp_path / other / "energy_uj").write_text("1")
        (tmp_path / other / "name").write_text(name)
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


def test_a_file_that_fails_leaves_the_others_alone(
    networks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    work = [Work(path, "fp32", (32, 32)) for path in (networks[0], broken, networks[1])]
    first, second, third = measure_group(BUILT_IN["desktop-cpu"], work, "quick")
    assert second.latency is None
    assert second.reason is not None
    assert f"{broken}: ONNX Runtime refuses it: " in second.reason
    for one in (first, third):
        assert one.latency is not None
        assert one.latency.details["control_ratio"] > 0
    assert "control" in first.latency.details
    assert "control" not in third.latency.details


def test_a_process_that_is_ended_is_a_reason(networks: list[Path]) -> None:
    ended: list[int] = []

    def end_one(_: float) -> None:
        if not ended:
            children = psutil.Process().children()  # Python's own helpers may be among them
            victim = next(child for child in children if "cpu_worker" in " ".join(child.cmdline()))
            ended.append(victim.pid)
            victim.kill()

    found = try_measure(networks, replace(TINY, seconds=0.3), progress=end_one)
    [reason] = [one for one in found if isinstance(one, str)]
    assert reason.endswith(".onnx: the measuring process ended with code -9 and no result")
    [good] = [one for one in found if not isinstance(one, str)]
    assert good.samples_ms


def test_what_is_not_sharp_goes_on() -> None:
    profile = MeasureProfile(seconds=1, samples=10, longest=1.5)
    arm = Arm(cpu_network("x.onnx", CpuSettings()))
    arm.samples_ms, arm.spent_s = np.random.default_rng(0).lognormal(0, 1, 50).tolist(), 1.2
    assert arm.done(profile) == 1
    assert arm.wants_more(profile)
    arm.spent_s = 1.5
    assert not arm.wants_more(profile)
    arm.samples_ms, arm.spent_s = [2.0] * 50, 1.2
    assert not arm.wants_more(profile)


def test_no_cuda_is_a_named_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from depthbench.suites.targets import desktop_cuda

    monkeypatch.setattr(desktop_cuda, "DRIVERS", (tmp_path / "none",))
    assert BUILT_IN["desktop-cuda"].probe() == "no CUDA device: there is no NVIDIA driver here"
