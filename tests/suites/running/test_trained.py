"""A suite that trains its own models: killed in training, gone on with, its table in the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from depthbench.reports.ablation import ablations
from depthbench.reports.load import load_run
from depthbench.reports.report import build_report
from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.data import Access
from depthbench.suites.models import ModelSpec, build_model
from depthbench.suites.plan import Data, digest, library_versions, make_plan
from depthbench.suites.results import RunFolder
from depthbench.suites.runner import Outcome, Request, run
from depthbench.suites.running.trained import trained, transformer_costs
from depthbench.suites.schema import Suite, parse_suite
from depthbench.suites.storage.store import Store
from depthbench.suites.targets import desktop_cpu
from depthbench.suites.targets.desktop_cpu import MeasureProfile
from depthbench.tst import build_tst
from depthbench.tst.layers import Attention

TINY = MeasureProfile(seconds=0.05, samples=10, block_s=0.01, warmup_s=0.01, warmup_runs=10)
SUITE = """
name: tiny
data: {name: folder}
train:
  samples: 96
  seeds: [0, 1]
  recipe:
    mixture: {folder: 1}
    batch: 16
    stages: [{share: 1, sizes: [32x32]}]
    checkpoint_samples: 16
    log_samples: 16
matrix:
  - models:
      - {name: no-fusion, model: tst-t, options: {fusion: false}}
      - {name: full, model: tst-t}
    recipes: [fp32]
    sizes: [64x64]
    targets: [desktop-cpu]
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Training and test images: a bright wall is near, a dark one far."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 12)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for i in range(count):
            near = rng.uniform(1, 6, (1, 4))
            rgb = np.repeat(np.uint8(255 / near), 16, axis=1).repeat(48, axis=0)
            depth = np.uint16(1000 * near).repeat(16, axis=1).repeat(48, axis=0)
            Image.fromarray(np.dstack([rgb] * 3)).save(tmp_path / "images" / split / f"{i}.jpg", quality=95)
            Image.fromarray(depth).save(tmp_path / "images" / split / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))


def suite(text: str = SUITE) -> Suite:
    return parse_suite(text, "tiny.yaml")


def go(out: Path, images: Path, text: str = SUITE) -> Outcome:
    return run(Request(suite(text), out, data_root=images), lambda *_: None)


def specs(images: Path, text: str = SUITE) -> dict[str, ModelSpec]:
    jobs = make_plan(suite(text), Data("folder", "test", 12, "native", "d"), access={"folder": Access(images)})
    return {job.model.name: job.model for job in jobs}


def weights(spec: ModelSpec) -> dict[str, torch.Tensor]:
    found = Store("trained").get(digest([spec.digest, library_versions()]))
    assert found is not None
    return read_tensors(found.folder / "weights.safetensors")[0]


def test_killed_in_training_the_suite_goes_on_and_ends_in_the_table(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    out, trainings = tmp_path / "run", tmp_path / "cache" / "trainings"
    command = ["run", "tiny.yaml", "--out", str(out), "--data-root", str(images), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from depthbench.suites.cli import main; main()", *command],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(trainings.glob("*/checkpoint.safetensors")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(RunFolder(out).records()) == []
    [begun] = trainings.glob("*/checkpoint.safetensors")
    assert 0 < read_tensors(begun)[1]["step"] <= 6

    outcome = go(out, images)
    assert [record.status for record in outcome.records] == ["ok"] * 4
    assert not list(trainings.glob("*/checkpoint.safetensors"))
    resumed = {name: weights(spec) for name, spec in specs(images).items()}
    assert set(resumed) == {"no-fusion-seed0", "no-fusion-seed1", "full-seed0", "full-seed1"}

    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "other"))
    spec = specs(images)["no-fusion-seed0"]  # the one that was killed, now in one go
    trained(spec, {"folder": Access(images)})
    assert all(torch.equal(value, resumed[spec.name][key]) for key, value in weights(spec).items())

    record = next(record for record in outcome.records if record.model == "no-fusion-seed1")
    assert record.family == "tst"
    assert record.lineage[0].stage == "weights"
    options = record.lineage[0].options
    assert {key: options[key] for key in ("variant", "model", "options", "seed", "samples")} == {
        "variant": "no-fusion",
        "model": "tst-t",
        "options": {"fusion": False},
        "seed": 1,
        "samples": 96,
    }
    assert options["config"]["batch"] == 16
    assert set(options["data"]) == {"folder"}

    [ablation] = ablations(load_run(out))
    assert list(ablation.table["variant"]) == ["full", "no-fusion"]
    assert list(ablation.table["seeds"]) == [2, 2]
    page = build_report(out, notebook=False)
    assert "What each part buys" in page.read_text("utf-8")
    assert list(pd.read_csv(out / "report" / "ablation.csv")["variant"]) == ["full", "no-fusion"]


def test_a_second_run_trains_nothing(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SUITE.replace("seeds: [0, 1]", "seeds: [3]")
    first = go(tmp_path / "run", images, text)
    monkeypatch.setattr("depthbench.suites.running.trained._train", lambda *_: pytest.fail("trained again"))
    assert go(tmp_path / "run", images, text).computed == 0
    again = go(tmp_path / "elsewhere", images, text)  # another run of the same models takes them from the store
    assert [record.lineage for record in again.records] == [record.lineage for record in first.records]


def test_a_training_that_diverges_fails_its_cells_only(tmp_path: Path, images: Path) -> None:
    text = SUITE.replace("seeds: [0, 1]", "seeds: [0]").replace("samples: 96", "samples: 160")
    text = text.replace("batch: 16", "batch: 4\n    explosion: 1.0001")
    outcome = go(tmp_path / "run", images, text)
    assert {record.status for record in outcome.records} == {"failed"}
    assert outcome.records[0].reason is not None
    assert outcome.records[0].reason.startswith("training: FloatingPointError: training diverged at sample ")


def test_variants_are_told_apart_by_all_that_decides_their_weights(images: Path) -> None:
    one = specs(images)
    assert len({spec.digest for spec in one.values()}) == 4
    assert {spec.digest for spec in specs(images).values()} == {spec.digest for spec in one.values()}
    for old, new in (
        ("samples: 96", "samples: 112"),
        ("batch: 16", "batch: 16\n    lr: 0.01"),
        ("{fusion:", "{refinement:"),
    ):
        assert specs(images, SUITE.replace(old, new))["no-fusion-seed0"].digest != one["no-fusion-seed0"].digest
    unchanged = specs(images, SUITE.replace("log_samples: 16", "log_samples: 32"))  # changes no weights
    assert unchanged["full-seed0"].digest == one["full-seed0"].digest
    (images / "train" / "0.png").unlink()
    (images / "train" / "0.jpg").unlink()
    assert specs(images)["full-seed0"].digest != one["full-seed0"].digest


def test_options_reach_the_network(images: Path) -> None:
    found = specs(images, SUITE.replace("fusion: false", "grid: 2, layers: 3"))
    config = build_model(found["no-fusion-seed0"]).config
    assert (config.grid, config.layers, config.fusion) == (2, 3, True)


def test_transformer_costs_are_those_worked_out_by_hand() -> None:
    """Per block and application: 4 projections K·d·d, two products K·K·d, two feed-forward products K·d·2d."""
    tokens, dim = 16, 128
    block = 4 * tokens * dim**2 + 2 * tokens**2 * dim + 4 * tokens * dim**2
    attention = 4 * tokens * dim**2 + 2 * tokens**2 * dim
    network = build_tst("tst-t").eval()
    shared = transformer_costs(network, (64, 64))
    assert shared["gmacs"] == pytest.approx(4 * block / 1e9)
    assert shared["attention_gmacs"] == pytest.approx(4 * attention / 1e9)
    parts = [part for part in network.modules() if isinstance(part, Attention)]
    assert shared["attention_params_m"] == sum(p.numel() for part in parts for p in part.parameters()) / 1e6
    assert 4 * dim**2 / 1e6 <= shared["attention_params_m"] < shared["params_m"]
    own = transformer_costs(build_tst("tst-t", share_layers=False).eval(), (64, 64))
    assert own["gmacs"] == shared["gmacs"]
    assert own["params_m"] == pytest.approx(4 * shared["params_m"])
    assert own["attention_gmacs"] == shared["attention_gmacs"]
    assert own["attention_params_m"] == pytest.approx(4 * shared["attention_params_m"])
