"""Where a side of a gate comes from: a git revision or a checkout, with an interpreter that imports its own code.

A revision is checked out as a git worktree. When its dependencies equal those of the running program, the program's own
interpreter is used and only the import root differs (a folder of links to the checkout's packages); otherwise the revision
gets an environment of its own, installed with its own constraints. Both are kept in the cache by content.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import depthbench.suites
from depthbench.suites.storage.cache import cache_dir

ROOT = "depthbench"


@dataclass(frozen=True)
class Interpreter:
    """A Python program and the environment variables it is started with."""

    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints; ``ValueError`` with git's own first line when it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed; give folders of ONNX files instead of revisions") from None
    if done.returncode:
        said = (done.stderr.strip() or f"code {done.returncode}").splitlines()[0]
        raise ValueError(f"git {' '.join(arguments)}: {said}")
    return done.stdout.strip()


def revision(folder: Path, text: str) -> str:
    """The full hash of the commit that ``text`` names in the repository of ``folder``; ``ValueError`` when there is none."""
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
    except ValueError:
        raise ValueError(
            f"{text}: neither a folder nor a git revision here (a folder of ONNX files, a run, a checkout, or a revision)"
        ) from None


@contextmanager
def worktree(folder: Path, commit: str) -> Iterator[Path]:
    """A checkout of a commit beside the repository's own, gone afterwards."""
    with TemporaryDirectory(prefix="depthbench-gate-") as place:
        path = Path(place) / "checkout"
        git(folder, "worktree", "add", "--detach", "--force", str(path), commit)
        try:
            yield path
        finally:
            git(folder, "worktree", "remove", "--force", str(path))


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of this project."""
    return _project(folder).get("name") == ROOT


def dependencies(checkout: Path) -> dict[str, Any]:
    """What decides the environment of a checkout: Python, requirements, and constraints where there are any."""
    project = _project(checkout)
    constraints = checkout / "constraints.txt"
    return {
        "python": project.get("requires-python"),
        "dependencies": sorted(project.get("dependencies", [])),
        "constraints": sorted(constraints.read_text("utf-8").splitlines()) if constraints.is_file() else [],
    }


def interpreter(checkout: Path, like: Path | None, place: Path) -> tuple[Interpreter, str | None]:
    """An interpreter that imports the checkout's code, and why it is not the running one's environment (None: it is).

    ``like``: the checkout that the running environment was installed for. ``place``: an empty folder for the import root.
    """
    path = {"PYTHONPATH": str(link_packages(checkout, place))}
    if like is None or dependencies(checkout) == dependencies(like):
        return Interpreter(sys.executable, path), None
    return Interpreter(str(_own_environment(checkout)), path), "its dependencies differ"


def link_packages(checkout: Path, place: Path) -> Path:
    """An import root in ``place``: links to the packages of a checkout."""
    root = place / ROOT
    root.mkdir(parents=True)
    for package, folder in _packages(checkout).items():
        (root / package).symlink_to(checkout.resolve() / folder, target_is_directory=True)
    return place


def own_packages(place: Path) -> Path:
    """An import root in ``place`` with the packages of the running program, for another environment's interpreter."""
    root = place / ROOT
    root.mkdir(parents=True)
    here = Path(depthbench.suites.__file__).parents[1]
    for package in ("tst", "baselines", "compression", "suites", "reports"):
        (root / package).symlink_to(here / package, target_is_directory=True)
    return place


def _packages(checkout: Path) -> dict[str, str]:
    """The top packages of a checkout and their folders, from its pyproject.toml."""
    tables = _pyproject(checkout)["tool"]["setuptools"]["package-dir"]
    return {name.removeprefix(f"{ROOT}."): folder for name, folder in tables.items() if name.count(".") == 1}


def _project(checkout: Path) -> dict[str, Any]:
    project: dict[str, Any] = _pyproject(checkout).get("project", {})
    return project


def _pyproject(checkout: Path) -> dict[str, Any]:
    path = checkout / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML ({error})") from None


def _own_environment(checkout: Path) -> Path:
    """The interpreter of an environment with a checkout's dependencies, made once and kept in the cache."""
    content = json.dumps(dependencies(checkout), sort_keys=True).encode()
    folder = cache_dir() / "gate" / "environments" / hashlib.sha256(content).hexdigest()[:20]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / ".complete"
    if not complete.is_file():
        pinned = ["-c", "constraints.txt"] if (checkout / "constraints.txt").is_file() else []
        _call([sys.executable, "-m", "venv", "--clear", str(folder)], checkout)
        _call([str(python), "-m", "pip", "install", "--quiet", *pinned, "."], checkout)
        complete.touch()
    return python


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"code {done.returncode}").splitlines()[-1]
        raise ValueError(f"{' '.join(command[:4])} ...: {last}")
