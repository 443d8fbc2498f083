"""The CUDA target as far as a machine without a GPU can show it: processes, pickling, checks, reasons; see the stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.targets import BUILT_IN, desktop_cpu, desktop_cuda
from depthbench.suites.targets.cuda_worker import deviation
from depthbench.suites.targets.engine import MeasureProfile
from depthbench.suites.targets.measuring import Work, measure_group

TINY = MeasureProfile(seconds=0.05, samples=5, block_s=0.02, warmup_s=0.01, warmup_runs=10)
STANDINS = Path(__file__).parent / "standins"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    monkeypatch.setattr(desktop_cuda, "WORKER", "cuda_standin")
    monkeypatch.setattr(desktop_cuda, "gpu_environment", lambda: {"gpu": "stand-in"})
    monkeypatch.syspath_prepend(str(STANDINS))


def work(build: Any, precision: str = "fp32", size: tuple[int, int] = (64, 64)) -> Work:
    return Work(Path("unused.onnx"), precision, size, build)


def catalogue(name: str) -> Any:
    return lambda: build_model(resolve_model(name))


@pytest.mark.usefixtures("gpu")
def test_networks_in_processes_of_their_own() -> None:
    networks = [work(catalogue("tst-t"), "fp16"), work(catalogue("fastdepth"))]
    outcomes = measure_group(BUILT_IN["desktop-cuda"], networks, "quick", batches=(2,))
    assert [one.reason for one in outcomes] == [None] * 2
    for one in outcomes:
        assert one.latency is not None
        details = one.latency.details
        assert (details["clock"], details["peak_gpu_mb"]) == ("device", 5.0)
        assert len(details["wall_ms"]) == len(one.latency.samples_ms) >= 5
        assert len(one.latency.warmup_ms) >= 10
        assert details["output_deviation"] < 2e-2
        assert details["energy_absent"] == "no counter of the GPU's energy is read"
        assert "energy_mj" not in details
        assert details["control_ratio"] > 0
        assert set(details["pre_ms"]) == {"decode", "resize", "normalise"}
        [rate] = details["throughput"]
        assert rate["batch"] == 2
        assert len(rate["samples_ms"]) >= 20
        assert one.environment["gpu"] == "stand-in"


class Wrong(nn.Module):
    """Gives something else at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Parameter(torch.zeros(()))

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return rgb[:, :1] + self.calls


class Refused(nn.Module):
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        raise TypeError(f"operation not permitted\nwhen stream is capturing {rgb.ndim} axes")


@pytest.mark.usefixtures("gpu")
def test_each_failure_is_its_own() -> None:
    class Local(nn.Module):
        pass

    networks = [work(Wrong), work(Refused), work(Local), work(catalogue("tst-t"))]
    wrong, refused, local, good = measure_group(BUILT_IN["desktop-cuda"], networks, "quick")
    assert wrong.reason is not None
    assert wrong.reason.startswith("CUDA: its output differs from the CPU's by ")
    assert wrong.reason.endswith("more than the 0.2% allowed in fp32")
    assert refused.reason == "CUDA: operation not permitted when stream is capturing 4 axes"
    assert local.reason is not None
    assert local.reason.startswith("the network cannot be given to a process of its own (")
    assert good.latency is not None


def test_an_onnx_file_needs_onnxruntime_with_cuda(networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desktop_cuda, "gpu_environment", dict)
    [one] = measure_group(BUILT_IN["desktop-cuda"], [Work(networks[0], "fp32", (32, 32))], "quick")
    lacking = "onnxruntime is installed without CUDA (pip install onnxruntime-gpu in its place)"
    assert one.reason == f"an ONNX file alone cannot run in torch, and {lacking}"
    with pytest.raises(ValueError, match=r"^onnxruntime is installed without CUDA"):
        desktop_cuda.check_runtime("onnxruntime")
    # a provider that is there by name and does not start is no measurement on the CPU
    monkeypatch.setattr(desktop_cuda, "onnxruntime_lacks_cuda", lambda: None)
    [one] = measure_group(BUILT_IN["desktop-cuda"], [Work(networks[0], "fp32", (32, 32))], "quick")
    assert one.reason is not None
    assert one.reason.endswith("a.onnx: ONNX Runtime refuses it: CUDAExecutionProvider does not start here")


def test_deviation() -> None:
    wanted = torch.tensor([2.0, 4.0])
    assert deviation(torch.tensor([2.0, 4.0], dtype=torch.float16), wanted) == 0
    assert deviation(torch.tensor([2.3, 4.0]), wanted) == pytest.approx(0.05)
    assert deviation(torch.tensor([float("nan"), 4.0]), wanted) == float("inf")


def test_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert desktop_cuda.gpu_mhz() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 1980\n")
    tool.chmod(0o755)
    assert desktop_cuda.gpu_mhz() == 1980
    tool.write_text("#!/bin/sh\necho '[N/A]'\n")
    assert desktop_cuda.gpu_mhz() is None
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert desktop_cuda.gpu_mhz() is None
