"""Damaged suite files: refused with a line and a path, or read; never a traceback, never a hang.

``DEPTHBENCH_FUZZ=2000`` tries so many files of each kind, in place of 150.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from depthbench.suites.plan import Data, make_plan
from depthbench.suites.schema import DataSpec, Suite, parse_suite
from depthbench.suites.suitefile.reading import SuiteError

CATALOG = Path(__file__).parents[2] / "suites" / "catalog"
EVERYTHING = """\
# every key that there is
name: everything
summary: all of it
extends: smoke
env: [HOME]
data: {name: rooms, split: test, limit: 8, protocol: native}
measure: {profile: standard, batches: [1, 4]}
boards:
  lab-nano: {host: 127.0.0.1, port: 1, user: me, key: ~/.ssh/lab, known_hosts: /lab/known, board: jetson-nano, power_mode: 0}
  lab-orin: {host: localhost, port: 1, board: jetson-orin-nano, lock_clocks: true, folder: x/y, build_limit_s: 9}
defaults:
  matrix: {sizes: [64x64]}
  models: {options: {grid: 2}}
  data: {split: test}
train:
  samples: 16
  seeds: [0, 1]
  recipe: {mixture: {rooms: 1}, stages: [{share: 1.0, sizes: [64x64]}], distill: {teacher: tst-b, weight: 0.5}}
recipes:
  half:
    summary: half of it
    steps: [{prune: {macs_ratio: 0.5, round_to: 8}}, {finetune: {lr: 0.001}}]
    precision: {cpu: int8, board: int8-trt}
    options: {int8: {ranges: minmax}}
matrix:
  - models: &m [tst-t, fastdepth, {name: mine, model: tst-t, options: {fusion: false}}]
    recipes: [fp32, half]
    targets: [desktop-cpu, jetson-nano]
    data: [rooms, {name: indoor-open, limit: 4}]
    exclude: [{model: "tst-*", size: 64x64}]
    include: [{model: tst-b, recipe: fp32, size: 96x96, target: desktop-cpu}]
  - {models: *m, recipes: [fp16], targets: [jetson-nano]}
"""
TEXTS = {path.stem: path.read_text("utf-8") for path in sorted(CATALOG.rglob("*.yaml"))} | {"everything": EVERYTHING}
EXAMPLES = int(os.environ.get("DEPTHBENCH_FUZZ", "150"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
WHOLE_FILE = (
    "not valid YAML: ",
    "a suite is a mapping",
    "a second document",
    "larger than",
    "the key ",
    "a key must be",
    "the tag ",
)
"""How a fault begins that is of the file, or of its outermost mapping, and so has no path."""

TOKENS = (
    *(
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "*m",
        "&m ",
        "*x",
        "!!python/object:os.system ",
        "!x ",
        "<<: *m",
        "? ",
        "|\n",
        ">-\n",
    ),
    *(
        "\n",
        "\t",
        "  ",
        "#",
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "---\n",
        "...\n",
        "\0",
        "\x07",
        "\ud800",
        "\ufeff",
        "\u2028",
        "💥",
    ),
    *(
        ".nan",
        "-.inf",
        "1e999",
        "9" * 400,
        "-1",
        "0",
        "0x",
        "0b_",
        "1:30",
        "2026-11-22",
        "2026-13-45",
        "null",
        "~",
        "yes",
    ),
    *(
        "../../etc/passwd",
        "/etc/passwd.onnx",
        "../x.onnx",
        "a;b$(c).onnx",
        "os.path:join",
        "no.such:thing",
        "antigravity.x:y",
    ),
    *(
        "${HOME}",
        "${PATH}",
        "${",
        "name",
        "data",
        "extends: desktop\n",
        "extends: ../x.yaml\n",
        "defaults: {matrix: 3}\n",
    ),
)
VALUES = st.one_of(
    st.sampled_from(
        (None, True, 0, -1, 10**30, 1.5, "", "x", "../x", "*", "[", "${HOME}", [], {}, [[]], [{}], {"a": {}})
    ),
    st.sampled_from(
        ("tst-t", "desktop-cpu", "fp32", "224x224", "rooms", "half", "mine", "desktop", "99999x99999", "²x²")
    ),
    st.integers(),
    st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The text of a suite with a few slices cut out, doubled, moved, or tokens put in."""
    text = TEXTS[draw(st.sampled_from(sorted(TEXTS)))]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 30))
        match draw(st.integers(0, 5)):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:start] + text[start:end] * 2 + text[end:]
            case 2 | 3:
                text = text[:start] + draw(st.sampled_from(TOKENS)) + text[start:]
            case 4:
                text = text[:start] + draw(st.sampled_from(TOKENS)) + text[end:]
            case _:
                lines = text.splitlines(keepends=True)
                if lines:
                    line = lines.pop(draw(st.integers(0, len(lines) - 1)))
                    lines.insert(draw(st.integers(0, len(lines))), line)
                text = "".join(lines)
    return text


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here] * bool(here) + [place for key, child in items for place in places(child, (*here, key))]


@st.composite
def misshapen(draw: st.DrawFn) -> str:
    """A suite some of whose values are others, missing, doubled, or under another key."""
    value = yaml.safe_load(TEXTS[draw(st.sampled_from(sorted(TEXTS)))])
    for _ in range(draw(st.integers(1, 4))):
        found = places(value)
        if not found:
            break
        *outer, last = draw(st.sampled_from(found))
        inside = value
        for part in outer:
            inside = inside[part]
        match draw(st.integers(0, 3)):
            case 0:
                inside[last] = copy.deepcopy(draw(VALUES))  # the samples are shared between examples
            case 1:
                del inside[last]
            case 2 if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[last]))
            case _:
                moved = copy.deepcopy(draw(VALUES)) if isinstance(inside, list) else inside.pop(last)
                if isinstance(inside, list):
                    inside.insert(last, moved)
                else:
                    inside[draw(st.sampled_from(("name", "model", "data", "extends", "x", "", "options")))] = moved
    return yaml.dump(value, Dumper=type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True}))


def read(text: str, base: Path) -> Suite | None:
    """A suite, or None when it is refused, as a user must be told."""
    try:
        return parse_suite(text, "fuzz.yaml", base)
    except SuiteError as error:
        refusal = error
    assert refusal.faults
    for fault, line in zip(refusal.faults, str(refusal).splitlines(), strict=True):
        assert line == str(fault)
        assert fault.file == "fuzz.yaml" or fault.file.removesuffix(".yaml") in TEXTS
        assert 1 <= fault.line <= text.count("\n") + 2 or fault.file != "fuzz.yaml"
        assert fault.place or fault.message.startswith(WHOLE_FILE), line
    return None


def planned(suite: Suite) -> None:
    """Plan it, as ``depthbench plan`` does."""
    if sum(len(b.models) * len(b.recipes) * len(b.sizes) * len(b.targets) for b in suite.matrix) > 500:
        return
    data = {name: Data(name, spec.split, 4, "native", "0") for name, spec in suite.data_sets.items()}
    assert all(isinstance(spec, DataSpec) for spec in suite.data_sets.values())
    refusal = ""
    try:
        jobs = make_plan(suite, data)
    except ValueError as error:
        refusal, jobs = str(error), []
    assert bool(jobs) != bool(refusal)
    assert len(refusal.splitlines()) <= 1


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEPTHBENCH_DATA", raising=False)


@FUZZ
@given(damaged())
@example(EVERYTHING)
def test_damaged_text(tmp_path: Path, text: str) -> None:
    if (suite := read(text, tmp_path)) is not None:
        planned(suite)


@FUZZ
@given(misshapen())
def test_misshapen_values(tmp_path: Path, text: str) -> None:
    if (suite := read(text, tmp_path)) is not None:
        planned(suite)


@pytest.mark.parametrize("value", [[]], ids=repr)
def test_every_value_replaced(tmp_path: Path, value: Any) -> None:
    whole = yaml.safe_load(EVERYTHING)
    for *outer, last in places(whole):
        other = copy.deepcopy(whole)
        inside = other
        for part in outer:
            inside = inside[part]
        inside[last] = value
        read(yaml.safe_dump(other), tmp_path)


def test_the_suite_with_every_key_is_valid(tmp_path: Path) -> None:
    suite = read(EVERYTHING, tmp_path)
    assert suite is not None
    assert len(suite.matrix) == 2
