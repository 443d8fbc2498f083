"""The repository's own efficiency.yaml and workflow are valid, and faults in such a file are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from depthbench.suites.gating.config import METRICS, load_policy, parse_policy
from depthbench.suites.gating.scoring import Scorer
from depthbench.suites.models import MODELS

ROOT = Path(__file__).parents[3]


def test_the_repositorys_own_file() -> None:
    policy = load_policy(ROOT / "efficiency.yaml")
    built = {one.name for one in policy.build}
    assert built
    assert {one.model for one in policy.build} <= set(MODELS)
    assert set(policy.models) <= built
    assert all(policy.tolerance(name, metric).reason for name in built for metric in METRICS)


def test_the_most_special_tolerance_holds() -> None:
    own = {"tolerance": 0.2, "reason": "own"}
    policy = parse_policy(
        {"defaults": {"latency": {"tolerance": 0.1, "reason": "all"}}, "models": {"a": {"latency": own}}}, "x"
    )
    assert policy.tolerance("a", "latency").tolerance == 0.2
    assert policy.tolerance("b", "latency").tolerance == 0.1
    assert policy.tolerance("b", "params").tolerance == 0


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"defaults": {"latncy": {"tolerance": 0.1, "reason": "x"}}}, "unknown metric 'latncy'; did you mean latency?"),
        ({"defaults": {"latency": {"tolerance": 0.1}}}, "defaults.latency.reason: this key is required"),
        (
            {"defaults": {"latency": {"tolerance": 2, "reason": "x"}}},
            "defaults.latency.tolerance: Input should be less",
        ),
        (
            {"build": [{"model": "tst-t", "recipe": "int9"}]},
            "build[0].recipe: unknown recipe 'int9'; did you mean int8?",
        ),
        ({"build": [{"model": "tst-t", "size": "10x10"}]}, "build[0].size: size 10x10 is not usable"),
        ({"data": {"limit": 3}}, "data.limit: Input should be greater than or equal to 10 (got 3)"),
        ({"data": {"name": "folder", "depth_scale": 0}}, "data.depth_scale: Input should be greater than 0 (got 0)"),
        ({"schema_version": 2}, "schema_version: Input should be 1"),
    ],
)
def test_faults_are_named(value: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        parse_policy(value, "efficiency.yaml")


def test_the_depth_scale_reaches_the_images(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for i in range(2):
        Image.fromarray(np.full((32, 32, 3), 9 * i, np.uint8)).save(tmp_path / "test" / f"{i}.jpg")
        Image.fromarray(np.full((32, 32), 1500, np.uint16)).save(tmp_path / "test" / f"{i}.png")
    policy = parse_policy({"data": {"name": "folder", "depth_scale": 500}}, "efficiency.yaml")
    assert policy.data is not None
    assert float(Scorer(policy.data, tmp_path).dataset[1].depth.max()) == 3


def test_the_workflow_calls_a_session() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "efficiency.yml").read_text("utf-8"))
    steps = [step.get("run", "") for step in workflow["jobs"]["gate"]["steps"]]
    [called] = [step for step in steps if step.startswith("nox -s ")]
    assert called.startswith("nox -s efficiency -- --base ")
    assert "def efficiency(" in (ROOT / "noxfile.py").read_text("utf-8")
