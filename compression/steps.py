"""The steps of a recipe on the network, as a plain table; those on the exported file are in ``precision_steps``.

A new step is one function and one row. torch is imported by the steps that need it, when they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from depthbench.compression.options import finetune_options, prune_options

if TYPE_CHECKING:
    from torch import nn


class Context(Protocol):
    """What a step on the network may ask of its caller. Images are those of the run's calibration split, never of a test."""

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        """The network after more training, and a report; ``options`` are fields of the training's configuration."""
        ...

    def score(self, module: nn.Module, size: tuple[int, int]) -> Mapping[str, float]:
        """Mean ``delta1``, ``rmse_m`` and ``abs_rel`` of a network at the input ``size`` (height, width)."""
        ...

    def gradients(self, module: nn.Module, size: tuple[int, int]) -> Iterator[None]:
        """Each step leaves the gradients of the training loss on one more batch in the parameters of ``module``."""
        ...

    def renew_norms(self, module: nn.Module, size: tuple[int, int]) -> None:
        """Measure the statistics of every batch norm anew, in place; no weight changes."""
        ...

    def latency(self, module: nn.Module, size: tuple[int, int], board: str, precision: str) -> float:
        """The latency in ms predicted for a board."""
        ...

    def cached(self, key: Any, build: Callable[[], Any]) -> Any:
        """``build()``, a JSON value, kept by the digest of ``key``, the images and the libraries' versions."""
        ...

    def progress(self, done: int, total: int) -> None:
        """Called while a step is at work for long."""
        ...


def prune_step(module: nn.Module, options: Mapping[str, Any], context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """``options``: those of :class:`depthbench.compression.options.PruneOptions`; ``ValueError`` names all that are wrong."""
    from depthbench.compression.prune import prune

    return prune(module, prune_options(options), context)


def finetune_step(module: nn.Module, options: Mapping[str, Any], context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """Train the network on, with the caller's training loop; ``options``: ``distill``, and fields of its configuration."""
    return context.finetune(module, finetune_options(options).training)


NetworkStep = Callable[["nn.Module", Mapping[str, Any], Context], tuple["nn.Module", dict[str, Any]]]
STEPS: Mapping[str, NetworkStep] = MappingProxyType({"prune": prune_step, "finetune": finetune_step})
"""Steps on the network: (network, options, context) → (network, report)."""
