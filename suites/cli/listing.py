"""Commands that list what there is: models, recipes, targets, doctor."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from typing import Annotated, Any

import typer

from depthbench.suites.cli.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def _show(title: str, key: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({key: rows})
    else:
        print_table(title, [{key: _cell(value) for key, value in row.items()} for row in rows])


def _cell(value: Any) -> Any:
    """A value of the JSON document as a table shows it."""
    if isinstance(value, list):
        return " → ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def models(json: Json = False) -> None:
    """List the models of the catalogue."""
    from depthbench.suites.models import MODELS, weights_path

    rows = [
        {
            "name": m.name,
            "family": m.family,
            "summary": m.summary,
            "weights": weights_path(m.name).is_file(),
        }
        for m in MODELS.values()
    ]
    _show("Models (an .onnx file or package.module:function is also a MODEL)", "models", rows, json)


def recipes(json: Json = False) -> None:
    """List the recipes: what is done to a network, and the precision deployed per kind of target."""
    from depthbench.compression.recipes import RECIPES

    rows = [
        {
            "name": r.name,
            "summary": r.summary,
            "steps": [step.kind for step in r.steps],
            "precision": dict(r.precision),
        }
        for r in RECIPES.values()
    ]
    _show("Recipes", "recipes", rows, json)


def targets(json: Json = False) -> None:
    """List the targets, and why one is not available here."""
    from depthbench.suites.targets import TARGETS

    rows = []
    for target in TARGETS.values():
        reason = target.probe()
        rows.append(
            {
                "name": target.name,
                "kind": target.kind,
                "how": target.how,
                "summary": target.summary,
                "available": reason is None,
                "reason": reason,
            }
        )
    _show("Targets", "targets", rows, json)


_OPTIONAL = {
    "tensorboard": "training curves in TensorBoard",
    "openvino": "a second runtime on the CPU",
}


def doctor(json: Json = False) -> None:
    """Say what is installed, what is missing and what it would enable; exit code 1 when something needed is missing."""
    from depthbench.suites.storage.cache import cache_dir
    from depthbench.suites.targets import TARGETS

    rows = [{"what": "python", "found": sys.version.split()[0], "note": ""}]
    missing = False
    for name in _needed():
        found = _version(name)
        missing = missing or found is None
        rows.append(
            {"what": name, "found": found or "MISSING", "note": "" if found else "needed: pip install depthbench"}
        )
    for name, gain in _OPTIONAL.items():
        found = _version(name)
        note = f"enables {gain}" if found else f"would enable {gain} (pip install 'depthbench[{name}]')"
        rows.append({"what": name, "found": found or "not installed", "note": note})
    for target in TARGETS.values():
        if (reason := target.probe()) is not None:
            rows.append({"what": f"target {target.name}", "found": "not available", "note": reason})
    data = os.environ.get("DEPTHBENCH_DATA")
    rows.append(
        {"what": "DEPTHBENCH_DATA", "found": data or "not set", "note": "folder in which real data sets are looked for"}
    )
    free = shutil.disk_usage(next(p for p in (cache_dir(), *cache_dir().parents) if p.exists())).free / 1e9
    rows.append({"what": "cache", "found": str(cache_dir()), "note": f"{free:.1f} GB free"})
    _show("What depthbench finds here", "doctor", rows, json)
    if missing:
        raise typer.Exit(1)


def _needed() -> list[str]:
    """Names of the packages that the base install holds, from this package's own metadata."""
    requires = importlib.metadata.requires("depthbench") or []
    return [re.split(r"[^A-Za-z0-9_.-]", text, maxsplit=1)[0] for text in requires if "extra ==" not in text]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
