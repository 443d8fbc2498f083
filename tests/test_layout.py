"""The shape of the repository: import directions, modules that load no torch, and a wheel that is whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
    "suites.schema",
    "suites.plan",
    "suites.results",
    "suites.cli.app",
    "suites.data",
    "suites.training.config",
    "suites.variants",
    "suites.cells",
    "suites.explain",
    "suites.outlook",
    "suites.suitefile.docs",
    "suites.storage.store",
    "suites.merging",
    "suites.storage.caches",
    "suites.targets.predicted",
    "compression.options",
    "compression.precisions",
    "compression.recipes",
    "reports.load",
    "reports.report",
    "reports.ablation",
    "reports.compare",
    "reports.decide",
    "reports.gate",
    "reports.history",
    "suites.gating.sources",
)


def test_light_modules_load_no_torch() -> None:
    """One process imports them one after the other and tells after which of them something heavy was there first."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'depthbench.{name}')\n"
        f"    if found := {HEAVY!r} & set(sys.modules):\n"
        "        sys.exit(f'{name} loads {sorted(found)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *LIGHT], capture_output=True, text=True, check=False, cwd="/")
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
    kinds = (".py", ".yaml", ".csv", ".json", ".safetensors", ".html", ".css", ".jpg", ".js", ".sh", ".typed")
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
    assert [name for name in wanted if "/notebooks/" in name]
    assert sorted(set(wanted) - names) == []
    assert [name for name in names if name.startswith("tests")] == []


def test_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    code = (
        "import sys, pathlib\n"
        "from depthbench.suites.schema import catalogue, load_suite\n"
        "from depthbench.suites.models import MODELS, build_model, resolve_model\n"
        "import depthbench.compression.recipes as recipes, depthbench.suites.schema as schema\n"
        "assert pathlib.Path(schema.__file__).is_relative_to(sys.argv[1]), schema.__file__\n"
        "assert pathlib.Path(recipes.__file__).is_relative_to(sys.argv[1]), recipes.__file__\n"
        "[load_suite(name) for name in catalogue()]\n"
        "build_model(resolve_model('tst-t'))\n"
        "print(len(catalogue()), 'suites')\n"
    )
    # -S leaves out this environment's .pth files, so that an editable install of the checkout cannot answer instead
    site = [p for p in sys.path if p.endswith("site-packages")]
    head = f"import sys; sys.path[:0] = [{str(place)!r}, *{site!r}]\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", head + code, str(place)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("suites\n")
