"""Names that try to leave: nothing outside of the run, store and data folders is written or read, and no shell sees them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from depthbench.suites.cli.app import invoke
from depthbench.suites.gating.config import Built
from depthbench.suites.results import RunFolder
from depthbench.suites.runner import Request, run
from depthbench.suites.schema import parse_suite
from depthbench.suites.targets import desktop_cpu
from depthbench.suites.targets.desktop_cpu import MeasureProfile

HOSTILE = (
    "../../out",
    "/etc/passwd",
    "..",
    "a/../../b",
    "a\nb",
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "a\x00b",
    "~root",
)
PLACES = ("name", "data", "protocol", "split", "entry", "model", "recipe", "own recipe", "target", "mixture")


def suite(place: str, name: str) -> str:
    """A suite with a hostile name in one place."""
    value = {
        "name": name if place == "name" else "tiny",
        "data": {"name": name if place == "data" else "rooms", "limit": 1},
        "train": {"samples": 8, "recipe": {"mixture": {name if place == "mixture" else "rooms": 1}}},
        "recipes": {name if place == "own recipe" else "mine": {"summary": "", "precision": {"cpu": "fp32"}}},
        "matrix": [
            {
                "models": [
                    {"name": name if place == "entry" else "own", "model": name if place == "model" else "tst-t"}
                ],
                "recipes": [name if place == "recipe" else "fp32"],
                "targets": [name if place == "target" else "desktop-cpu"],
            }
        ],
    }
    if place in {"protocol", "split"}:
        value["data"] = {"name": "rooms", place: name}
    return yaml.safe_dump(value)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to work in, well below the temporary folder, so that whatever leaves it is seen."""
    here = tmp_path / "deep" / "down" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(here / "cache"))
    monkeypatch.delenv("DEPTHBENCH_DATA", raising=False)
    return here


@pytest.mark.parametrize("place", PLACES)
def test_a_suite_with_such_a_name_is_refused(
    sandbox: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in HOSTILE:
        (sandbox / "suite.yaml").write_text(suite(place, name))
        before = sorted(tmp_path.rglob("*"))
        for command in (["plan", "suite.yaml"], ["run", "suite.yaml", "--out", "run"])[
            : 2 if name == HOSTILE[0] else 1
        ]:
            assert invoke(command) == 2, (place, name)
            said = capsys.readouterr()
            assert said.out == ""
            assert "suite.yaml" in said.err
            assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before, (place, name)


@pytest.mark.parametrize("name", HOSTILE)
def test_such_a_name_on_the_command_line_is_refused(sandbox: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ["plan", name],
        ["plan", "smoke", "--data", name],
        ["run", "smoke", "--out", "run", "--profile", name],
        ["cache", "ls", name],
        ["cache", "verify", name, "--delete"],
        ["report", name],
        ["merge", name, "run", "--out", "merged"],
    ):
        assert invoke(command) == 2, command
    assert sorted(tmp_path.rglob("*")) == before
    assert sandbox.is_dir()


def test_a_file_with_such_a_name_is_only_a_name(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from PIL import Image
    from torch import nn

    from depthbench.suites.export import export_onnx

    monkeypatch.setitem(
        desktop_cpu.PROFILES, "quick", MeasureProfile(0.05, 10, block_s=0.01, warmup_s=0.01, warmup_runs=10)
    )
    for i in range(16):
        (sandbox / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((48, 64, 3), 100 + i, np.uint8)).save(sandbox / "images" / f"{i}.jpg")
        Image.fromarray(np.full((48, 64), 2000 + i, np.uint16)).save(sandbox / "images" / f"{i}.png")
    network = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Softplus())
    file = sandbox / "$(touch pwned);`touch pwned`&'\" ..onnx"
    shutil.copyfile(export_onnx(network, sandbox / "plain.onnx", (64, 64)), file)
    matrix = {
        "models": [file.name],
        "recipes": ["fp32", "fp16"],
        "sizes": ["64x64"],
        "targets": ["desktop-cpu", "jetson-nano"],
    }
    text = yaml.safe_dump({"name": "tiny", "data": {"name": "folder"}, "matrix": [matrix]})
    before = set(tmp_path.rglob("*"))
    outcome = run(
        Request(parse_suite(text, "tiny.yaml", sandbox), sandbox / "run", sandbox, sandbox / "images"), lambda *_: None
    )
    assert {record.model for record in outcome.records} == {file.stem}
    assert sorted(record.status for record in outcome.records) == ["ok", "ok", "skipped", "skipped"]
    assert invoke(["bundle", "make", "run", "--board", "jetson-nano", "--out", "bundle.tar.gz"]) == 0
    made = set(tmp_path.rglob("*")) - before
    assert not [path for path in tmp_path.rglob("*pwned*") if path != file]
    allowed = (sandbox / "run", sandbox / "cache", sandbox / "bundle.tar.gz")
    assert [path for path in made if not any(path == place or place in path.parents for place in allowed)] == []
    assert [record.id for record in RunFolder(sandbox / "run").records()] == [record.id for record in outcome.records]


def test_the_file_that_a_gate_builds_has_a_plain_name() -> None:
    for model in ("../../evil.onnx", "/abs/evil.onnx", "a\nb;c", "m:f", "tst-t"):
        name = Built(model=model).name
        assert "/" not in name
        assert name.split() == [name]
    assert Built(model="tst-t").name == "tst-t--fp32--224x224"
