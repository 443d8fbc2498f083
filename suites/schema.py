"""A suite: the YAML file that says what is compared, validated before anything runs. Imports no torch.

All faults of a file are reported at once, one line each, with the line and the path to the key:
``mine.yaml:12: matrix[0].models[1]: unknown model 'tst-x'; did you mean tst-s? (choices: ...)``.

The keys and their meaning are in :mod:`.suitefile.keys`, how a file is read in :mod:`.suitefile.reading`, ``extends``, ``env``
and ``defaults`` in :mod:`.suitefile.merge`, what names may stand for in :mod:`.suitefile.names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from depthbench.compression.recipes import RECIPES, Recipe, parse_recipe
from depthbench.suites.names import unknown
from depthbench.suites.suitefile.faults import typed_faults
from depthbench.suites.suitefile.keys import (
    Block,
    Cells,
    DataSpec,
    MeasureSpec,
    ModelEntry,
    Size,
    Suite,
    SuiteFile,
    TrainSpec,
    parse_size,
)
from depthbench.suites.suitefile.merge import catalogue, catalogue_text, read_text, whole_tree
from depthbench.suites.suitefile.names import name_faults
from depthbench.suites.suitefile.reading import SuiteError

__all__ = [
    "Block",
    "Cells",
    "DataSpec",
    "MeasureSpec",
    "ModelEntry",
    "Size",
    "Suite",
    "TrainSpec",
    "catalogue",
    "load_suite",
    "parse_size",
    "parse_suite",
    "suite_recipes",
]


def load_suite(text: str) -> tuple[Suite, Path | None]:
    """The suite that a catalogue name or a path names, and the folder that its relative paths start from.

    ``ValueError`` for a missing file, YAML that cannot be read, or faults in it: one line each.
    """
    if text in catalogue():
        return parse_suite(catalogue_text(text), f"{text}.yaml"), None
    path = Path(text)
    if not text.endswith((".yaml", ".yml")) and not path.is_file():
        raise ValueError(unknown("suite", text, catalogue()))
    return parse_suite(read_text(path), str(path), base=path.parent), path.parent


def parse_suite(content: str, source: str, base: Path | None = None) -> Suite:
    """A suite from YAML text; ``source`` names it in every line of an error, ``base`` is the folder of its relative paths."""
    tree, faults = whole_tree(content, source, base or Path())
    value = tree.data()
    refused = {fault.place for fault in faults}  # their values are null now, and faults of that follow
    try:
        suite = SuiteFile.model_validate(value)
    except ValidationError as error:
        faults += [fault for fault in typed_faults(error, tree) if fault.place not in refused]
    faults += [fault for fault in name_faults(tree, base or Path()) if fault.place not in refused]
    if faults:
        raise SuiteError(faults)
    return Suite.model_construct(**{name: getattr(suite, name) for name in Suite.model_fields})


def suite_recipes(suite: Suite) -> Mapping[str, Recipe]:
    """The recipes that a suite may name: the built-in ones and its own."""
    return {**RECIPES, **{name: parse_recipe(name, value) for name, value in suite.recipes.items()}}
