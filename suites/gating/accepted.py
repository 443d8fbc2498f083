"""The reference of accepted values: ``efficiency.accepted.yaml``, written by ``gate --accept`` beside ``efficiency.yaml``.

A deliberate change fails the gate until its values stand here; the file's diff is what its reviewer sees. Values are one a
line and sorted. A latency is accepted as a ratio, and only for the very change (the two graphs' structure digests) that it
was measured on: a stored latency in milliseconds is never a reference.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from depthbench.suites.gating.config import SCHEMA_VERSION, fault_line, read_yaml
from depthbench.suites.results import write_atomic

FILE = "efficiency.accepted.yaml"
HEAD = "# Written by `depthbench gate --accept`; not edited by hand.\n"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AcceptedLatency(_Strict):
    """Head over base, and the structure digests of the two graphs it holds for."""

    ratio: float = Field(gt=0)
    base: str
    head: str


class Accepted(_Strict):
    """The accepted values of one model; what was not measured is None."""

    reason: str
    onnxruntime: str
    params: int | None = None
    macs: int | None = None
    activation_peak: int | None = None
    nodes: dict[str, int] | None = None
    quantized_nodes: int | None = None
    operators: list[str] | None = None
    shapes: list[str] | None = None
    signature: list[str] | None = None
    size: int | None = None
    accuracy: dict[str, float] = {}
    latency: AcceptedLatency | None = None


class Reference(_Strict):
    """The whole file."""

    schema_version: int = SCHEMA_VERSION
    models: dict[str, Accepted] = {}


def load_reference(path: Path) -> Reference:
    """The reference; an empty one when there is no file. ``ValueError``: one line, for a damaged or newer one."""
    if not path.is_file():
        return Reference()
    value = read_yaml(path)
    try:
        return Reference.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"{path}: damaged reference: {fault_line(fault, {'models': Accepted})}") from None


def write_reference(path: Path, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """Put the accepted values of some models into the file; returns the change as a unified diff, empty for none."""
    before = path.read_text("utf-8") if path.is_file() else ""
    models = {
        **load_reference(path).models,
        **{name: Accepted.model_validate(value) for name, value in changes.items()},
    }
    value = Reference(models=dict(sorted(models.items()))).model_dump(mode="json", exclude_none=True)
    after = HEAD + yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    if after != before:
        write_atomic(path, after.encode())
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{path.name}", f"b/{path.name}")
    return "".join(lines)
