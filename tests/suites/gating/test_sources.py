"""Sides of a gate: revisions and checkouts that build with their own code, runs, and what each refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest

from depthbench.suites.gating.config import Policy, parse_policy
from depthbench.suites.gating.environments import (
    dependencies,
    interpreter,
    is_checkout,
    own_packages,
    revision,
    worktree,
)
from depthbench.suites.gating.sources import Side, open_side
from depthbench.suites.models import file_sha256
from depthbench.suites.results import Lineage, Record, RunFolder, write_json

ROOT = Path(__file__).parents[3]
FOLDERS = ("tst", "baselines", "compression", "suites", "reports")
POLICY = parse_policy(
    {"build": [{"model": "fastdepth-pruned", "size": "64x64"}, {"model": "no-such-model", "size": "64x64"}]}, "test"
)


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with this project's code, without weights, as the current folder."""
    folder = tmp_path / "project"
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "runs")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    git(folder.parent, "init", "--quiet", "--initial-branch=main", str(folder))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    monkeypatch.chdir(folder)
    return folder


def test_a_revision_and_a_checkout_build_the_same_file(checkout: Path) -> None:
    told: list[tuple[str, float, float]] = []
    commit = git(checkout, "rev-parse", "HEAD")
    with (
        open_side("HEAD", POLICY, lambda *step: told.append(step)) as base,
        open_side(".", POLICY, lambda *_: None) as head,
    ):
        [name] = base.artefacts
        assert name == "fastdepth-pruned--fp32--64x64"
        assert base.label == f"HEAD ({commit[:10]})"
        assert base.interpreter == head.interpreter
        paths = [side.artefacts[name].path for side in (base, head)]
        assert all(path is not None for path in paths)
        assert len({file_sha256(path) for path in paths if path is not None}) == 1
        assert list(base.missing) == ["no-such-model--fp32--64x64"]
        assert base.missing["no-such-model--fp32--64x64"].startswith("unknown model 'no-such-model'")
    assert told[-1] == (f"building {base.label}", 2, 2)
    assert git(checkout, "worktree", "list").count("\n") == 0
    told.clear()
    with open_side("main", POLICY, lambda *step: told.append(step)) as again:
        assert list(again.artefacts) == [name]
    assert told == []  # kept by commit


def test_an_interpreter_imports_the_code_of_its_checkout(checkout: Path, tmp_path: Path) -> None:
    (checkout / "tst" / "marker.py").write_text("HERE = 'in the checkout'\n")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "second")
    code = "import depthbench.tst.marker as m, depthbench.suites as s; print(m.HERE, s.__file__)"
    with worktree(checkout, revision(checkout, "HEAD")) as place:
        found, why = interpreter(place, checkout, tmp_path / "root")
        assert why is None
        done = subprocess.run(
            [found.python, "-c", code], env=dict(found.environment), capture_output=True, text=True, check=True
        )
    assert done.stdout.startswith(f"in the checkout {tmp_path / 'root'}")


def test_other_dependencies_ask_for_another_environment(checkout: Path) -> None:
    before = dependencies(checkout)
    path = checkout / "pyproject.toml"
    path.write_text(path.read_text().replace('"numpy>=2.0"', '"numpy>=2.1"'))
    assert dependencies(checkout) != before
    assert is_checkout(checkout)
    assert not is_checkout(checkout / "tst")


def test_the_programs_own_packages(tmp_path: Path) -> None:
    place = own_packages(tmp_path / "own")
    code = "import depthbench.suites.targets.cpu_worker as worker; print(worker.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(place)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path))


@pytest.mark.usefixtures("checkout")
def test_a_checkout_needs_a_build_list() -> None:
    with pytest.raises(ValueError, match=r"^\.: efficiency.yaml has no 'build' list"), _open(".", Policy()):
        pass


def test_code_that_cannot_build_says_why(checkout: Path) -> None:
    (checkout / "suites" / "models.py").write_text("raise RuntimeError('half done')\n")
    match = r"^\.: its code cannot build the artefacts: RuntimeError: half done$"
    with pytest.raises(ValueError, match=match), _open(".", POLICY):
        pass


def test_a_run_without_its_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    profile = {"size_mb": 1.0, "params_m": 0.25, "gmacs": {"onnx": 0.1}, "peak_activation_mb": 2.0}
    record = Record(
        "cell",
        "ok",
        "net",
        "user",
        "fp32",
        (64, 64),
        "desktop-cpu",
        "cpu",
        "rooms",
        "native",
        precision="fp32",
        profile={**profile, "nodes": {"Conv": 2}, "quantized_nodes": 0},
        lineage=[Lineage("onnx", "0" * 64)],
    )
    write_json(folder.manifest, {"cells": ["cell"], "libraries": {"onnxruntime": "1.30.0"}})
    folder.write_record(record)
    with _open(str(folder.root), Policy()) as side:
        [artefact] = side.artefacts.values()
        assert artefact.path is None
        assert artefact.stored["params"] == 250_000
        assert side.onnxruntime == "1.30.0"


def test_a_folder_names_files_by_their_place(tmp_path: Path, nets: ModuleType, export: Callable[..., Path]) -> None:
    source = export(nets.Plain)
    for name in ("small/net.onnx", "net.onnx"):
        (tmp_path / "side" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tmp_path / "side" / name)
    with _open(str(tmp_path / "side"), Policy()) as side:
        assert list(side.artefacts) == ["net", "small/net"]


def _open(text: str, policy: Policy) -> AbstractContextManager[Side]:
    return open_side(text, policy, lambda *_: None)
