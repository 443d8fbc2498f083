"""The shape of the repository: import directions, modules that load no torch, and a wheel that is whole."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reports.conftest import write_run

ROOT = Path(__file__).parents[1]
FOLDERS = ("tst", "baselines", "compression", "suites", "reports")

ALLOWED = {
    "tst": set(),
    "baselines": set(),
    "compression": set(),
    "suites": {"tst", "baselines", "compression"},
    "reports": {"suites.results"},
}
"""What a folder may import of depthbench beside itself."""

COMPOSITION_ROOT = {"suites/cli": {"reports"}}
"""The command line connects everything: it alone may import the reports."""

HEAVY = {"torch", "torch_pruning", "nncf", "fvcore", "ptflops", "transformers"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Modules of depthbench that a file imports, without the root's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.removeprefix("depthbench.") for name in names if name.startswith("depthbench.")}
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_directions(folder: str) -> None:
    files = sources(folder)
    assert files
    for path in files:
        allowed = {folder} | ALLOWED[folder]
        for place, more in COMPOSITION_ROOT.items():
            if path.is_relative_to(ROOT / place):
                allowed |= more
        for name in imported(path):
            assert any(name == ok or name.startswith(f"{ok}.") for ok in allowed), f"{path} imports depthbench.{name}"


def test_compression_names_no_model() -> None:
    for path in sources("compression"):
        assert re.findall(r"\btst\b|\btst-|fastdepth|mobilevit", path.read_text("utf-8").lower()) == [], path


def test_compression_has_no_init() -> None:
    """A package named ``compression`` on the path would hide the standard library's from Python 3.14 on."""
    assert not (ROOT / "compression" / "__init__.py").exists()


LIGHT = (
    "suites.results",
    "suites.cli.app",
    "suites.explain",
    "suites.storage.store",
    "suites.merging",
    "suites.storage.caches",
    "suites.targets.predicted",
    "suites.gating.sources",
    "compression.precisions",
    "compression.recipes",
)
"""Modules that load nothing heavy, beside those that say so themselves and all of ``reports``."""


def module_name(path: Path) -> str:
    """The name of a file's module, without the root's."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def light_modules() -> list[str]:
    """Every module that has to be imported without torch; the notebooks are no modules."""
    reports = [path for path in sources("reports") if path.parent.name != "notebooks"]
    saying = [path for folder in ("compression", "suites") for path in sources(folder) if says_light(path)]
    assert len(reports) > 20
    assert {"suites.schema", "suites.plan", "suites.data"} <= {module_name(path) for path in saying}
    return sorted({*LIGHT, *map(module_name, reports + saying)})


def says_light(path: Path) -> bool:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.search(r"\b(no|never|without) torch\b", docstring) is not None


def test_light_modules_load_no_torch() -> None:
    """One process imports them one after the other and tells after which of them something heavy was there first."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'depthbench.{name}')\n"
        f"    if found := {HEAVY!r} & set(sys.modules):\n"
        "        sys.exit(f'{name} loads {sorted(found)}')\n"
    )
    command = [sys.executable, "-c", code, *light_modules()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    copy = tmp_path_factory.mktemp("copy") / "src"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
    subprocess.run(command, check=True)
    [path] = out.glob("*.whl")
    return path


def shipped() -> list[str]:
    """Every file of the five folders that the wheel must hold, by its name in it."""
    kinds = (".py", ".yaml", ".csv", ".json", ".safetensors", ".html", ".css", ".jpg", ".js", ".sh", ".typed", ".md")
    files = [
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds or path.name == "py.typed"
    ]
    return sorted(
        f"depthbench/{path.relative_to(ROOT).as_posix()}" for path in files if "__pycache__" not in path.parts
    )


def test_wheel_is_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = shipped()
    assert [name for name in wanted if name.endswith(".yaml")]
    assert [name for name in wanted if "/weights/" in name and name.endswith(".safetensors")]
    assert [name for name in wanted if "/weights/cards/" in name and name.endswith(".md")]
    assert [name for name in wanted if "/notebooks/" in name]
    assert sorted(set(wanted) - names) == []
    assert [name for name in names if name.startswith("tests")] == []


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs Python code with arguments where only the wheel's depthbench is found; returns its output."""
    place = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(place)
    # -S leaves out this environment's .pth files, so that an editable install of the checkout cannot answer instead
    site = [p for p in sys.path if p.endswith("site-packages")]
    head = (
        f"import pathlib, sys; sys.path[:0] = [{str(place)!r}, *{site!r}]\n"
        "import depthbench.compression.recipes as recipes, depthbench.suites.schema as schema\n"
        f"assert pathlib.Path(schema.__file__).is_relative_to({str(place)!r}), schema.__file__\n"
        f"assert pathlib.Path(recipes.__file__).is_relative_to({str(place)!r}), recipes.__file__\n"
    )

    env = {**os.environ, "DEPTHBENCH_CACHE": str(tmp_path_factory.mktemp("cache"))}

    def run(code: str, *arguments: str) -> str:
        command = [sys.executable, "-S", "-c", head + code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_wheel_works_without_the_checkout(installed: Callable[..., str]) -> None:
    code = (
        "from depthbench.suites.schema import catalogue, load_suite\n"
        "from depthbench.suites.models import build_model, resolve_model\n"
        "[load_suite(name) for name in catalogue()]\n"
        "build_model(resolve_model('tst-t'))\n"
        "print(len(catalogue()), 'suites')\n"
    )
    assert installed(code).endswith("suites\n")


def test_commands_of_the_wheel(installed: Callable[..., str]) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        "[command] = entry_points(group='console_scripts', name='depthbench')\n"
        "sys.argv[0] = command.name\n"
        "command.load()()\n"
    )
    models = {row["name"]: row["weights"] for row in json.loads(installed(code, "models", "--json"))["models"]}
    assert {name: models[name] for name in ("tst-s", "tst-source")} == {"tst-s": True, "tst-source": False}
    cells = json.loads(installed(code, "plan", "smoke", "--json"))["cells"]
    assert {cell["model"] for cell in cells} == {"tst-t", "fastdepth-pruned"}


def test_report_of_the_wheel(installed: Callable[..., str], tmp_path: Path) -> None:
    """Its page alone: the notebooks are executed by another process, which would find the checkout."""
    chosen = ("tst-t", "fp32", "cpu")
    run = write_run(tmp_path / "run", lambda one: one if (one.model, one.recipe, one.target) == chosen else None)
    code = (
        "from depthbench.reports.report import build_report\n"
        "print(build_report(pathlib.Path(sys.argv[1]), notebook=False))\n"
    )
    page = Path(installed(code, str(run)).strip()).read_text("utf-8")
    assert "tst-t" in page
    assert "<script" in page
