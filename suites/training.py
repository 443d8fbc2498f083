"""Training: one loop for every model and for the fine-tuning of its pruned children.

The state after a step is a function of (configuration, data, module, number of steps): a training that is killed and
started again continues from its last checkpoint and, on the CPU, ends with the same bits.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthbench.suites.checkpoint import optimizer_tensors, read_tensors, restore_optimizer, save_weights, write_tensors
from depthbench.suites.data import open_dataset
from depthbench.suites.results import write_atomic
from depthbench.suites.training_config import TrainConfig, load_config
from depthbench.suites.training_data import Batches
from depthbench.tst import TST
from depthbench.tst.losses import DepthLoss

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
WEIGHTS = "weights.safetensors"
BATCH_NORM_SAMPLES = 800
_SAME_RESULT = {"checkpoint_samples", "log_samples"}


@dataclass(frozen=True)
class Status:
    """Where a training stands; one line of its log."""

    samples: int
    total: int
    loss: float
    lr: float
    gradient_norm: float
    size: str
    images_per_s: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """A finished training: the module with its averaged weights, in evaluation mode, and what went into it."""

    module: nn.Module
    samples: int
    seconds: float
    data: dict[str, str]


Report = Callable[[Status], None]


def train(
    config: TrainConfig,
    module: nn.Module,
    folder: Path,
    *,
    roots: Mapping[str, Path] | None = None,
    report: Report | None = None,
) -> Trained:
    """Train ``module`` in place, keeping checkpoint and log in ``folder``; goes on from the checkpoint that lies there.

    ``roots``: data set: its folder, in place of ``$DEPTHBENCH_DATA``. ``report`` is called every ``config.log_samples``.
    Raises ``ValueError`` when the folder holds a training with another configuration or other data, and ``FloatingPointError``
    when loss or gradient is not finite; the checkpoint then still holds the last good state.
    """
    roots = roots or {}
    datasets = [
        open_dataset(name, "train", root=roots.get(name), limit=config.images.get(name)) for name in config.mixture
    ]
    data = {dataset.name: dataset.digest for dataset in datasets}
    batches = Batches(
        datasets,
        config.mixture,
        config.augment,
        batch=config.batch,
        seed=config.seed,
        max_depth=config.max_depth,
    )
    run = _Run(config, module, folder, data)
    loss_of = loss_for(config, module)
    with _threads(config.threads):
        while run.step < config.steps:
            run.advance(batches, loss_of, report)
        module.load_state_dict(run.average)
        renew_batch_norm(module, batches, config, run.step)
    return Trained(module.eval(), run.step * config.batch, run.seconds, data)


def finetune(
    module: nn.Module,
    overrides: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    roots: Mapping[str, Path] | None = None,
    report: Report | None = None,
) -> nn.Module:
    """Train a pruned module on by the ``finetune`` section of the recipe; without ``folder`` nothing is kept on disk."""
    config = load_config("finetune", overrides)
    if folder is not None:
        return train(config, module, folder, roots=roots, report=report).module
    with tempfile.TemporaryDirectory() as name:
        return train(config, module, Path(name), roots=roots, report=report).module


def train_model(
    name: str,
    build: Callable[[], nn.Module],
    config: TrainConfig,
    folder: Path,
    *,
    roots: Mapping[str, Path] | None = None,
    report: Report | None = None,
    command: str = "",
) -> Path:
    """Build a model by name from ``config.seed``, train it and write ``folder/weights.safetensors``; returns that path.

    The file's metadata: model, config, samples, seconds, data (data set: digest), torch version, command.
    """
    torch.manual_seed(config.seed)
    trained = train(config, build(), folder, roots=roots, report=report)
    metadata = {
        "model": name,
        "config": config.model_dump(mode="json"),
        "samples": trained.samples,
        "seconds": round(trained.seconds, 1),
        "data": trained.data,
        "torch": torch.__version__,
        "command": command,
    }
    save_weights(folder / WEIGHTS, trained.module.state_dict(), metadata)
    return folder / WEIGHTS


def loss_for(config: TrainConfig, module: nn.Module) -> DepthLoss:
    """The training loss of ``config``; without the edge-aware term for a TST whose ablation flag ``edge_loss`` is off."""
    loss = DepthLoss(**config.loss.model_dump())
    off = isinstance(module, TST) and not module.config.edge_loss
    return replace(loss, edge=0.0) if off else loss


@torch.no_grad()
def renew_batch_norm(module: nn.Module, batches: Batches, config: TrainConfig, step: int) -> None:
    """Statistics of every batch norm anew, as means over training batches at the last input sizes.

    Averaged weights give smaller activations than the weights that they are the average of, so averaged statistics do not
    fit them (Izmailov et al. 2018, section 3.2). ``step``: the batches follow this one.
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
    for i in range(step, step - (-BATCH_NORM_SAMPLES // config.batch)):
        module(batches(i, config.sizes_at(config.steps))[0].to(config.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _Run:
    """The state of a training: module, optimizer, average, step, and where they are kept."""

    def __init__(self, config: TrainConfig, module: nn.Module, folder: Path, data: dict[str, str]) -> None:
        self.config, self.folder, self.data = config, folder, data
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        # torch's stubs do not know this overload of nn.Module.to
        self.module: nn.Module = module.to(device=config.device, memory_format=layout).train()  # type: ignore[call-overload]
        self.forward = torch.compile(self.module, dynamic=False) if config.compile else self.module
        parameters = list(self.module.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
        self.average = {key: value.detach().clone() for key, value in self.module.state_dict().items()}
        self.step, self.seconds, self.last_seconds, self.last_step = 0, 0.0, 0.0, 0
        if (folder / CHECKPOINT).is_file():
            self._resume()
        self._trim_log()

    def advance(self, batches: Batches, loss_of: Callable[..., Tensor], report: Report | None) -> None:
        """One optimizer step, then log and checkpoint when their turn has come."""
        started = time.perf_counter()
        config = self.config
        rgb, depth = batches(self.step, config.sizes_at(self.step))
        rgb, depth = rgb.to(config.device), depth.to(config.device)
        if config.channels_last:
            rgb = rgb.contiguous(memory_format=torch.channels_last)
        torch.manual_seed((config.seed << 32) + self.step)  # dropout and the like
        lr = self._lr()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.precision == "bf16"):
            prediction = self.forward(rgb)
        loss = loss_of(prediction.float(), depth, rgb)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), config.clip))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            kept = (
                f"{self.folder / CHECKPOINT} keeps the last good state"
                if self._has_checkpoint()
                else "nothing was kept"
            )
            raise FloatingPointError(
                f"training diverged at sample {self.step * config.batch}: loss {value}, gradient norm {norm}; {kept}"
            )
        self.optimizer.step()
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - started
        if self._due(config.log_samples):
            self._log(Status(**self._status(value, lr, norm, rgb.shape[2:])), report)
        if self._due(config.checkpoint_samples):
            self._save()

    def _lr(self) -> float:
        done, warmup = self.step / self.config.steps, self.config.warmup
        if done < warmup:
            return self.config.lr * (self.step + 1) / (warmup * self.config.steps + 1)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))

    def _due(self, samples: int) -> bool:
        batch = self.config.batch
        return self.step == self.config.steps or self.step * batch // samples > (self.step - 1) * batch // samples

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def _status(self, loss: float, lr: float, norm: float, size: torch.Size) -> dict[str, Any]:
        rate = (self.step - self.last_step) * self.config.batch / (self.seconds - self.last_seconds)
        self.last_step, self.last_seconds = self.step, self.seconds
        return {
            "samples": self.step * self.config.batch,
            "total": self.config.steps * self.config.batch,
            "loss": loss,
            "lr": lr,
            "gradient_norm": norm,
            "size": f"{size[0]}x{size[1]}",
            "images_per_s": round(rate, 2),
            "seconds": round(self.seconds, 2),
        }

    def _log(self, status: Status, report: Report | None) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(status.__dict__) + "\n")
        if report is not None:
            report(status)

    def _trim_log(self) -> None:
        """Drop what was logged after the checkpoint, a torn last line included."""
        path = self.folder / LOG
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
        done = self.step * self.config.batch
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["samples"] <= done]
        write_atomic(path, "".join(kept).encode())

    def _has_checkpoint(self) -> bool:
        return (self.folder / CHECKPOINT).is_file()

    def _save(self) -> None:
        tensors = {f"module.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.items()}
        tensors |= optimizer_tensors(self.optimizer)
        metadata = {
            "step": self.step,
            "seconds": self.seconds,
            "data": self.data,
            "config": self.config.model_dump(mode="json"),
        }
        write_tensors(self.folder / CHECKPOINT, tensors, metadata)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        tensors, metadata = read_tensors(path)
        mine = self.config.model_dump(mode="json", exclude=_SAME_RESULT)
        other = [key for key in mine if metadata["config"].get(key) != mine[key]]
        if metadata["data"] != self.data:
            other.append("the data's content")
        if other:
            raise ValueError(f"{path}: a training that differs in {', '.join(other)}: use another folder or delete it")
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "average": {}}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            if part in parts:
                parts[part][key] = value
        self.module.load_state_dict(parts["module"])
        for key, value in self.average.items():
            value.copy_(parts["average"][key])
        restore_optimizer(self.optimizer, tensors)
        self.step = self.last_step = metadata["step"]
        self.seconds = self.last_seconds = metadata["seconds"]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """A progress bar on standard error with loss, images per second and the time left; gives the ``report`` to pass on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} samples"),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, numbers="")

        def report(status: Status) -> None:
            numbers = f"loss {status.loss:.4f}  {status.images_per_s:.1f} images/s at {status.size}"
            bar.update(task, completed=status.samples, total=status.total, numbers=numbers)

        yield report
