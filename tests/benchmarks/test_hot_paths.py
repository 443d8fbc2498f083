"""The hot paths, timed by pytest-benchmark: ``nox -s benchmark`` stores the times, ``depthbench gate --pytest-benchmark
A.json B.json`` compares two such files. In the ordinary tests each runs once, as a check that it works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from depthbench.reports.load import load_run
from depthbench.suites.data import open_dataset
from depthbench.suites.data.rooms import render
from depthbench.suites.evaluate import open_session
from depthbench.suites.export import export_onnx
from depthbench.suites.metrics import image_metrics
from depthbench.suites.models import MODELS
from depthbench.suites.plan import Data, make_plan
from depthbench.suites.results import Latency, Record, RunFolder, write_json
from depthbench.suites.schema import load_suite
from depthbench.suites.training.config import load_config
from depthbench.suites.training.data import Batches
from depthbench.suites.training.loss import objective

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SIZE = (224, 224)
RECORDS = 1000
DEPLOYED = ("tst-t", "tst-s", "tst-b", "fastdepth", "fastdepth-pruned", "mobilevit-xxs")


def test_control(benchmark: BenchmarkFixture) -> None:
    """What the product cannot change: how far it moves between two files is how far the machine did."""
    benchmark.extra_info["control"] = True
    values = np.random.default_rng(0).random((400, 400), dtype=np.float32)
    result = benchmark(lambda: np.sort(values @ values, axis=1))
    assert result.shape == (400, 400)


@pytest.mark.parametrize("model", DEPLOYED)
def test_session(benchmark: BenchmarkFixture, model: str, tmp_path: Path) -> None:
    """One inference of a deployed network, one thread."""
    torch.manual_seed(0)
    session = open_session(export_onnx(MODELS[model].build(), tmp_path / "model.onnx", SIZE))
    feed = {"rgb": np.random.default_rng(0).random((1, 3, *SIZE), dtype=np.float32)}
    [depth] = benchmark(session.run, None, feed)
    assert depth.shape == (1, 1, *SIZE)


def test_rendering(benchmark: BenchmarkFixture) -> None:
    """Eight rendered images."""
    torch.set_num_threads(1)
    rgb, depth = benchmark.pedantic(
        render, args=(0, "test", range(8)), kwargs={"height": 240, "width": 320}, rounds=10, warmup_rounds=1
    )
    assert rgb.shape[0] == depth.shape[0] == 8


def test_batch(benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight training images out of the cache, cropped, resized and varied: to stay far below :func:`test_step`."""
    torch.set_num_threads(1)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).save(tmp_path / "train" / f"{i}.jpg")
        Image.fromarray(rng.integers(500, 9000, (480, 640)).astype(np.uint16)).save(tmp_path / "train" / f"{i}.png")
    config = load_config("train", {"mixture": {"folder": 1.0}})
    dataset = open_dataset("folder", "train", root=tmp_path)
    batches = Batches([dataset], {"folder": 1.0}, config.augment, batch=8, seed=0)
    rgb, _ = benchmark.pedantic(batches, args=(0, [SIZE]), rounds=10, warmup_rounds=1)
    assert rgb.shape == (8, 3, *SIZE)


def test_step(benchmark: BenchmarkFixture) -> None:
    """Loss and gradients of the smallest network on eight images: what a batch has to keep up with."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = MODELS["tst-t"].build().train()
    config = load_config("train")
    aim, rgb, depth = objective(config, module), torch.rand(8, 3, *SIZE), 1 + torch.rand(8, 1, *SIZE)

    def step() -> float:
        loss = aim(module(rgb), depth, rgb)
        loss.backward()
        return float(loss.detach())

    assert benchmark.pedantic(step, rounds=10, warmup_rounds=1) > 0


def test_metrics(benchmark: BenchmarkFixture) -> None:
    """All metrics of one image of 480x640."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 10, (480, 640)).astype(np.float32)
    scores = benchmark(image_metrics, truth * 1.1, truth)
    assert scores["abs_rel"] == pytest.approx(0.1, rel=1e-3)


def test_planning(benchmark: BenchmarkFixture) -> None:
    """The cells of the largest catalogue suite."""
    suite, base = load_suite("jetson")
    data = Data("rooms", "test", 256, "native", "0" * 20)
    jobs = benchmark(make_plan, suite, data, base=base)
    assert jobs


def test_loading_records(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A run of a thousand records as a table."""
    run = write_records(tmp_path / "run")
    loaded = benchmark.pedantic(load_run, args=(run,), rounds=10, warmup_rounds=1)
    assert len(loaded.cells) == RECORDS


def write_records(root: Path) -> Path:
    """A run folder with measured records of 100 samples each."""
    folder = RunFolder(root)
    names = [f"cell-{i:04d}" for i in range(RECORDS)]
    manifest: dict[str, Any] = {"schema_version": 1, "suite": {"name": "big"}, "cells": names}
    write_json(folder.manifest, manifest)
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        samples = (10 + rng.normal(0, 0.1, 100)).tolist()
        record = Record(
            id=name,
            status="ok",
            model=f"model-{i}",
            family="user",
            recipe="fp32",
            size=SIZE,
            target="desktop-cpu",
            target_kind="cpu",
            dataset="rooms",
            protocol="native",
            precision="fp32",
            profile={
                "params_m": 1.0,
                "gmacs": {"onnx": 0.1},
                "size_mb": 4.0,
                "nodes": {"Conv": 3},
                "quantized_nodes": 0,
            },
            latency=Latency("measured", samples_ms=samples, threads=1),
        )
        (folder.root / "records").mkdir(exist_ok=True)
        folder.record_path(name).write_text(json.dumps(record.to_json()))
    return root
