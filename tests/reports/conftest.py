"""A synthetic run with known values: six models × six recipes × five targets, measured and predicted, with pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthbench.reports.load import Run, load_run
from depthbench.suites.results import Latency, Lineage, Record, RunFolder, write_atomic, write_json

# model: (family, params_m, gmacs at 224×224, rmse_m, ms of fp32 on the CPU)
MODELS = {
    "tst-t": ("tst", 0.62, 0.11, 0.60, 4.0),
    "tst-s": ("tst", 1.15, 0.24, 0.55, 6.0),
    "tst-b": ("tst", 2.40, 0.52, 0.50, 11.0),
    "fastdepth": ("fastdepth", 3.96, 0.737, 0.56, 12.0),
    "fastdepth-pruned": ("fastdepth", 1.36, 0.366, 0.575, 4.4),
    "mobilevit-xxs": ("mobilevit", 1.30, 0.41, 0.47, 17.0),
}
# recipe: (factor on latency, factor on RMSE, factor on size, precision on the CPU, precision on boards)
RECIPES: dict[str, tuple[float, float, float, str | None, str | None]] = {
    "fp32": (1.0, 1.0, 1.0, "fp32", None),
    "fp16": (1.0, 1.0, 0.5, None, "fp16"),
    "int8": (0.75, 1.04, 0.3, "int8", None),
    "int8-trt": (0.6, 1.05, 0.3, None, "int8-trt"),
    "prune30": (0.8, 1.03, 0.72, "fp32", "fp16"),
    "prune30-int8": (0.6, 1.08, 0.22, "int8", "int8-trt"),
}
# board: (its latency / that of the CPU, whether it runs INT8)
BOARDS = {
    "jetson-nano": (2.2, False),
    "jetson-tx2": (1.1, False),
    "jetson-xavier-nx": (0.35, True),
    "jetson-orin-nano-super": (0.18, True),
}
ENVIRONMENT = {
    "python": "3.11.7",
    "cpu": {"model": "Example CPU <x86>", "cores": 2},
    "libraries": {"onnxruntime": "1.31.0"},
}
IMAGES = 40

Edit = Callable[[Record], Record | None]


def scene(count: int = 4, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, h, w) uint8 and depths (N, h, w) metres of a corridor with a box in it; a corner is invalid."""
    y, x = np.mgrid[0:height, 0:width] / (height, width)[0]
    rgb, depth = [], []
    for i in range(count):
        far = 9.0 / (1 + 9 * np.hypot(x - 0.6 - 0.1 * i, y - 0.5))
        box = (np.abs(x - 0.3 - 0.2 * i) < 0.15) & (np.abs(y - 0.7) < 0.25)
        d = np.where(box, 1.2 + 0.2 * i, far)
        shade = 1 / (1 + 0.3 * d)
        rgb.append(np.stack([shade * 255, shade * 220 * (0.6 + 0.4 * box), shade * 190]).astype(np.uint8))
        d[:6, :6] = 0
        depth.append(d)
    return np.stack(rgb), np.stack(depth)


def write_evaluation(folder: RunFolder, digest: str, rmse: float, seed: int) -> None:
    """Per-image metrics whose mean RMSE is exactly ``rmse``, and sample pictures."""
    spread = np.random.default_rng(7).normal(0, 0.1, IMAGES)  # the same images are hard for every model
    own = np.random.default_rng(seed).normal(0, 0.01, IMAGES)
    per_image = rmse + (spread - spread.mean()) + (own - own.mean())
    metrics = {
        "rmse_m": per_image,
        "abs_rel": per_image * 0.3,
        "sq_rel": per_image * 0.2,
        "rmse_log": per_image * 0.35,
        "log10": per_image * 0.12,
        "silog": per_image * 30,
        "delta1": 1 - per_image * 0.4,
        "delta2": 1 - per_image * 0.1,
        "delta3": 1 - per_image * 0.03,
    }
    value = {
        "dataset": "rooms",
        "split": "test",
        "protocol": "native",
        "n": IMAGES,
        "images": list(range(IMAGES)),
        "metrics": {name: [float(v) for v in values] for name, values in metrics.items()},
    }
    write_json(folder.evaluation_path(digest), value)
    rgb, depth = scene()
    noise = np.random.default_rng(seed).normal(0, 0.12 * rmse, depth.shape)
    prediction = np.clip(np.where(depth > 0, depth, 3.0) * np.exp(noise), 0.1, 10)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rgb=rgb, depth=depth.astype(np.float16), prediction=prediction.astype(np.float16))
    write_atomic(folder.samples_path(digest), buffer.getvalue())


def cpu_latency(median: float, seed: int) -> Latency:
    """101 samples whose median is exactly ``median`` and whose spread is about 2 %."""
    noise = np.sort(np.random.default_rng(seed).normal(0, 0.02, 101))
    samples = median * (1 + noise - noise[50])
    return Latency("measured", samples_ms=[float(s) for s in samples], warmup_ms=[median * 2] * 10, threads=1)


def board_latency(latency: float) -> Latency:
    """A prediction with an interval of ±30 %."""
    return Latency(
        "predicted",
        latency_ms=latency,
        interval_ms=(latency * 0.7, latency * 1.3),
        interval_note="spread of published latencies around the model",
        bound="memory",
        details={"share_by_class": {"pointwise": 0.6, "depthwise": 0.3, "resize": 0.1}},
    )


def lineage(model: str, recipe: str, size: tuple[int, int], precision: str) -> list[Lineage]:
    """The chain of a file: weights, what pruning made of them, ONNX, INT8 or FP16."""
    chain = [Lineage("weights", f"{model}-weights")]
    chain += [Lineage("compressed", f"{model}-pruned")] if recipe.startswith("prune30") else []
    chain.append(Lineage("onnx", f"{model}-{recipe[:7]}-{size[0]}-onnx"))
    return chain + ([Lineage(precision, f"{model}-{recipe}-{size[0]}-{precision}")] if precision != "fp32" else [])


def synthetic_records(sizes: tuple[tuple[int, int], ...] = ((224, 224), (480, 640))) -> list[tuple[Record, float]]:
    """Every cell of the grid with its RMSE."""
    records = []
    for seed, (model, (family, params, gmacs, rmse, ms)) in enumerate(MODELS.items()):
        for recipe, (faster, worse, smaller, on_cpu, on_board) in RECIPES.items():
            for size in sizes if recipe in ("fp32", "fp16", "int8", "int8-trt") else sizes[:1]:
                area = size[0] * size[1] / 224**2
                for target in ("cpu", *BOARDS, "jetson"):
                    precision = on_cpu if target == "cpu" else on_board
                    if precision is None:
                        continue
                    speed, int8 = BOARDS.get(target, (1.0, True))
                    record = Record(
                        id=f"{model}.{recipe}.{size[0]}x{size[1]}.{target}",
                        status="ok",
                        model=model,
                        family=family,
                        recipe=recipe,
                        size=size,
                        target=target,
                        target_kind="cpu" if target == "cpu" else "board",
                        dataset="rooms",
                        protocol="native",
                        precision=precision,
                        environment=ENVIRONMENT,
                    )
                    if target == "jetson":
                        record = replace(record, status="skipped", reason="no trtexec on this machine")
                    elif target in BOARDS and not int8 and precision == "int8-trt":
                        record = replace(record, status="skipped", reason=f"{target} has no fast INT8")
                    elif (model, recipe, target) == ("fastdepth", "prune30-int8", "cpu"):
                        record = replace(record, status="failed", reason="RuntimeError: could not load <model.onnx>")
                    else:
                        slow = (model, recipe) == ("mobilevit-xxs", "int8")  # INT8 that does not pay
                        latency = ms * (1.25 if slow else faster) * speed * area**0.9
                        pruned = 0.7 if recipe.startswith("prune30") else 1.0
                        count = gmacs * area * pruned
                        record = replace(
                            record,
                            profile={
                                "params_m": params * pruned,
                                "gmacs": {"onnx": count, "fvcore": count * 1.001, "ptflops": count * 0.999},
                                "params_applied_m": params * pruned * 3,
                                "gmacs_disagreement": {"relative": 0.002, "verdict": "agree", "explained": {}},
                                "size_mb": params * 4 * smaller,
                                "nodes": {"Conv": 50, "Relu": 30},
                                "quantized_nodes": 45 if "int8" in precision else 0,
                                "peak_activation_mb": 3.2 * area,
                            },
                            lineage=lineage(model, recipe, size, precision),
                            latency=cpu_latency(latency, seed) if target == "cpu" else board_latency(latency),
                            evaluation=f"{model}-{recipe}-{size[0]}-{precision}",
                        )
                    records.append((record, rmse * worse * (0.97 if size[0] > 224 else 1.0)))
    return records


def write_run(root: Path, edit: Edit = lambda record: record, sizes: Any = ((224, 224),)) -> Path:
    """Write a run folder. ``edit`` changes a record, or drops it with None; ``sizes`` are the input sizes."""
    folder = RunFolder(root)
    kept = [(new, rmse) for record, rmse in synthetic_records(sizes) if (new := edit(record)) is not None]
    manifest = {
        "schema_version": 1,
        "suite": {"name": "jetson", "measure": {"profile": "quick"}},
        "cells": [record.id for record, _ in kept],
        "environment": ENVIRONMENT,
        "dataset": {"name": "rooms", "split": "test", "n": IMAGES, "protocol": "native", "digest": "0" * 16},
        "libraries": {"onnxruntime": "1.31.0"},
        "started": "2026-01-02T03:04:05+00:00",
    }
    write_json(folder.manifest, manifest)
    done: set[str] = set()
    for seed, (record, rmse) in enumerate(kept):
        folder.write_record(record)
        if record.evaluation and record.evaluation not in done:
            done.add(record.evaluation)
            write_evaluation(folder, record.evaluation, rmse, seed)
    return root


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run of one's own into a temporary folder: ``make_run(edit, name="run", sizes=...)``."""
    return lambda edit=lambda record: record, name="run", **options: write_run(tmp_path / name, edit, **options)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole run at one input size, to be read only."""
    return write_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="session")
def run(whole_run: Path) -> Run:
    """The whole run as loaded."""
    return load_run(whole_run)


@pytest.fixture(scope="session")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole run at two input sizes, as loaded."""
    return load_run(write_run(tmp_path_factory.mktemp("sizes") / "run", sizes=((224, 224), (480, 640))))
