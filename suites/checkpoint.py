"""Tensors on disk: checkpoints of a training and the final weights, as safetensors with JSON in the header.

Nothing here is pickled, so nothing is executed when a file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from depthbench.suites.results import write_atomic

_HALF_MAX = torch.finfo(torch.float16).max


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-ready metadata atomically."""
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    header = {key: json.dumps(value, allow_nan=False) for key, value in metadata.items()}
    write_atomic(path, save(plain, metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by :func:`write_tensors`; ``ValueError`` names a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    return tensors, metadata


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors' names, types, shapes and values: the file that holds them also says how long they took to make."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        plain = value.detach().cpu().contiguous()
        found.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())  # (bytes,)
    return found.hexdigest()


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a network's weights: float16 for matrices and kernels, unchanged for vectors (biases, batch norm statistics).

    A matrix with a value beyond float16's range stays float32. :func:`load_weights` gives float32 back.
    """
    write_tensors(path, {key: _halved(value) for key, value in weights.items()}, metadata)


def _halved(value: Tensor) -> Tensor:
    fits = value.dtype == torch.float32 and value.dim() > 1 and bool(value.abs().max() < _HALF_MAX)
    return value.half() if fits else value


def load_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    """Load weights into ``module`` and return the file's metadata; ``ValueError`` when they do not fit it."""
    tensors, metadata = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: these weights do not fit {type(module).__name__}: {reason}") from None
    return metadata


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors ``optimizer.<parameter>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`, in the parameters' own memory layout (fused kernels rely on it)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            parameter = parameters[int(index)]
            same_layout = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()
            state.setdefault(int(index), {})[key] = same_layout
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
