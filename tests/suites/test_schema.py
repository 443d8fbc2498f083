"""Suite files: every catalogue suite is valid, and every fault is one line with the path to the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from depthbench.compression.recipes import RECIPES
from depthbench.suites.data import DATASETS
from depthbench.suites.schema import catalogue, load_suite, parse_size, parse_suite
from tests.suites.conftest import write_net

CATALOG = Path(__file__).parents[2] / "suites" / "catalog"
GOOD = """
name: mine
matrix:
  - {models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}
"""


def faults(text: str) -> list[str]:
    """Every line of the refusal, without the line's number in the file, which it must have."""
    with pytest.raises(ValueError, match=r"^mine\.yaml:\d+: ") as caught:
        parse_suite(text, "mine.yaml")
    lines = str(caught.value).splitlines()
    assert all(re.match(r"mine\.yaml:\d+: ", line) for line in lines)
    return [re.sub(r"^mine\.yaml:\d+: ", "", line) for line in lines]


def test_every_catalogue_suite_is_valid() -> None:
    files = sorted(path.stem for path in CATALOG.rglob("*.yaml"))
    assert files
    assert files == catalogue()
    for name in files:
        suite, base = load_suite(name)
        assert suite.name == name
        assert suite.summary
        assert base is None


def test_defaults() -> None:
    suite = parse_suite(GOOD, "mine.yaml")
    assert suite.data.name == "rooms"
    assert suite.matrix[0].sizes == ((224, 224),)
    assert suite.measure.profile == "quick"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "tst-t",
            "tst-m",
            "matrix[0].models[0]: unknown model 'tst-m'; did you mean tst-t? "
            "(choices: fastdepth, fastdepth-pruned, mobilevit-s, mobilevit-xs, mobilevit-xxs, tst-b, tst-s, tst-source, "
            "tst-t); an .onnx file or package.module:function is also accepted",
        ),
        (
            "fp32",
            "fp23",
            f"matrix[0].recipes[0]: unknown recipe 'fp23'; did you mean fp32? (choices: {', '.join(sorted(RECIPES))})",
        ),
        (
            "targets",
            "target",
            "matrix[0].target: unknown key 'target'; did you mean targets? "
            "(choices: data, exclude, include, models, recipes, sizes, targets)",
        ),
        ("[tst-t]", "tst-t", "matrix[0].models: Input should be a valid list (got 'tst-t')"),
        (
            "recipes",
            "sizes: [225x224], recipes",
            "matrix[0].sizes[0]: size 225x224 is not usable: height and width must be multiples of 32 up to 4096, "
            "for example 224x224",
        ),
        ("name: mine", "name: 7", "name: Input should be a valid string (got 7)"),
        (
            "name: mine",
            "name: ../mine",
            "name: String should match pattern '^[a-z0-9][a-z0-9_-]{0,63}$' (got '../mine')",
        ),
        ("name: mine", "summary: x", "name: this key is required"),
        ("[desktop-cpu]", "[]", "matrix[0].targets: needs at least one entry"),
        ("[fp32], targets: [desktop-cpu]", "[], targets: []", "matrix[0].recipes: needs at least one entry"),
        ("[fp32], targets: [desktop-cpu]", "[], targets: []", "matrix[0].targets: needs at least one entry"),
        (
            "matrix:\n  - {models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}",
            "matrix: []",
            "matrix: needs at least one entry",
        ),
        (
            "name: mine",
            "name: mine\nmeasure: {profile: quik}",
            "measure.profile: unknown profile 'quik'; did you mean quick? (choices: quick, standard, sustained)",
        ),
        (
            "name: mine",
            "name: mine\nmeasure: {profile: 3}",
            "measure.profile: Input should be 'quick', 'standard' or 'sustained' (got 3)",
        ),
        (
            "name: mine",
            "name: mine\ndata: {split: tset}",
            "data.split: unknown split 'tset'; did you mean test? (choices: calibration, test, train)",
        ),
        (
            "name: mine",
            "name: mine\ndata: roms",
            "data: a mapping is expected, such as {name: rooms}; unknown data set 'roms'; did you mean rooms? "
            f"(choices: {', '.join(sorted(DATASETS))})",
        ),
        (
            "name: mine",
            "name: mine\ndata: nyu-labeled",
            "data: a mapping is expected, such as {name: nyu-labeled} (got 'nyu-labeled')",
        ),
        (
            "name: mine",
            "name: mine\ndata: [rooms]",
            "data: a mapping is expected, such as {name: rooms} (got ['rooms'])",
        ),
        ("name: mine", "name: mine\nrecipes: int8", "recipes: a mapping is expected (got 'int8')"),
    ],
)
def test_fault(old: str, new: str, line: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    assert line in faults(text)


def test_all_faults_at_once() -> None:
    text = GOOD.replace("name: mine", "name: 7\nbogus: 1").replace("tst-t", "nope")
    lines = faults(text)
    assert [line.split(": ")[0] for line in lines] == ["name", "bogus", "matrix[0].models[0]"]
    assert faults(GOOD.replace("[tst-t]", "[nope, tst-t, nix]"))[1].startswith("matrix[0].models[2]: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", "not valid YAML: "),
        ("- 1", "a suite is a mapping with the keys name, data, measure and matrix"),
        ("", "a suite is a mapping with the keys name, data, measure and matrix"),
    ],
)
def test_not_a_suite(text: str, line: str) -> None:
    [only] = faults(text)
    assert only.startswith(line)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nix\.yaml: no such suite file$"):
        load_suite(str(tmp_path / "nix.yaml"))
    with pytest.raises(ValueError, match=r"^unknown suite 'jetsn'; did you mean jetson\? \(choices: ablation, "):
        load_suite("jetsn")


def test_a_models_file_is_looked_up_beside_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("tst-t", "net.onnx"))
    with pytest.raises(ValueError, match=r"matrix\[0\]\.models\[0\]: .*net\.onnx: no such ONNX file$"):
        load_suite(str(path))
    write_net(tmp_path / "net.onnx")
    assert load_suite(str(path))[1] == tmp_path
    whole = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "net.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"mine\.yaml:\d+: matrix\[0\]\.models\[0\]: .*net\.onnx: not an ONNX file, or a trunc"
    ):
        load_suite(str(path))


@pytest.mark.parametrize("size", ["224", "224x", 224, "0x32", "100000x32", "224x224x3"])
def test_parse_size_refuses(size: object) -> None:
    with pytest.raises(ValueError, match=r"^size "):
        parse_size(size)


def test_parse_size() -> None:
    assert parse_size("256x320") == (256, 320)
