"""Training: one loop for every model and for the fine-tuning of its pruned children.

The state after a step is a function of (configuration, data, module, number of steps): a training that is killed and
started again continues from its last checkpoint and, on the CPU with the same torch and number of threads, ends with the
same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthbench.baselines import FastDepth, MobileViTDepth
from depthbench.suites.checkpoint import read_tensors, save_weights
from depthbench.suites.data import USUAL, Access
from depthbench.suites.graphs.depthwise import fast_in_bfloat16
from depthbench.suites.graphs.pointwise import rows_as_images
from depthbench.suites.models import file_sha256
from depthbench.suites.training.config import TrainConfig
from depthbench.suites.training.data import Batches, feed
from depthbench.suites.training.log import Report
from depthbench.suites.training.loss import objective
from depthbench.suites.training.state import Run
from depthbench.tst import TST
from depthbench.tst.reference import TSTSourceFast

WEIGHTS = "weights.safetensors"
BATCH_NORM_SAMPLES = 800


@dataclass(frozen=True)
class Trained:
    """A finished training: the module with its averaged weights, in evaluation mode, and what went into it.

    ``skipped``: a line for each broken image that was left out.
    """

    module: nn.Module
    samples: int
    seconds: float
    data: dict[str, str]
    skipped: list[str] = field(default_factory=list)


def train(
    config: TrainConfig,
    module: nn.Module,
    folder: Path,
    *,
    access: Mapping[str, Access] | None = None,
    name: str | None = None,
    start: str | None = None,
    parent: nn.Module | None = None,
    report: Report | None = None,
) -> Trained:
    """Train ``module`` in place, keeping checkpoint and log in ``folder``; goes on from the checkpoint that lies there.

    ``access``: how data sets, by name, are reached. ``name``: of the model. ``start``: digest of the weights that the
    module has, if it has any. ``parent``: the network it was pruned from, for a recipe that distils from it. ``report`` is
    called every ``config.log_samples``. Raises ``ValueError`` when the folder holds a training of another model, with another
    configuration, other data or another start, for a ``max_depth`` that the module cannot give, and for a module that gives no
    depth map of the image's size; ``FloatingPointError`` when loss or gradient is not finite or the loss explodes: the
    checkpoint then still holds the last good state.
    """
    if config.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {config.device}: torch sees no CUDA device here; use device cpu")
    _check_range(config, module)
    access = access or {}
    datasets = [access.get(name, USUAL).open(name, "train", config.images.get(name)) for name in config.mixture]
    data = {dataset.name: dataset.digest for dataset in datasets}
    aim = objective(config, module, parent)
    origin = {"the model": name, "the start weights": start, "the teacher": aim.teacher.digest if aim.teacher else None}
    run = Run(config, module, folder, data=data, origin={name: value for name, value in origin.items() if value})
    batches = Batches(
        datasets,
        config.mixture,
        config.augment,
        batch=config.batch,
        seed=config.seed,
        max_depth=config.max_depth,
        device=config.device,
    )
    with _threads(config.threads), _fast_convolutions(config, module):
        with feed(batches, config, run.step) as stream:
            while run.step < config.steps:
                run.advance(stream, aim, report)
        module.load_state_dict(run.average)
        renew_batch_norm(module, batches, config)
    skipped = [line for dataset in datasets for line in dataset.skipped]
    return Trained(module.eval(), run.samples, run.seconds, data, skipped)


def train_model(
    name: str,
    build: Callable[[], nn.Module],
    config: TrainConfig,
    folder: Path,
    *,
    access: Mapping[str, Access] | None = None,
    start: Path | None = None,
    encoder: Path | None = None,
    code: str = "",
    report: Report | None = None,
    command: str = "",
) -> Path:
    """Build a model by name from ``config.seed``, train it and write ``folder/weights.safetensors``; returns that path.

    ``start``: the weights file that ``build`` loads, when it loads one; ``encoder``: the published file, when it loads the
    encoder's weights alone; ``code``: digest of the file that a user's function is in. The metadata of what is written: model,
    config, samples, seconds, data (data set: digest), torch version, command, and ``skipped``, if any; ``lineage``, a list of
    the same for every stretch of training that the weights have seen, the first one first, and ``total_samples`` over all of
    them.
    """
    torch.manual_seed(config.seed)
    given = start or encoder
    digest = file_sha256(given) if given else None
    trained = train(config, build(), folder, access=access, name=f"{name} {code}".strip(), start=digest, report=report)
    stretch: dict[str, Any] = {
        "command": command,
        "start": digest,
        "config": config.model_dump(mode="json"),
        "samples": trained.samples,
        "seconds": round(trained.seconds, 1),
        "data": trained.data,
        "torch": torch.__version__,
    }
    if encoder is not None:
        stretch["encoder"] = encoder.name
    if trained.skipped:
        stretch["skipped"] = trained.skipped
    lineage = [*(stretches(start) if start else []), stretch]
    total = sum(one["samples"] for one in lineage)
    metadata = {"model": name, **stretch, "lineage": lineage, "total_samples": total}
    save_weights(folder / WEIGHTS, trained.module.state_dict(), metadata)
    return folder / WEIGHTS


def stretches(path: Path) -> list[dict[str, Any]]:
    """The stretches of training that a weights file has seen, the first one first; none when it does not say."""
    _, metadata = read_tensors(path)
    if "lineage" in metadata:
        return list(metadata["lineage"])
    return [{key: value for key, value in metadata.items() if key != "model"}] if "samples" in metadata else []


def depth_bound(module: nn.Module) -> float | None:
    """The depth in metres that a network of this package cannot exceed; None of any other module."""
    if isinstance(module, TST):
        return module.config.max_depth
    if isinstance(module, TSTSourceFast):
        return module.source.max_depth
    return module.head.max_depth if isinstance(module, FastDepth | MobileViTDepth) else None


def _check_range(config: TrainConfig, module: nn.Module) -> None:
    """``ValueError`` when more than the usual ``max_depth`` is asked for, and more than the network can give."""
    bound = depth_bound(module)
    if bound is not None and config.max_depth > max(bound, TrainConfig.model_fields["max_depth"].default):
        raise ValueError(
            f"max_depth: {config.max_depth:g} m is beyond the {bound:g} m that this network can give; build it with "
            f"max_depth={config.max_depth:g} in a function of your own and train that (package.module:function)"
        )


def renew_batch_norm(module: nn.Module, batches: Batches, config: TrainConfig) -> None:
    """Statistics of every batch norm anew, as means over training batches at the last input sizes.

    Averaged weights give smaller activations than the weights that they are the average of, so averaged statistics do not
    fit them (Izmailov et al. 2018, section 3.2). The batches are those that would follow the last step, as many as it was
    trained on at most.
    """
    first = config.steps * config.accumulate
    samples = min(BATCH_NORM_SAMPLES, config.samples)
    numbers = range(first, first - (-samples // config.batch))
    sizes = config.sizes_at(config.steps)
    measure_batch_norm(module, (batches(i, sizes)[0].to(config.device) for i in numbers))


@torch.no_grad()
def measure_batch_norm(module: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Statistics of every batch norm anew, as means over the batches ``inputs``, each (B, 3, H, W).

    The module is in eval mode then.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    for rgb in inputs:
        module(rgb)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


def _fast_convolutions(config: TrainConfig, module: nn.Module) -> AbstractContextManager[None]:
    """What torch's CPU convolutions need to be fast in this training."""
    if config.device != "cpu":
        return nullcontext()
    return rows_as_images(module) if config.precision == "fp32" else fast_in_bfloat16(module)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
