"""Sessions of depthbench; ``nox --list`` shows them. Arguments after ``--`` reach the command line tool, or pytest."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests"]

CONSTRAINTS = ("-c", "constraints.txt")
FOLDERS = ("tst", "baselines", "compression", "suites", "reports")
PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    """Requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)  # type: ignore[no-any-return]


def install(session: nox.Session, *extra: str) -> None:
    """Install this checkout as a wheel, with pinned versions."""
    session.install("--quiet", *CONSTRAINTS, ".", *extra)


def run_suite(session: nox.Session, suite: str) -> None:
    """Run a catalogue suite into runs/SUITE; a second run recomputes nothing."""
    install(session)
    out = Path("runs") / suite
    workers = str(min(4, os.cpu_count() or 1))
    session.run("depthbench", "run", suite, "--out", str(out), "--workers", workers, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests."""
    install(session, "--no-compile", *group("test"))  # what is imported is compiled then, a third of all that is there
    workers = str(1 + (os.cpu_count() or 1))  # some tests wait for a board or a deadline
    environment = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": None}  # unset: with it each process compiles anew
    session.run("pytest", "-n", workers, "--dist", "worksteal", *session.posargs, env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style with ruff."""
    session.install("--quiet", *CONSTRAINTS, *group("lint"))
    session.run("ruff", "check", ".", *session.posargs)
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types with mypy, on the installed wheel."""
    install(session, *group("typecheck"))
    packages = [word for folder in FOLDERS for word in ("-p", f"depthbench.{folder}")]
    session.run("mypy", *packages, *session.posargs)


@nox.session
def jetson_suite(session: nox.Session) -> None:
    """Compare all networks for Jetson boards and write the report."""
    run_suite(session, "jetson")


@nox.session
def desktop_suite(session: nox.Session) -> None:
    """Compare all networks on this CPU and write the report."""
    run_suite(session, "desktop")


@nox.session
def ablation_suite(session: nox.Session) -> None:
    """Train TST without each of its parts in turn and report what each is worth."""
    run_suite(session, "ablation")


@nox.session
def report(session: nox.Session) -> None:
    """Write the report of a run again: nox -s report -- runs/jetson."""
    install(session)
    session.run("depthbench", "report", *(session.posargs or ["runs/jetson"]))


@nox.session
def benchmark(session: nox.Session) -> None:
    """Time the hot paths into runs/benchmarks; depthbench gate --pytest-benchmark A.json B.json compares two files."""
    install(session, *group("test"))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    out = Path("runs") / "benchmarks" / f"{stamp}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    options = ("--benchmark-enable", "--benchmark-save-data", f"--benchmark-json={out}")
    session.run("pytest", "tests/benchmarks", *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def efficiency(session: nox.Session) -> None:
    """Gate this working tree against origin/main, or another revision: nox -s efficiency -- --base REV."""
    install(session)
    base = () if "--base" in session.posargs else ("--base", "origin/main")
    past = ("--history", "runs/gates") if Path("runs/gates").is_dir() else ()
    options = ("--head", ".", "--out", "runs/efficiency", *past, *session.posargs)
    session.run("depthbench", "gate", *base, *options, env={"OMP_NUM_THREADS": "1"})
