"""Is pruning exact, and does it choose well? Real networks, real images, before any fine-tuning.

    python tests/benchmarks/pruning.py tst-s fastdepth mobilevit-xxs --data nyu-labeled --images 48 --out pruning.json

For every model and each of the ratios .3, .5, .7: the MACs removed (within 3 points of the ratio?), layers whose channels are
no multiple of 8, and how far the exported file is from the network in PyTorch (within 1e-4 m?). At .5 and .7: the RMSE per
image of pruning by l2 and by Taylor, minus that of random pruning (mean over seeds), with a paired bootstrap 95 % interval
over test images; batch norms are measured anew on calibration images for all of them. Exit code 1 when one of the bounds does
not hold, or neither l2 nor Taylor beats random. No test; pytest does not collect it. Some minutes a model on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from depthbench.compression.options import prune_options
from depthbench.compression.prune import prune
from depthbench.reports.stats import paired_difference
from depthbench.suites.data import dataset_info, open_dataset
from depthbench.suites.evaluate import evaluate_many
from depthbench.suites.export import export_onnx
from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.source import DataSource
from depthbench.suites.step_context import StepContext

RATIOS = (0.3, 0.5, 0.7)
COMPARED = (0.5, 0.7)
SIZE = (224, 224)
MACS_WITHIN = 0.03
EXPORT_WITHIN = 1e-4


@dataclass(frozen=True)
class Exactness:
    """One pruned network: ratio asked and achieved, channels off the grid of 8, and |file - network| at most, in metres."""

    model: str
    ratio: float
    achieved: float
    round_to: int
    off_grid: dict[str, int]
    export_m: float

    @property
    def holds(self) -> bool:
        return abs(self.achieved - self.ratio) <= MACS_WITHIN and self.export_m <= EXPORT_WITHIN


@dataclass(frozen=True)
class Comparison:
    """RMSE per image in metres by ``importance``, by random pruning, and their paired difference with its 95 % interval."""

    model: str
    ratio: float
    importance: str
    rmse_m: float
    random_rmse_m: float
    difference_m: float
    low_m: float
    high_m: float
    images: int

    @property
    def better(self) -> bool:
        return self.high_m < 0


def export_error(module: nn.Module, path: Path, size: tuple[int, int]) -> float:
    """The largest difference in metres between a network and its file, on noise with edges."""
    torch.manual_seed(0)
    rgb = torch.nn.functional.interpolate(torch.rand(1, 3, 28, 28), size)
    with torch.no_grad():
        eager = module.eval()(rgb).numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return float(np.abs(session.run(None, {"rgb": rgb.numpy()})[0] - eager).max())


def study(
    model: str,
    source: DataSource,
    images: int,
    folder: Path,
    *,
    seeds: Sequence[int] = range(3),
    ratios: Sequence[float] = RATIOS,
    compared: Sequence[float] = COMPARED,
    size: tuple[int, int] = SIZE,
) -> Iterator[Exactness | Comparison]:
    """All results of one model at one input size, each as soon as it is there."""
    module = build_model(resolve_model(model))
    context = StepContext(source, module, folder)

    def pruned(ratio: float, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
        return prune(module, prune_options({"macs_ratio": ratio, "round_to": 8, "size": size, **options}), context)

    for ratio in ratios:
        child, report = pruned(ratio)
        files = {"l2": export_onnx(child, folder / f"{model}-{ratio}-l2.onnx", size)}
        error = export_error(child, files["l2"], size)
        achieved, off_grid = report["macs_ratio_achieved"], report.get("off_grid", {})
        yield Exactness(model, ratio, achieved, report["round_to"], off_grid, error)
        if ratio not in compared:
            continue
        for importance, seed in [("taylor", 0), *(("random", seed) for seed in seeds)]:
            child, _ = pruned(ratio, importance=importance, seed=seed)
            name = f"{importance}-{seed}"
            files[name] = export_onnx(child, folder / f"{model}-{ratio}-{name}.onnx", size)
        data = open_dataset(source.name, "test", limit=images)
        results = evaluate_many([(path, size) for path in files.values()], data, source.protocol, samples=1)
        rmse = {name: np.array(one.metrics["rmse_m"]) for name, one in zip(files, results, strict=True)}
        random = np.mean([rmse[f"random-{seed}"] for seed in seeds], axis=0)  # (images,)
        for importance, name in (("l2", "l2"), ("taylor", "taylor-0")):
            mean, (low, high), count = paired_difference(rmse[name], random)
            means = float(np.nanmean(rmse[name])), float(np.nanmean(random))
            yield Comparison(model, ratio, importance, *means, mean, low, high, count)


def line(result: Exactness | Comparison) -> str:
    """A result in one line."""
    if isinstance(result, Exactness):
        off = f", off the grid: {result.off_grid}" if result.off_grid else ", all multiples of 8"
        return (
            f"{result.model} {result.ratio}: {result.achieved:.3f} of the MACs removed{off}, "
            f"file within {result.export_m:.1e} m"
        )
    return (
        f"{result.model} {result.ratio} {result.importance}: RMSE {result.rmse_m:.3f} m, random {result.random_rmse_m:.3f}; "
        f"difference {result.difference_m:+.3f} [{result.low_m:+.3f}, {result.high_m:+.3f}] over {result.images} images"
    )


def main() -> int:
    """Run the study; 0 when every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", default="nyu-labeled")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3, help="random prunings, averaged per image")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source = DataSource(asked.data, dataset_info(asked.data).protocol)
    results: list[Exactness | Comparison] = []
    with TemporaryDirectory() as folder:
        for model in asked.models:
            for result in study(model, source, asked.images, Path(folder), seeds=range(asked.seeds)):
                print(line(result), flush=True)
                results.append(result)
    if asked.out:
        asked.out.write_text(json.dumps([asdict(result) for result in results], indent=2))
    exact = all(result.holds for result in results if isinstance(result, Exactness))
    compared = [result for result in results if isinstance(result, Comparison)]
    pairs = {(one.model, one.ratio) for one in compared}
    chosen = all(any(one.better for one in compared if (one.model, one.ratio) == pair) for pair in pairs)
    return 0 if exact and chosen else 1


if __name__ == "__main__":
    sys.exit(main())
