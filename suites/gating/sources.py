"""The two sides of a gate: folders of ONNX files, runs, a checkout, or git revisions, each as named artefacts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from depthbench.suites.gating import builder
from depthbench.suites.gating.config import Built, Policy
from depthbench.suites.gating.environments import (
    Interpreter,
    dependencies,
    git,
    interpreter,
    is_checkout,
    own_packages,
    revision,
    worktree,
)
from depthbench.suites.plan import digest, library_versions
from depthbench.suites.results import Record, RunFolder, read_json
from depthbench.suites.storage.cache import cache_dir
from depthbench.suites.storage.store import Store

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Artefact:
    """One file of a side. ``path`` is None for a run whose files are no longer in the cache: ``stored`` then holds what
    its record knows, and ``evaluation`` its per-image metrics."""

    name: str
    path: Path | None
    stored: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Side:
    """Base or head: its artefacts by name, what it could not build and why, and how its files are run."""

    label: str
    artefacts: Mapping[str, Artefact]
    missing: Mapping[str, str] = field(default_factory=dict)
    interpreter: Interpreter = field(default_factory=Interpreter)
    onnxruntime: str | None = None
    note: str | None = None


@contextmanager
def open_side(text: str, policy: Policy, progress: Progress) -> Iterator[Side]:
    """The side that a user's words name, for the length of the context.

    A path to a folder (a run when it holds ``run.json``, a checkout when it is one, else ONNX files), to one ``.onnx`` file,
    or a git revision of the repository in the current folder. ``ValueError`` when it is none or holds nothing.
    """
    path = Path(text)
    with ExitStack() as stack:
        if path.is_file() and path.suffix == ".onnx":
            yield Side(text, {path.stem: Artefact(path.stem, path)})
        elif (path / "run.json").is_file():
            yield _run(text, RunFolder(path))
        elif path.is_dir() and is_checkout(path):
            yield _built(text, path, None, policy, progress, stack)
        elif path.is_dir():
            yield _folder(text, path)
        elif path.suffix == ".onnx" or text.startswith(("/", "./", "../")):
            raise ValueError(f"{text}: no such file or folder")
        else:
            commit = revision(Path(), text)
            place = stack.enter_context(worktree(Path(), commit))
            yield _built(f"{text} ({commit[:10]})", place, commit, policy, progress, stack)


def _folder(label: str, folder: Path) -> Side:
    files = sorted(folder.rglob("*.onnx"))
    if not files:
        raise ValueError(f"{folder}: no ONNX files in it, and no run")
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    return Side(label, {name: Artefact(name, path) for name, path in names.items()})


def _run(label: str, folder: RunFolder) -> Side:
    """The deployed files of a run; those that the cache still has are found by their digest."""
    manifest = folder.read_manifest()
    kept = _kept_files()
    artefacts: dict[str, Artefact] = {}
    for record in folder.records():
        if record.status == "ok" and record.lineage:
            name = f"{record.model}--{record.recipe}--{record.size[0]}x{record.size[1]}--{record.precision}"
            artefacts.setdefault(name, _recorded(name, record, folder, kept))
    if not artefacts:
        raise ValueError(f"{folder.root}: no finished cell in this run")
    return Side(label, artefacts, onnxruntime=manifest.get("libraries", {}).get("onnxruntime"))


def _recorded(name: str, record: Record, folder: RunFolder, kept: Mapping[str, Path]) -> Artefact:
    profile = record.profile
    stored = {
        "sha256": record.lineage[-1].digest,
        "size_bytes": round(profile["size_mb"] * 1e6),
        "params": round(profile["params_m"] * 1e6),
        "macs": round(profile["gmacs"]["onnx"] * 1e9),
        "peak_activation_bytes": round(profile["peak_activation_mb"] * 1e6),
        "nodes": profile["nodes"],
        "quantized_nodes": profile["quantized_nodes"],
        "operators": sorted(profile["nodes"]),
    }
    path = folder.evaluation_path(record.evaluation) if record.evaluation else None
    evaluation = read_json(path) if path is not None and path.is_file() else None
    return Artefact(name, kept.get(record.lineage[-1].digest), stored, evaluation)


def _kept_files() -> dict[str, Path]:
    """Deployed files in the store by their SHA-256."""
    return {entry.meta["sha256"]: entry.folder / "model.onnx" for entry in Store("artefacts").described()}


def _built(
    label: str, checkout: Path, commit: str | None, policy: Policy, progress: Progress, stack: ExitStack
) -> Side:
    """The files that a checkout builds with its own code; those of a commit are kept in the cache."""
    if not policy.build:
        raise ValueError(f"{label}: efficiency.yaml has no 'build' list, so nothing says what a checkout is to build")
    here = Path(git(Path(), "rev-parse", "--show-toplevel")) if commit else checkout
    place = Path(stack.enter_context(TemporaryDirectory(prefix="depthbench-gate-")))
    found, why = interpreter(checkout, here if is_checkout(here) else None, place / "root")
    timing = Interpreter(found.python, {"PYTHONPATH": str(own_packages(place / "own"))}) if why else Interpreter()
    made: dict[str, Any] = {}

    def build(folder: Path) -> dict[str, Any]:
        made.update(_build(checkout, found, policy.build, folder, place / "cache", label, progress))
        return made

    if commit is None:
        (place / "files").mkdir()
        meta, folder = build(place / "files"), place / "files"
    else:
        spec = [one.model_dump(mode="json") for one in policy.build]
        key = digest([commit, spec, dependencies(checkout), None if why else library_versions(), _builder_text()])
        entry = Store("gate").make(key, build)
        meta, folder = entry.meta, entry.folder
    artefacts = {name: Artefact(name, folder / f"{name}.onnx") for name in meta["built"]}
    return Side(
        label, artefacts, meta["missing"], timing, note=f"built in an environment of its own: {why}" if why else None
    )


def _builder_text() -> str:
    return Path(builder.__file__).read_text("utf-8")


def _build(
    checkout: Path,
    found: Interpreter,
    wanted: tuple[Built, ...],
    out: Path,
    cache: Path,
    label: str,
    progress: Progress,
) -> dict[str, Any]:
    """Run the builder. Artefacts get a cache of their own, whose keys would not notice changed code; images are shared."""
    cache.mkdir()
    for shared in ("rooms", "decoded"):
        (cache_dir() / shared).mkdir(parents=True, exist_ok=True)
        (cache / shared).symlink_to((cache_dir() / shared).resolve(), target_is_directory=True)
    specs = [{"name": one.name, "model": one.model, "recipe": one.recipe, "size": one.size} for one in wanted]
    command = [found.python, "-P", str(Path(builder.__file__).resolve()), json.dumps(specs), str(out)]
    environment = {**os.environ, **found.environment, "DEPTHBENCH_CACHE": str(cache)}
    built: list[str] = []
    missing: dict[str, str] = {}
    tail: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=checkout
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"built"'):
                built.append(json.loads(line)["built"])
            elif line.startswith('{"missing"'):
                said = json.loads(line)
                missing[said["missing"]] = said["reason"]
            else:
                tail = [*tail[-4:], line.strip()]
                continue
            progress(f"building {label}", len(built) + len(missing), len(specs))
    if process.returncode:
        last = next((line for line in reversed(tail) if line), "no message")
        raise ValueError(f"{label}: its code cannot build the artefacts: {last}")
    return {"built": built, "missing": missing}
