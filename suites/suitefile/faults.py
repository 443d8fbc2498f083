"""What pydantic finds wrong with a suite, as lines that a user can act on. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from depthbench.suites.names import unknown
from depthbench.suites.suitefile.keys import (
    ENTRY,
    NAME,
    Block,
    BlockDefaults,
    Cells,
    DataDefaults,
    DataSpec,
    Defaults,
    EntryDefaults,
    MeasureSpec,
    ModelEntry,
    SuiteFile,
    TrainSpec,
)
from depthbench.suites.suitefile.reading import Fault, Node, Place
from depthbench.suites.targets.boardfile import BoardEntry

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): SuiteFile,
    ("data",): DataSpec,
    ("measure",): MeasureSpec,
    ("train",): TrainSpec,
    ("matrix",): Block,
    ("matrix", "models"): ModelEntry,
    ("matrix", "data"): DataSpec,
    ("matrix", "exclude"): Cells,
    ("matrix", "include"): Cells,
    ("defaults",): Defaults,
    ("defaults", "matrix"): BlockDefaults,
    ("defaults", "models"): EntryDefaults,
    ("defaults", "data"): DataDefaults,
    ("defaults", "matrix", "models"): ModelEntry,
    ("defaults", "matrix", "data"): DataSpec,
    ("defaults", "matrix", "exclude"): Cells,
    ("defaults", "matrix", "include"): Cells,
}

_EXAMPLES: Mapping[type[BaseModel], str] = {
    DataSpec: "{name: rooms}",
    MeasureSpec: "{profile: quick}",
    TrainSpec: "{samples: 24000}",
    Block: "{models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}",
    Cells: "{model: tst-t}",
    BoardEntry: "{host: 192.168.1.17, board: jetson-nano}",
}
"""What may stand where something else than a mapping was found."""


def typed_faults(error: ValidationError, tree: Node, values: type[BaseModel] | None = None) -> list[Fault]:
    """A line for each fault that pydantic found, those of ``defaults`` first, without those that follow from others.

    ``values``: the model of the values of a mapping by name; left out for a suite.
    """
    found = [_fault(fault, tree, values) for fault in _innermost(error.errors())]
    return sorted(found, key=lambda fault: fault.place[:1] != ("defaults",))


def at(tree: Node, place: Place, message: str) -> Fault:
    """A fault at a place of a tree."""
    file, line = tree.find(place)
    return Fault(file, line, place, message)


def _innermost(faults: Sequence[Any]) -> list[Any]:
    """Without the faults of a list that only follow from a fault inside it."""
    around = {fault["loc"][:n] for fault in faults for n in range(len(fault["loc"]))}
    return [fault for fault in faults if fault["loc"] not in around]


def _section(place: Place) -> type[BaseModel]:
    """The model of the mapping at a place of a suite."""
    words = tuple(part for part in place if isinstance(part, str))
    return BoardEntry if words[:1] == ("boards",) else _SECTIONS[words]


def _no_mapping(section: type[BaseModel], value: Any) -> str:
    """What is said of a value where a section was expected."""
    example, got = _EXAMPLES.get(section), f" (got {value!r:.80})"
    if section is DataSpec and isinstance(value, str):
        from depthbench.suites.data import DATASETS

        if value in DATASETS:
            example = f"{{name: {value}}}"
        else:
            got = f"; {unknown('data set', value, DATASETS)}"
    return f"a mapping is expected{f', such as {example}' if example else ''}{got}"


def _fault(fault: Any, tree: Node, values: type[BaseModel] | None) -> Fault:
    place = tuple(part for part in fault["loc"] if part not in {NAME, ENTRY, "[key]"})
    if fault["type"] == "extra_forbidden":
        section = values or _section(place[:-1])
        return at(tree, place, unknown("key", str(place[-1]), section.model_fields))
    if fault["type"] == "missing":
        return at(tree, place, "this key is required")
    if fault["type"] in ("model_type", "dict_type"):
        section = values or _section(place) if fault["type"] == "model_type" else BaseModel
        return at(tree, place, _no_mapping(section, fault["input"]))
    if fault["type"] == "too_short" and fault["ctx"]["min_length"] == 1:
        return at(tree, place, "needs at least one entry")
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        choices = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return at(tree, place, unknown(str(place[-1]), fault["input"], choices))
    message = fault["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    return at(tree, place, message + (f" (got {fault['input']!r:.80})" if fault["type"] != "value_error" else ""))
