"""The JSON Schema of suite files, and docs/suites.md, both made from the keys. Imports no torch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from depthbench.compression.options import STEP_OPTIONS
from depthbench.compression.precisions import PRECISIONS
from depthbench.compression.recipes import RECIPES, TARGET_KINDS
from depthbench.suites.data import DATASETS
from depthbench.suites.models import MODELS
from depthbench.suites.protocols import PROTOCOLS
from depthbench.suites.suitefile.keys import SuiteFile
from depthbench.suites.targets import BUILT_IN, JETSONS
from depthbench.suites.training.config import TrainConfig

_MODEL = "a catalogue model, an .onnx file below the suite's folder, or package.module:function"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a suite file: what an editor completes and checks.

    Names that a suite or an installation may add to (recipes, targets, models) are offered, others are not refused.
    """
    schema = SuiteFile.model_json_schema()
    parts = schema["$defs"]
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "depthbench suite"}
    schema["required"] = ["name"]
    schema["anyOf"] = [{"required": ["matrix"]}, {"required": ["extends"]}]
    for part, required in (("Block", []), ("ModelEntry", ["name"])):  # defaults may give the rest
        parts[part]["required"] = required
    training = _shared(TrainConfig, parts)
    for key in ("samples", "seed"):
        del training["properties"][key]
    parts["TrainConfig"] = training
    parts["TrainSpec"]["properties"]["recipe"] |= {"$ref": "#/$defs/TrainConfig"}
    parts["TrainSpec"]["properties"]["recipe"].pop("additionalProperties", None)
    parts["Recipe"] = _recipe(parts)
    [pattern] = schema["properties"]["recipes"]["patternProperties"]
    schema["properties"]["recipes"] |= {
        "patternProperties": {pattern: {"$ref": "#/$defs/Recipe"}},
        "additionalProperties": False,
    }
    for block in ("Block", "BlockDefaults"):
        keys = parts[block]["properties"]
        keys["models"]["items"] = {"anyOf": [{**_names(MODELS), "description": _MODEL}, {"$ref": "#/$defs/ModelEntry"}]}
        keys["recipes"]["items"] = _names(RECIPES)
        keys["targets"]["items"] = _names(BUILT_IN)
        for choice in keys["data"]["anyOf"]:
            if "items" in choice:
                choice["items"] = {"anyOf": [{"enum": sorted(DATASETS)}, {"$ref": "#/$defs/DataSpec"}]}
    for entry in ("ModelEntry", "EntryDefaults"):
        parts[entry]["properties"]["model"] |= {"examples": sorted(MODELS)}
    parts["BoardEntry"]["properties"]["board"] |= {"enum": sorted(JETSONS)}
    schema["properties"]["boards"]["additionalProperties"] = False
    parts["DataSpec"]["properties"]["name"] |= {"enum": sorted(DATASETS)}
    for part in ("DataSpec", "DataDefaults"):
        parts[part]["properties"]["protocol"] |= {"anyOf": [{"enum": sorted(PROTOCOLS)}, {"type": "null"}]}
    return schema


def _names(table: Mapping[str, Any]) -> dict[str, Any]:
    """Names that are offered, beside which others may stand."""
    return {"anyOf": [{"enum": sorted(table)}, {"type": "string"}]}


def _shared(model: type[BaseModel], parts: dict[str, Any]) -> dict[str, Any]:
    """A model's schema, its inner definitions among ``parts``."""
    schema = model.model_json_schema()
    parts |= schema.pop("$defs", {})
    return schema


def _recipe(parts: dict[str, Any]) -> dict[str, Any]:
    """The schema of a recipe of the suite's own."""
    steps = {}
    for kind, options in STEP_OPTIONS.items():
        parts[f"{kind}-options"] = _shared(options, parts)
        steps[kind] = {"anyOf": [{"$ref": f"#/$defs/{kind}-options"}, {"type": "null"}]}
    for name, precision in PRECISIONS.items():
        parts[f"{name}-options"] = _shared(precision.options, parts)
    return {
        "type": "object",
        "description": "What is done to a network before it is deployed.",
        "additionalProperties": False,
        "required": ["precision"],
        "properties": {
            "summary": {"type": "string", "default": "", "description": "one line about it"},
            "steps": {
                "type": "array",
                "default": [],
                "description": "steps on the network, each one name with its options",
                "items": {
                    "type": "object",
                    "properties": steps,
                    "additionalProperties": False,
                    "minProperties": 1,
                    "maxProperties": 1,
                },
            },
            "precision": {
                "type": "object",
                "description": "the precision deployed on each kind of target; a kind that is left out cannot run the recipe",
                "properties": {kind: {"enum": list(PRECISIONS)} for kind in TARGET_KINDS},
                "additionalProperties": False,
                "minProperties": 1,
            },
            "options": {
                "type": "object",
                "default": {},
                "description": "options of these precisions, by precision",
                "properties": {name: {"$ref": f"#/$defs/{name}-options"} for name in PRECISIONS},
                "additionalProperties": False,
            },
        },
    }


_HEAD = """# Suites

<!-- Made by `depthbench schema --markdown -o docs/suites.md` from suites/suitefile/keys.py; change the descriptions there. -->

A suite is one YAML file that says what is compared: models × recipes × input sizes × targets × data sets. `depthbench plan
SUITE` checks it and shows its cells and what they will take; `depthbench run SUITE --out DIR` carries it out. All faults are
reported at once, each with file, line and the path to the key.

```yaml
# yaml-language-server: $schema=suite.schema.json
name: mine
extends: desktop                       # what is not written here is as there
env: [IMAGES]
data: {name: rooms, limit: "${IMAGES}"}
defaults:
  matrix: {sizes: [224x224, 256x320]}
recipes:
  half: {steps: [{prune: {macs_ratio: 0.5}}, {finetune: {}}], precision: {cpu: int8}}
matrix:
  - models: [tst-t, tst-s, fastdepth]
    recipes: [fp32, half]
    targets: [desktop-cpu]
    data: [rooms, {name: nyu-labeled, limit: 100}]
    exclude: [{model: "tst-*", size: 256x320}]
    include: [{model: tst-b, recipe: fp32, size: 224x224}]
```

`depthbench schema -o suite.schema.json` writes the JSON Schema that the first line names, by which editors complete and
check keys.

How a file is read: mappings are merged key by key and lists replaced, both by `extends` and by `defaults`. `${NAME}` is
replaced in values, not in keys, and only where `env` lists NAME; the value is then read again, so that a number is one.
Files that a suite names lie below its folder. YAML's anchors and aliases may be used; tags, dates, numbers that are not
finite and keys given twice are refused.

Boards over SSH stand in `~/.config/depthbench/boards.yaml`, or below `boards` in the suite with the same keys; each is a target
by its name. A name that both have is refused. Host keys are verified, no value ever reaches a shell as it is written, and there
is no key for a password: log in with a key file or an agent. `depthbench boards check --suite SUITE` tries them.
"""

_TITLES = {
    "SuiteFile": "The file",
    "DataSpec": "`data`",
    "MeasureSpec": "`measure`",
    "BoardEntry": "`boards.NAME`",
    "TrainSpec": "`train`",
    "TrainConfig": "`train.recipe`",
    "Stage": "`train.recipe.stages[]`",
    "Loss": "`train.recipe.loss`",
    "Distill": "`train.recipe.distill`",
    "Augment": "`train.recipe.augment`",
    "Block": "`matrix[]`",
    "ModelEntry": "`matrix[].models[]`, an entry that is trained",
    "Cells": "`matrix[].exclude[]`, `matrix[].include[]`",
    "Recipe": "`recipes.NAME`",
    "prune-options": "`recipes.NAME.steps[].prune`",
    "finetune-options": "`recipes.NAME.steps[].finetune`",
    "DistillOptions": "`recipes.NAME.steps[].finetune.distill`",
    "Defaults": "`defaults`",
    "BlockDefaults": "`defaults.matrix`",
    "EntryDefaults": "`defaults.models`",
    "DataDefaults": "`defaults.data`",
}


def markdown_text() -> str:
    """The documentation of every key."""
    schema = json_schema()
    parts = schema.pop("$defs")
    sections = {"SuiteFile": schema, **parts}
    lines = [_HEAD]
    for name, title in _TITLES.items():
        lines += _section(title, sections[name])
    for name in PRECISIONS:
        if parts[f"{name}-options"].get("properties"):
            lines += _section(f"`recipes.NAME.options.{name}`", parts[f"{name}-options"])
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, part: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    if part.get("description"):
        yield textwrap.fill(_words(part["description"]), 120)
        yield ""
    required = part.get("required", ())
    yield "| key | value | default | |"
    yield "| --- | --- | --- | --- |"
    for key, value in part["properties"].items():
        default = "required" if key in required else _default(value)
        yield f"| `{key}` | {_kind(value)} | {default} | {_words(value.get('description', ''))} |"
    yield ""


def _words(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default in (None, "", [], {}) or (isinstance(default, dict) and default):
        return ""
    if value.get("items", {}).get("pattern", "").endswith("x[0-9]{2,4}$"):
        default = [f"{height}x{width}" for height, width in default]
    return f"`{json.dumps(default)}`"


_KINDS = {"object": "mapping", "string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}


def _kind(value: Mapping[str, Any]) -> str:
    """A type in words."""
    if "$ref" in value:
        kind = "mapping"
    elif "enum" in value:
        kind = "name" if len(value["enum"]) > 6 else " ".join(f"`{one}`" for one in value["enum"])
    elif "anyOf" in value:
        kinds = [_kind(one) for one in value["anyOf"] if one.get("type") != "null"]
        kind = " or ".join(dict.fromkeys(kinds))
    elif value.get("type") == "array":
        kind = f"list of {_kind(value.get('items') or value['prefixItems'][0])}"
    elif "x[0-9]" in value.get("pattern", ""):
        kind = "HxW"
    else:
        kind = _KINDS[value["type"]] + _bounds(value)
    return kind


def _bounds(value: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[key]}" for key, sign in words.items() if key in value]
    return f" {', '.join(bounds)}" if bounds else ""
