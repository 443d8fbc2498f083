"""The JSON Schema and docs/suites.md: current, complete, and in agreement with what is read; the catalogue's comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from depthbench.suites.cli.app import invoke
from depthbench.suites.schema import parse_suite
from depthbench.suites.suitefile.docs import json_schema, markdown_text

ROOT = Path(__file__).parents[3]
CATALOG = sorted((ROOT / "suites" / "catalog").rglob("*.yaml"))
PAGE = ROOT / "docs" / "suites.md"


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema())


def faults(text: str) -> list[str]:
    """Paths of what the schema refuses; of a choice between forms, of every form."""

    def leaves(found: Iterable[jsonschema.ValidationError]) -> Iterator[str]:
        for fault in found:
            yield fault.json_path
            yield from leaves(fault.context or ())

    return list(leaves(validator().iter_errors(yaml.safe_load(text))))


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_catalogue_is_valid_by_the_schema_too() -> None:
    assert CATALOG
    for path in CATALOG:
        assert faults(path.read_text("utf-8")) == [], path


def test_every_key_is_described() -> None:
    def undescribed(part: Any, place: str) -> Iterator[str]:
        if isinstance(part, dict):
            for key, value in part.get("properties", {}).items():
                if "description" not in value and place.rsplit("/", maxsplit=1)[-1] not in {
                    "precision",
                    "options",
                    "items",
                }:
                    yield f"{place}/{key}"
            for key, value in part.items():
                yield from undescribed(value, place if key == "properties" else f"{place}/{key}")

    assert list(undescribed(json_schema(), "")) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: mine\nmatrix: []\n", "$.matrix"),
        ("name: mine\n", "$"),
        ("name: mine\nextends: desktop\ndata: {name: romms}\n", "$.data.name"),
        ("name: mine\nextends: desktop\ndata: {limits: 3}\n", "$.data"),
        ("name: mine\nextends: desktop\nmatrix: [{models: [7]}]\n", "$.matrix[0].models[0]"),
        ("name: mine\nextends: desktop\nmatrix: [{sizes: [225]}]\n", "$.matrix[0].sizes[0]"),
        ("name: mine\nextends: desktop\ntrain: {samples: 3, recipe: {rl: 1}}\n", "$.train.recipe"),
        ("name: mine\nextends: desktop\ntrain: {samples: 3, recipe: {seed: 1}}\n", "$.train.recipe"),
        ("name: mine\nextends: desktop\nrecipes: {a: {precision: {cpu: int9}}}\n", "$.recipes.a.precision.cpu"),
        ("name: mine\nextends: desktop\nrecipes: {a: {precision: {}, steps: [{prun: {}}]}}\n", "$.recipes.a.steps[0]"),
    ],
)
def test_what_an_editor_marks(text: str, place: str) -> None:
    assert place in faults(text)


def test_editors_are_offered_names() -> None:
    keys = json_schema()["$defs"]["Block"]["properties"]
    assert "tst-t" in keys["models"]["items"]["anyOf"][0]["anyOf"][0]["enum"]
    assert "prune30" in keys["recipes"]["items"]["anyOf"][0]["enum"]
    assert "jetson-nano" in keys["targets"]["items"]["anyOf"][0]["enum"]


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == markdown_text(), "run: depthbench schema --markdown -o docs/suites.md"


def test_the_page_names_every_key() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    parts = [json_schema(), *json_schema()["$defs"].values()]
    keys = {key for part in parts for key in part.get("properties", {})}
    assert keys
    assert keys <= rows


def test_the_example_of_the_page_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.setenv("IMAGES", "32")
    suite = parse_suite(example, "suites.md")
    assert suite.data.limit == 32
    assert faults(example.replace('"${IMAGES}"', "32")) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert invoke(["schema", "-o", str(tmp_path / "suite.schema.json")]) == 0
    assert json.loads((tmp_path / "suite.schema.json").read_text()) == json_schema()
    assert invoke(["schema", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown_text()


@pytest.mark.parametrize("path", CATALOG, ids=lambda path: path.stem)
def test_a_catalogue_suite_is_documented_by_its_own_comments(path: Path) -> None:
    """At the top what it is for; above every section and every block of the matrix what that is for."""
    lines = path.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    for above, line in zip(["", *lines], lines, strict=False):
        section = re.match(r"(\w+):", line)
        if (section and section[1] not in {"name", "summary", "matrix"}) or line.startswith("  - models"):
            assert above.strip().startswith("# "), f"{path.name}: no comment above: {line}"
