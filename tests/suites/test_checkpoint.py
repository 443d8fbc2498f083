"""Weights and checkpoints as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from depthbench.suites.checkpoint import (
    load_weights,
    optimizer_tensors,
    read_tensors,
    restore_optimizer,
    save_weights,
    tensors_digest,
    write_tensors,
)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    strided = torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    tensors = {"a": strided, "same": strided, "n": torch.tensor(3)}
    write_tensors(tmp_path / "x.safetensors", tensors, {"step": 3, "config": {"lr": 0.1}})
    got, metadata = read_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(got[key], value) for key, value in tensors.items())
    assert metadata == {"step": 3, "config": {"lr": 0.1}}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_kernels_are_halved_and_statistics_are_not(tmp_path: Path) -> None:
    network = _network()
    with torch.no_grad():
        network[1].running_var.fill_(1e6)
        network[1].running_mean.fill_(1.0001)
    save_weights(tmp_path / "w.safetensors", network.state_dict(), {"model": "m"})
    stored, _ = read_tensors(tmp_path / "w.safetensors")
    assert stored["0.weight"].dtype == torch.float16
    assert stored["1.running_var"].dtype == torch.float32
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert load_weights(other, tmp_path / "w.safetensors") == {"model": "m"}
    assert other[0].weight.dtype == torch.float32
    assert torch.equal(other[0].weight, network[0].weight.half().float())
    assert torch.equal(other[1].running_mean, network[1].running_mean)


def test_what_half_cannot_hold_stays_whole(tmp_path: Path) -> None:
    weights = {"large": torch.full((2, 2), 1e5)}
    save_weights(tmp_path / "w.safetensors", weights, {})
    assert torch.equal(read_tensors(tmp_path / "w.safetensors")[0]["large"], weights["large"])


def test_faults_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match=rf"^{path}: no such file$"):
        read_tensors(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=rf"^{path}: not a readable safetensors file \(.*\)$"):
        read_tensors(path)
    save_weights(path, _network().state_dict(), {})
    with pytest.raises(ValueError, match=rf"^{path}: these weights do not fit Linear: [^\n]*$"):
        load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_optimizer_state_comes_back_in_the_layout_of_its_parameters(layout: torch.memory_format) -> None:
    def network() -> nn.Sequential:
        return _network().to(memory_format=layout)

    def step(net: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        net(torch.linspace(0, 1, 3 * 64).reshape(1, 3, 8, 8)).square().sum().backward()
        optimizer.step()

    first = network()
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.1, fused=True)
    step(first, optimizer)
    second = network()
    second.load_state_dict(first.state_dict())
    restored = torch.optim.AdamW(second.parameters(), lr=0.1, fused=True)
    restore_optimizer(restored, {key: value.contiguous() for key, value in optimizer_tensors(optimizer).items()})
    assert restored.state_dict()["state"][0]["exp_avg"].is_contiguous(memory_format=layout)
    step(first, optimizer)
    step(second, restored)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_digest_of_values_alone() -> None:
    first = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1.5, dtype=torch.bfloat16)}
    same = {"a": first["a"].clone(), "b": first["b"].t().contiguous().t()}
    assert tensors_digest(first) == tensors_digest(same)
    others = [
        {**first, "b": first["b"] + 1},
        {**first, "b": first["b"].reshape(3, 2)},
        {**first, "b": first["b"].double()},
        {"c": first["b"], "a": first["a"]},
    ]
    assert len({tensors_digest(one) for one in (first, *others)}) == 5
