"""The state of a training, one step of it, and how it is kept on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from depthbench.suites.checkpoint import optimizer_tensors, read_tensors, restore_optimizer, write_tensors
from depthbench.suites.training.config import SAME_RESULT, TrainConfig
from depthbench.suites.training.log import Report, Status, append, trim
from depthbench.suites.training.loss import Objective

CHECKPOINT = "checkpoint.safetensors"
_DIFFERS, _ELSEWHERE = "a training that differs in", "use another folder or delete it"

Batch = tuple[Tensor, Tensor]
"""rgb (B, 3, H, W) in [0, 1] and depth (B, 1, H, W) in metres, 0 = missing."""


@dataclass
class Watch:
    """The running mean of the loss over about 50 steps, and the lowest that it has been."""

    steps: int = 0
    mean: float = 0.0
    lowest: float = math.inf

    def add(self, loss: float) -> None:
        """One more step; the first 20 make no lowest mean, one batch without ground truth would be it for good."""
        self.steps += 1
        self.mean += (loss - self.mean) * max(1 / self.steps, 0.02)
        if self.steps >= 20:
            self.lowest = min(self.lowest, self.mean)

    def above(self, factor: float) -> bool:
        """Whether the mean is more than ``factor`` times the lowest."""
        return self.mean > factor * self.lowest


class Run:
    """Module, optimizer, average of the weights and step of a training; goes on from the checkpoint in ``folder``.

    ``data``: data set: digest. ``origin``: what else the result is a function of (model, start weights, teacher).
    """

    def __init__(
        self,
        config: TrainConfig,
        module: nn.Module,
        folder: Path,
        *,
        data: dict[str, str],
        origin: dict[str, str],
    ) -> None:
        self.config, self.folder, self.data, self.origin = config, folder, data, origin
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        # torch's stubs do not know this overload of nn.Module.to
        self.module: nn.Module = module.to(device=config.device, memory_format=layout).train()  # type: ignore[call-overload]
        self.forward = torch.compile(self.module, dynamic=False) if config.compile else self.module
        self.optimizer = torch.optim.AdamW(_groups(config, self.module), lr=config.lr, fused=True)
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        self.average = {key: value.detach().clone() for key, value in self.module.state_dict().items()}
        self.step, self.seconds, self.last_seconds, self.last_step = 0, 0.0, 0.0, 0
        self.watch = Watch()
        self.held_back = False  # whether the last checkpoint that was due was not written
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).is_file():
            self._resume()
        trim(folder, self.samples)

    @property
    def samples(self) -> int:
        """Samples seen so far."""
        return self.step * self.config.step_samples

    def advance(self, batches: Iterator[Batch], objective: Objective, report: Report | None) -> None:
        """One step of the optimizer, then log and checkpoint when their turn has come."""
        started = time.perf_counter()
        config = self.config
        lr = self._lr()
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        value = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(config.accumulate):
            rgb, depth = next(batches)
            torch.manual_seed((config.seed << 32) + self.step * config.accumulate + part)  # dropout and the like
            loss = self._loss(rgb, depth, objective) / config.accumulate
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), config.clip))
        self._check(value, norm)
        self.scaler.step(self.optimizer)  # without a scaler: the optimizer's own step
        self.scaler.update()
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - started
        save = self._due(config.checkpoint_samples)
        if save:
            # A mean loss that is rising may be the start of a divergence: what is kept stays from before it.
            self.held_back = self.watch.above(math.sqrt(config.explosion)) and self.step < config.steps
        if self._due(config.log_samples):
            self._log(value, lr, norm, rgb.shape[2:], report)
        if save and not self.held_back:
            self._save()

    def _loss(self, rgb: Tensor, depth: Tensor, objective: Objective) -> Tensor:
        config = self.config
        rgb, depth = rgb.to(config.device, non_blocking=True), depth.to(config.device, non_blocking=True)
        if config.channels_last:
            rgb = rgb.contiguous(memory_format=torch.channels_last)
        kind = torch.float16 if config.precision == "fp16" else torch.bfloat16
        with torch.autocast(torch.device(config.device).type, kind, enabled=config.precision != "fp32"):
            prediction = self.forward(rgb)
        made = tuple(prediction.shape) if isinstance(prediction, Tensor) else f"a {type(prediction).__name__}"
        if made != depth.shape:
            given, wanted = tuple(rgb.shape), tuple(depth.shape)
            raise ValueError(f"the network gives {made} for images {given}; expected depth {wanted}")
        return objective(prediction.float(), depth, rgb)

    def _check(self, loss: float, norm: float) -> None:
        """``FloatingPointError`` when the training has diverged: a loss or gradient that is not finite, or an exploded loss."""
        # A gradient that overflows in float16 is no divergence: the scaler leaves the step out and scales less.
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        self.watch.add(loss)
        fault = None
        if not math.isfinite(loss) or not (math.isfinite(norm) or overflow):
            fault = f"loss {loss}, gradient norm {norm}"
        elif self.watch.above(self.config.explosion):
            fault = (
                f"the mean loss rose to {self.watch.mean:.4g}, more than {self.config.explosion:g} times "
                f"its lowest ({self.watch.lowest:.4g})"
            )
        if fault is not None:
            path = self.folder / CHECKPOINT
            kept = f"{path} keeps the last good state" if path.is_file() else "nothing was kept"
            raise FloatingPointError(f"training diverged at sample {self.samples}: {fault}; {kept}")

    def _lr(self) -> float:
        done, warmup = self.step / self.config.steps, self.config.warmup
        if done < warmup:
            return self.config.lr * (self.step + 1) / (warmup * self.config.steps + 1)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))

    def _due(self, samples: int) -> bool:
        before = self.samples - self.config.step_samples
        return self.step == self.config.steps or self.samples // samples > before // samples

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def _log(self, loss: float, lr: float, norm: float, size: torch.Size, report: Report | None) -> None:
        rate = (self.step - self.last_step) * self.config.step_samples / (self.seconds - self.last_seconds)
        self.last_step, self.last_seconds = self.step, self.seconds
        status = Status(
            samples=self.samples,
            total=self.config.steps * self.config.step_samples,
            loss=loss,
            lr=lr,
            gradient_norm=norm,
            size=f"{size[0]}x{size[1]}",
            images_per_s=round(rate, 2),
            seconds=round(self.seconds, 2),
            held_back=self.held_back,
        )
        append(self.folder, status)
        if report is not None:
            report(status)

    def _save(self) -> None:
        tensors = {f"module.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.items()}
        tensors |= optimizer_tensors(self.optimizer)
        watch = self.watch
        metadata = {
            "step": self.step,
            "seconds": self.seconds,
            "data": self.data,
            "origin": self.origin,
            "config": self.config.model_dump(mode="json"),
            "watch": [watch.steps, watch.mean, watch.lowest if math.isfinite(watch.lowest) else None],
            "scaler": self.scaler.state_dict(),
        }
        write_tensors(self.folder / CHECKPOINT, tensors, metadata)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        tensors, metadata = read_tensors(path)
        if not {"config", "data", "step", "seconds"} <= metadata.keys() or not isinstance(metadata["step"], int):
            raise ValueError(f"{path}: not a checkpoint of a training: {_ELSEWHERE}")
        _refuse_another(path, metadata, self)
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "average": {}}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            if part in parts:
                parts[part][key] = value
        mine = self.module.state_dict()
        if {name: value.shape for name, value in mine.items()} != {k: v.shape for k, v in parts["module"].items()}:
            raise ValueError(f"{path}: {_DIFFERS} the model: {_ELSEWHERE}")
        trained = not metadata["step"] or any(name.startswith("optimizer.") for name in tensors)
        if parts["average"].keys() != self.average.keys() or not trained:
            raise ValueError(f"{path}: not a whole checkpoint of a training: {_ELSEWHERE}")
        self.module.load_state_dict(parts["module"])
        for key, value in self.average.items():
            value.copy_(parts["average"][key])
        restore_optimizer(self.optimizer, tensors)
        self.step = self.last_step = metadata["step"]
        self.seconds = self.last_seconds = metadata["seconds"]
        steps, mean, lowest = metadata.get("watch", (0, 0.0, None))  # absent in checkpoints of the first version
        self.watch = Watch(steps, mean, math.inf if lowest is None else lowest)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(metadata["scaler"])


def _groups(config: TrainConfig, module: nn.Module) -> list[dict[str, Any]]:
    """Parameters by weight decay and by ``scale``, their learning rate in units of ``lr``; no group is empty."""
    kinds = (nn.Linear, nn.LayerNorm)
    slow = {id(p) for part in module.modules() if isinstance(part, kinds) for p in part.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        own = config.transformer_lr != 1 and id(parameter) in slow
        groups.setdefault((own, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if matrix else 0.0,
            "scale": config.transformer_lr if own else 1.0,
        }
        for (own, matrix), parameters in groups.items()
    ]


def _refuse_another(path: Path, metadata: dict[str, Any], run: Run) -> None:
    """``ValueError`` when the checkpoint's training has another configuration, other data or another origin."""
    mine = run.config.model_dump(mode="json", exclude=SAME_RESULT)
    try:  # keys that are newer than the checkpoint have their defaults
        theirs = TrainConfig.model_validate(metadata["config"]).model_dump(mode="json")
    except ValidationError:
        raise ValueError(f"{path}: written by another version of depthbench: {_ELSEWHERE}") from None
    other = [key for key in mine if theirs[key] != mine[key]]
    if metadata["data"] != run.data:
        other.append("the data's content")
    older = {"the model": run.origin.get("the model")}  # an older checkpoint names no model
    origin = {**older, **metadata.get("origin", run.origin)}
    other += [name for name in sorted({*origin, *run.origin}) if origin.get(name) != run.origin.get(name)]
    if other:
        raise ValueError(f"{path}: {_DIFFERS} {', '.join(other)}: {_ELSEWHERE}")
