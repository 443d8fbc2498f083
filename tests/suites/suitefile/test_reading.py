"""YAML as suites may use it: lines of every fault, and nothing that hangs, runs code or ends in a traceback."""

from __future__ import annotations

import pytest

from depthbench.suites.schema import parse_suite
from depthbench.suites.suitefile.reading import MAX_DEPTH, MAX_VALUES, SuiteError, read_yaml, show

SUITE = """\
name: mine
matrix:
  - models: [tst-t]
    recipes: [fp32]
    targets: [desktop-cpu]
"""


def lines(text: str) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "mine.yaml")
    return str(caught.value).splitlines()


def read(text: str) -> tuple[object, list[str]]:
    node, faults = read_yaml(text, "s.yaml")
    return node.data(), [str(fault) for fault in faults]


def test_every_fault_of_a_file_has_its_line() -> None:
    text = """\
# a comment
name: My Suite
bogus: 1
data:
  name: romms
  limit: 0
matrix:
  - models:
      - tst-t
      - tst-x
    recipes:
      - fp32
      - fp23
    size: [225x225]
    targets: [desktop-cpu]
    targets: [jetson-nan]
  - recipes: [fp32]
    sizes: [225x225]
    targets: [jetson-nano]
"""
    starts = [
        "mine.yaml:2: name: String should match pattern",
        "mine.yaml:3: bogus: unknown key 'bogus'; did you mean boards? (choices: boards, data, defaults, env, extends, ",
        "mine.yaml:5: data.name: unknown data set 'romms'; did you mean rooms? (choices: ",
        "mine.yaml:6: data.limit: Input should be greater than or equal to 1 (got 0)",
        "mine.yaml:10: matrix[0].models[1]: unknown model 'tst-x'; did you mean tst-",
        "mine.yaml:13: matrix[0].recipes[1]: unknown recipe 'fp23'; did you mean fp32? (choices: ",
        "mine.yaml:14: matrix[0].size: unknown key 'size'; did you mean sizes? (choices: ",
        "mine.yaml:16: matrix[0].targets: this key stands in line 15 already",
        "mine.yaml:17: matrix[1].models: this key is required",
        "mine.yaml:18: matrix[1].sizes[0]: size 225x225 is not usable: height and width must be multiples of 32 up to 4096, ",
    ]
    found = lines(text)
    assert len(found) == len(starts)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "s.yaml:2: a: this key stands in line 1 already"),
        ("a: !!str 1\n", "s.yaml:1: a: the tag 'tag:yaml.org,2002:str' is not read; a suite has no tags"),
        (
            "a: !!python/object/apply:os.system ['touch x']\n",
            "s.yaml:1: a: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not read; a suite has no tags",
        ),
        ("a:\n- !x {b: 1}\n", "s.yaml:2: a[0]: the tag '!x' is not read; a suite has no tags"),
        ("a: 2026-01-02\n", "s.yaml:1: a: '2026-01-02' is read as a date; put it in quotes"),
        ("a: .nan\n", "s.yaml:1: a: .nan is not a finite number below 1e18"),
        ("a: -.inf\n", "s.yaml:1: a: -.inf is not a finite number below 1e18"),
        ("a: 1.0e+400\n", "s.yaml:1: a: 1.0e+400 is not a finite number below 1e18"),
        ("a: 1000000000000000000\n", "s.yaml:1: a: 1000000000000000000 is not a finite number below 1e18"),
        (f"a: {'9' * 5000}\n", f"s.yaml:1: a: the number {'9' * 24}... is too long"),
        ("a: 0b_\n", "s.yaml:1: a: '0b_' is not a number"),
        ("1: a\n", "s.yaml:1: the key '1' is not a word; put it in quotes if it is meant so"),
        ("on: a\n", "s.yaml:1: the key 'on' is not a word; put it in quotes if it is meant so"),
        ("? [a]\n: b\n", "s.yaml:1: a key must be a word, without a tag or an anchor"),
        ("a: *b\n", "s.yaml:1: a: the alias *b names nothing before it"),
        ("a: &a\n  b: *a\n", "s.yaml:2: a.b: the alias *a stands inside what it is the name of"),
        ("a: {<<: 1}\n", "s.yaml:1: a.<<: what is merged must be a mapping, or a list of mappings"),
    ],
)
def test_what_a_suite_does_not_hold(text: str, message: str) -> None:
    assert read(text)[1] == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml:1: a suite is a mapping with the keys name, data, measure and matrix"),
        ("- a\n", "s.yaml:1: a suite is a mapping with the keys name, data, measure and matrix"),
        ("a: [\n", "s.yaml:2: not valid YAML: did not find expected node content"),
        ("a:\n\t- b\n", "s.yaml:2: not valid YAML: found character that cannot start any token"),
        ("a: 1\nb: \x07\n", "s.yaml:2: not valid YAML: the character '\\x07' is not allowed"),
        ("a: \ud800\n", "s.yaml:1: not valid YAML: the character '\\ud800' is not allowed"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2: a second document: a suite is one"),
        ("a: " + "[" * 100_000, f"s.yaml:1: a[0][0][0]: nested deeper than {MAX_DEPTH} levels"),
        ("\n".join("  " * n + "a:" for n in range(100)), f"s.yaml:26: a.a.a.a: nested deeper than {MAX_DEPTH} levels"),
        ("a: " + "x" * 5_000_000, "s.yaml:1: larger than a suite may be (4 MiB)"),
    ],
)
def test_nothing_to_read(text: str, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        read_yaml(text, "s.yaml")
    assert str(caught.value) == message


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(
        SuiteError, match=rf"^s\.yaml:\d+: a\d\[\d\]: more than {MAX_VALUES:,} values, aliases written out$"
    ):
        read_yaml("\n".join(rows), "s.yaml")


def test_anchors_and_merge_keys_within_reason() -> None:
    value, faults = read("x: &x {a: 1, b: [2, true, ~, 1.5, 'no']}\ny: {<<: *x, a: 3}\nz: [*x, *x]\n")
    inside = {"a": 1, "b": [2, True, None, 1.5, "no"]}
    assert value == {"x": inside, "y": {**inside, "a": 3}, "z": [inside, inside]}
    assert faults == []


def test_a_fault_in_an_alias_is_said_once() -> None:
    text = SUITE.replace("models: [tst-t]", "models: &m [tst-x]") + (
        "  - models: *m\n    recipes: [fp32]\n    targets: [desktop-cpu]\n"
    )
    [line] = lines(text)
    assert line.startswith("mine.yaml:3: matrix[0].models[0]: unknown model 'tst-x'")


def test_a_fault_is_one_line_whatever_it_quotes() -> None:
    found = lines(SUITE + 'train: {samples: 1, recipe: {stages: [{share: 1, sizes: ["a\\x85b\\e[31m"]}]}}\n')
    assert "mine.yaml:6: train.recipe.stages[0].sizes: a\\x85b\\x1b[31m is not HxW with multiples of 32" in found


def test_show_quotes_what_is_no_plain_word() -> None:
    assert show(("matrix", 0, "a b", "c\n", "")) == "matrix[0].'a b'.'c\\n'.''"
    assert len(show(("x" * 1000,))) < 100
