"""The shipped weights: complete, of one budget, their children really pruned and really theirs."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime import GraphOptimizationLevel

from depthbench.compression.executed import quiet
from depthbench.compression.graph import initial_values, node_histogram, optimized, read_model
from depthbench.compression.half import to_fp16
from depthbench.compression.prune_costs import count_macs
from depthbench.compression.quantize import quantize_int8, quantize_int8_trt
from depthbench.compression.recipes import RECIPES
from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.compressing import network, train_child
from depthbench.suites.data.rooms import render
from depthbench.suites.export import export_onnx
from depthbench.suites.models import WEIGHTS, build_model, file_sha256, resolve_model, weights_path
from depthbench.suites.plan import recipe_identity, shipped_child
from depthbench.suites.source import DataSource
from depthbench.suites.training.config import SAME_RESULT, TrainConfig
from depthbench.tst.layers import TransformerBlock

SHIPPED = ("tst-t", "tst-s", "tst-b", "fastdepth", "fastdepth-pruned", "mobilevit-xxs", "mobilevit-xs")
SOURCE = DataSource("rooms", "native")


def test_what_is_shipped() -> None:
    names = {path.name for path in WEIGHTS.glob("*.safetensors")}
    assert names == {f"{m}.safetensors" for m in SHIPPED} | {f"{m}--prune30.safetensors" for m in SHIPPED}
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 46e6


def test_every_file_has_its_card() -> None:
    for path in WEIGHTS.glob("*.safetensors"):
        card = (WEIGHTS / "cards" / f"{path.stem.partition('--')[0]}.md").read_text("utf-8")
        assert f"`{path.name}`" in card
        assert file_sha256(path) in card, f"{path.name} is not the file that its card is of"
        assert "`nyu-fastdepth`" in card


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """A training's configuration; a field that it is older than stands for what was done without it."""
    return TrainConfig.model_validate(config).model_dump(exclude=SAME_RESULT)


def budget(lineage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each stretch of a training saw, and in which order."""
    fields = ("samples", "stages", "mixture", "images", "seed", "batch", "accumulate")
    found = []
    for stretch in lineage:
        config = settings(stretch["config"])
        assert stretch["samples"] == config["samples"]
        found.append({field: config[field] for field in fields} | {"data": stretch["data"]})
    return found


def test_one_recipe_and_one_budget() -> None:
    """Every stretch of every network on the same samples; the last one, which ends it, alike in everything."""
    metadata = {model: read_tensors(weights_path(model))[1] for model in SHIPPED}
    budgets = {model: budget(one["lineage"]) for model, one in metadata.items()}
    for model, one in metadata.items():
        lineage = one["lineage"]
        assert budgets[model] == budgets[SHIPPED[0]], model
        assert one["total_samples"] == sum(stretch["samples"] for stretch in lineage)
        assert one["total_samples"] == metadata[SHIPPED[0]]["total_samples"]
        assert (one["config"], one["data"], one["samples"]) == tuple(
            lineage[-1][k] for k in ("config", "data", "samples")
        )
        assert settings(one["config"]) == settings(metadata[SHIPPED[0]]["config"]), model
        assert lineage[0]["start"] is None  # from random values
        assert all(stretch["start"] for stretch in lineage[1:])
        assert all(stretch["command"].startswith(f"depthbench train {model} ") for stretch in lineage)


def test_one_recipe_for_the_children() -> None:
    metadata = {model: read_tensors(weights_path(model, "prune30"))[1] for model in SHIPPED}
    first = metadata[SHIPPED[0]]
    for model, one in metadata.items():
        assert settings(one["config"]) == settings(first["config"]), model
        finetune, expected = one["reports"][-1], first["reports"][-1]
        assert (finetune["step"], finetune["samples"]) == ("finetune", one["config"]["samples"])
        assert finetune["data"] == expected["data"]
        assert one["command"].startswith(f"depthbench train {model} --recipe prune30 ")


def test_a_shipped_file_that_changes_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthbench.suites.models.WEIGHTS", tmp_path)
    assert resolve_model("tst-t").digest == "untrained"
    path = weights_path("tst-t")
    for turn, value in enumerate((b"one", b"two")):
        path.write_bytes(value)
        os.utime(path, ns=(turn, turn))
        assert resolve_model("tst-t").digest == file_sha256(path)


@pytest.mark.parametrize("model", SHIPPED)
def test_weights_are_finite_and_used(model: str) -> None:
    spec = resolve_model(model)
    assert spec.path == weights_path(model)
    module = build_model(spec)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        depth = module(image)
    assert depth.shape == (1, 1, 64, 64)
    assert 0 < depth.min() < depth.max() < 10


@pytest.mark.parametrize("model", SHIPPED)
def test_prune30(model: str) -> None:
    spec, recipe = resolve_model(model), RECIPES["prune30"]
    assert shipped_child(spec, recipe) == weights_path(model, "prune30")
    assert shipped_child(spec, RECIPES["prune30-int8"]) == weights_path(model, "prune30")
    parent = build_model(spec)
    child, lineage, reports = network(spec, recipe, SOURCE)
    assert [link.stage for link in lineage] == ["weights", "compressed"]
    assert [report["step"] for report in reports] == ["prune", "finetune"]
    example = torch.zeros(1, 3, 224, 224)
    removed = 1 - count_macs(child, example) / count_macs(parent, example)
    assert removed == pytest.approx(0.30, abs=0.05)
    assert removed == pytest.approx(reports[0]["macs_ratio_achieved"], abs=1e-4)
    blocks = [module for module in child.modules() if isinstance(module, TransformerBlock)]
    assert len(blocks) == (1 if model.startswith("tst") else 0)


def test_a_childs_training_is_not_continued_from_another_model_or_other_weights(tmp_path: Path) -> None:
    spec, recipe = resolve_model("tst-t"), RECIPES["prune30"]
    identity = recipe_identity(spec, recipe)[0]
    for other in (["tst-t", "other", identity], ["other", spec.digest, identity], ["tst-t", spec.digest, []]):
        (tmp_path / "parent").write_text(json.dumps(other))  # "other": a second function of one file, say
        with pytest.raises(
            ValueError,
            match=r"holds a child of another model or of other weights, or by another recipe: use another folder or delete it$",
        ):
            train_child(spec, recipe, tmp_path)


def test_a_child_of_other_weights_is_refused() -> None:
    from dataclasses import replace

    spec = replace(resolve_model("tst-t"), digest="other")
    with pytest.raises(
        ValueError, match=r"^tst-t--prune30\.safetensors: made from other weights of tst-t than the ones"
    ):
        network(spec, RECIPES["prune30"], SOURCE)


@pytest.mark.parametrize("name", ["tst-b", "fastdepth"])
def test_shipped_weights_survive_half_precision(name: str, tmp_path: Path) -> None:
    """As boards run them: opset 13, where the layer norms are written out and their squares pass float16's range."""
    rgb, _ = render(0, "calibration", [0])
    image = torch.nn.functional.interpolate(rgb.float() / 255, (224, 224)).numpy()
    full = export_onnx(build_model(resolve_model(name)).eval(), tmp_path / "fp32.onnx", (224, 224), opset=13)
    to_fp16(full, tmp_path / "fp16.onnx")
    depths = [
        onnxruntime.InferenceSession(path, quiet(), providers=["CPUExecutionProvider"]).run(None, {"rgb": image})[0]
        for path in (full, tmp_path / "fp16.onnx")
    ]
    np.testing.assert_allclose(depths[1], depths[0], atol=0.1)


@pytest.mark.parametrize(("name", "floats"), [("tst-s", 2), ("fastdepth", 1)])
def test_shipped_weights_in_int8(name: str, floats: int, tmp_path: Path) -> None:
    """At the size that is deployed: what ONNX Runtime executes on a CPU, and the form that TensorRT takes."""
    rgb, _ = render(0, "calibration", [0, 1])
    images = list(torch.nn.functional.interpolate(rgb.float() / 255, (224, 224)).numpy()[:, None])
    module = build_model(resolve_model(name))
    source, cpu, trt = (tmp_path / f"{kind}.onnx" for kind in ("fp32", "int8", "trt"))
    quantize_int8(export_onnx(module, source, (224, 224)), cpu, images)
    kinds = Counter(node.op_type for node in optimized(cpu, GraphOptimizationLevel.ORT_ENABLE_ALL).graph.node)
    assert kinds["Conv"] + kinds["FusedConv"] == floats  # the stem, and the edge filter of TST
    assert kinds["QLinearConv"] == node_histogram(source)["Conv"] - floats
    quantize_int8_trt(export_onnx(module, source, (224, 224), opset=13), trt, images)
    graph = read_model(trt).graph
    values = initial_values(graph)
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 2 * node_histogram(source)["Conv"]
    for node in pairs:  # a bias from int32 would have a zero point of that type, or none
        point = values[node.input[2]]
        assert (point.dtype, point.any()) == (np.int8, False)
