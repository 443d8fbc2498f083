"""What a recipe's steps on the network may ask of the suite: images to score on, a training loop, a predicted latency."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthbench.suites.plan import digest, library_versions
from depthbench.suites.protocols import PROTOCOLS, Prepared, resize
from depthbench.suites.source import DataSource
from depthbench.suites.storage.store import Store
from depthbench.suites.training.config import FARTHEST_M, TrainConfig, load_config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from depthbench.suites.data import DepthDataset
    from depthbench.suites.training.log import Report

IMAGES = 32
"""Images of the calibration split that networks are scored on between steps."""
SCORES = ("delta1", "rmse_m", "abs_rel")
GRADIENT_BATCH = 4
_AT_ONCE = 8


@dataclass
class StepContext:
    """The :class:`depthbench.compression.steps.Context` of one network and one recipe.

    ``parent``: the network before the first step. ``folder``: where checkpoints of trainings are kept. ``training``: fields
    that replace those of the fine-tuning's configuration, whatever the recipe says; ``config_file``: read in place of the
    one that ships. ``mixture``: the data of a training that does not name its own. ``report``: of a training, ``ticks`` of
    any other long step, called with (done, in all).
    """

    source: DataSource
    parent: nn.Module
    folder: Path
    training: Mapping[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    mixture: Mapping[str, float] | None = None
    images: int = IMAGES
    report: Report | None = None
    ticks: Callable[[int, int], None] | None = None
    _trainings: int = 0
    _prepared: dict[tuple[int, int], list[Prepared]] = field(default_factory=dict)

    def config(self, options: Mapping[str, Any]) -> TrainConfig:
        """The configuration of a fine-tuning with ``options``.

        ``max_depth`` is the network's, as far as depth is kept, if nothing says another.
        """
        from depthbench.suites.training.loop import depth_bound

        usual: dict[str, Any] = {"mixture": dict(self.mixture)} if self.mixture else {}
        config = load_config("finetune", {**usual, **options, **self.training}, self.config_file)
        bound = depth_bound(self.parent)
        if bound is None or "max_depth" in config.model_fields_set:
            return config
        return config.model_copy(update={"max_depth": min(bound, FARTHEST_M * config.augment.crop)})

    def finetune(self, module: nn.Module, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        """Train a compressed network on; the network in eval mode and a report (samples, seconds, data).

        Every training of a recipe has a folder of its own, so a recipe that is stopped goes on in the one it was in.
        """
        from depthbench.suites.training.loop import train

        self._trainings += 1
        folder = self.folder if self._trainings == 1 else self.folder / f"training-{self._trainings}"
        config = self.config(options)
        trained = train(config, module, folder, access=self.source.access, parent=self.parent, report=self.report)
        report = {"samples": trained.samples, "seconds": round(trained.seconds, 1), "data": trained.data}
        if trained.skipped:
            report["skipped"] = trained.skipped
        if config.distill:
            report["distill"] = config.distill.model_dump()
        return trained.module.cpu(), report

    def score(self, module: nn.Module, size: tuple[int, int]) -> dict[str, float]:
        """Mean delta1, rmse_m and abs_rel over the images that have ground truth, by the run's protocol."""
        import torch

        prepared = self._images(size)
        rows = []
        with torch.no_grad():
            for start in range(0, len(prepared), _AT_ONCE):
                several = prepared[start : start + _AT_ONCE]
                depth = module.eval()(torch.from_numpy(np.concatenate([image.input for image in several])))
                rows += [image.score(out.numpy()) for image, out in zip(several, depth, strict=True)]
        return {name: float(np.nanmean([row[name] for row in rows])) for name in SCORES}

    def gradients(self, module: nn.Module, size: tuple[int, int]) -> Iterator[None]:
        """Each step leaves the gradients of the training loss on four more images, not varied, in the parameters.

        In eval mode: the statistics of batch norms are part of the network that is pruned.
        """
        from depthbench.suites.training.loss import objective

        config = self.config({})
        aim = objective(config.model_copy(update={"distill": None}), module)
        module.eval()
        for rgb, depth in self._batches(size, config.max_depth):
            module.zero_grad(set_to_none=False)
            loss = aim(module(rgb), depth, rgb)
            loss.backward()  # type: ignore[no-untyped-call]
            yield

    def renew_norms(self, module: nn.Module, size: tuple[int, int]) -> None:
        """Measure the statistics of every batch norm anew, in place, on the images; no weight changes."""
        from depthbench.suites.training.loop import measure_batch_norm

        measure_batch_norm(module, (rgb for rgb, _ in self._batches(size, math.inf)))

    def latency(self, module: nn.Module, size: tuple[int, int], board: str, precision: str) -> float:
        """The latency predicted for a board, in ms, of the file that the board would be given."""
        from depthbench.suites.export import export_onnx
        from depthbench.suites.targets import BOARD_OPSET
        from depthbench.suites.targets.predicted import predict

        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(module, Path(folder) / "model.onnx", size, opset=BOARD_OPSET)
            return predict(path, board, precision).latency_ms

    def cached(self, key: Any, build: Callable[[], Any]) -> Any:
        """``build()``, kept by the digest of ``key``, of the images and how they are scored, and of the libraries."""
        identity = {
            "key": key,
            "data": [self._dataset.digest, self.source.protocol, self.images],
            "versions": library_versions(),
        }
        return Store("steps").make(digest(identity), lambda _folder: {"value": build()}).meta["value"]

    def progress(self, done: int, total: int) -> None:
        """Pass it on."""
        if self.ticks is not None:
            self.ticks(done, total)

    @cached_property
    def _dataset(self) -> DepthDataset:
        return self.source.open("calibration", self.images)

    def _images(self, size: tuple[int, int]) -> list[Prepared]:
        if size not in self._prepared:
            protocol = PROTOCOLS[self.source.protocol]
            self._prepared[size] = [protocol.prepare(self._dataset[i], size) for i in range(len(self._dataset))]
        return self._prepared[size]

    def _batches(self, size: tuple[int, int], max_depth: float) -> Iterator[tuple[Tensor, Tensor]]:
        """rgb (B, 3, H, W) and depth (B, 1, H, W) in metres, 0 = missing, at the network's size."""
        import torch
        from PIL import Image

        prepared = self._images(size)
        for start in range(0, len(prepared), GRADIENT_BATCH):
            several = prepared[start : start + GRADIENT_BATCH]
            rgb = np.concatenate([image.input for image in several])
            depth = np.stack([resize(image.depth, *size, Image.Resampling.NEAREST)[None] for image in several])
            yield torch.from_numpy(rgb), torch.from_numpy(np.where(depth > max_depth, np.float32(0), depth))
