"""The README's commands exist: sessions of the noxfile, and command lines that the program accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from depthbench.suites.cli.app import app
from depthbench.suites.schema import parse_suite

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LINES = [line.split("  #")[0].strip() for kind, block in BLOCKS if not kind for line in block.splitlines() if line]


def test_readme_has_the_two_commands() -> None:
    assert "pip install nox && nox -s jetson_suite" in LINES
    assert "pip install nox && nox -s tests" in LINES


def test_sessions_exist() -> None:
    named = re.findall(r"nox -s (\w+)", README)
    defined = re.findall(
        r"^@nox.session\ndef (\w+)", (Path(__file__).parents[1] / "noxfile.py").read_text(), re.MULTILINE
    )
    assert named
    assert set(named) <= set(defined)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("depthbench ")])
def test_command_lines_parse(line: str) -> None:
    command = typer.main.get_command(app)
    _, name, *arguments = shlex.split(line)
    context = command.make_context("depthbench", [name, *arguments], resilient_parsing=False)
    sub = command.get_command(context, name)
    assert sub is not None
    sub.make_context(name, arguments, parent=context)  # raises on an unknown option or a missing argument


def test_every_command_is_named() -> None:
    command = typer.main.get_command(app)
    for name in command.commands:
        assert f"depthbench {name}" in README


def test_the_suites_of_the_readme_are_valid(tmp_path: Path) -> None:
    mine, parts = (block for kind, block in BLOCKS if kind == "yaml")
    plain = mine.replace(", my_net.onnx, my_package.nets:small", "")
    assert plain != mine
    assert parse_suite(plain, "README.md", tmp_path).name == "mine"
    assert parse_suite(parts, "README.md", tmp_path).name == "parts"
