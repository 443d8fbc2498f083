"""The stage that trains a suite's own models: each once, kept in the store, resumed where it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.models import ModelSpec, build_model
from depthbench.suites.plan import digest, library_versions
from depthbench.suites.results import Lineage
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.store import Entry, Store

if TYPE_CHECKING:
    from torch import nn

    from depthbench.suites.data import Access
    from depthbench.suites.training.log import Report


def trained(spec: ModelSpec, access: Mapping[str, Access] | None = None, report: Report | None = None) -> Entry:
    """The weights of a variant, from the store or trained now; its files are ``weights.safetensors`` and ``log.jsonl``.

    A training keeps its checkpoints beside the store until it is finished, so one that was stopped at any moment goes on
    from the last of them. Of several processes that want the same weights one trains and the others wait.
    ``FloatingPointError`` when it diverges.
    """
    key = trained_key(spec)
    folder = cache_dir() / "trainings" / key
    entry = Store("trained").make(key, lambda place: _train(spec, folder, place, access, report))
    shutil.rmtree(folder, ignore_errors=True)
    return entry


def trained_key(spec: ModelSpec) -> str:
    """Digest of everything that decides a variant's weights, by which the store keeps them."""
    return digest([spec.digest, library_versions()])


def _train(
    spec: ModelSpec, folder: Path, place: Path, access: Mapping[str, Access] | None, report: Report | None
) -> dict[str, Any]:
    from depthbench.suites.checkpoint import read_tensors
    from depthbench.suites.training.log import LOG
    from depthbench.suites.training.loop import WEIGHTS, train_model

    variant = spec.variant
    assert variant is not None

    def build() -> nn.Module:
        return build_model(spec, variant.seed)

    path = train_model(variant.model, build, variant.config, folder, access=access, report=report)
    _, metadata = read_tensors(path)
    shutil.copyfile(path, place / WEIGHTS)
    shutil.copyfile(folder / LOG, place / LOG)
    return {key: metadata[key] for key in ("samples", "seconds", "data", "torch")}


def trained_network(spec: ModelSpec, access: Mapping[str, Access] | None = None) -> tuple[nn.Module, Lineage]:
    """A variant's network in eval mode with its trained weights, and the link that says how these came about."""
    from depthbench.suites.checkpoint import read_tensors, tensors_digest

    assert spec.variant is not None
    entry = trained(spec, access)
    path = entry.folder / "weights.safetensors"
    module = build_model(replace(spec, path=path))
    return module, Lineage("weights", tensors_digest(read_tensors(path)[0]), {**spec.variant.to_json(), **entry.meta})


def transformer_costs(module: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """``params_m`` and ``gmacs`` of a network's transformer blocks, for one (1, 3, H, W); of their attention alone (projections
    and products, without feed-forward and normalisation) ``attention_params_m`` and ``attention_gmacs``.

    A block that is applied several times is stored once and computed each time.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from depthbench.tst.layers import TransformerBlock

    blocks = [(name, part) for name, part in module.named_modules() if isinstance(part, TransformerBlock)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, *size))
    counts = counter.get_flop_counts()

    def costs(parts: Sequence[tuple[str, nn.Module]]) -> tuple[float, float]:
        """Parameters in 1e6 and multiply-accumulates in 1e9; 1 MAC = 2 FLOPs."""
        flops = sum(sum(counts[f"{type(module).__name__}.{name}"].values()) for name, _ in parts)
        return sum(one.numel() for _, part in parts for one in part.parameters()) / 1e6, flops / 2 / 1e9

    params, gmacs = costs(blocks)
    attention_params, attention_gmacs = costs([(f"{name}.attention", part.attention) for name, part in blocks])
    return {
        "params_m": params,
        "gmacs": gmacs,
        "attention_params_m": attention_params,
        "attention_gmacs": attention_gmacs,
    }
