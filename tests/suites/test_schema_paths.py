"""No name in a suite reaches a file outside its folders, nor runs anything before the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthbench.reports.report import build_report
from depthbench.suites.plan import Data, make_plan
from depthbench.suites.runner import Request, run
from depthbench.suites.schema import parse_suite
from depthbench.suites.targets import desktop_cpu
from depthbench.suites.targets.desktop_cpu import MeasureProfile
from tests.suites.conftest import write_net

TINY = MeasureProfile(seconds=0.05, samples=10, block_s=0.01, warmup_s=0.01, warmup_runs=10)
NASTY = (
    *(
        "../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        "a\nb",
        "a b",
        "a;b",
        "a$(b)",
        "a`b`",
        "a|b",
        "~",
        ".",
        "..",
        "",
        "mine\n",
        "-x",
    ),
    *("\u00e4", "A"),
)


def quoted(text: str) -> str:
    """As a double-quoted YAML scalar."""
    return '"' + text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'


def refused(text: str, base: Path | None = None) -> list[str]:
    with pytest.raises(ValueError, match=r"^s\.yaml:\d+: ") as caught:
        parse_suite(text, "s.yaml", base)
    return str(caught.value).splitlines()


def suite(model: str = "tst-t", *, name: str = "mine", more: str = "") -> str:
    cells = "recipes: [fp32], targets: [desktop-cpu]"
    return f"name: {name}\n{more}matrix:\n  - {{models: [{model}], {cells}}}\n"


@pytest.mark.parametrize("name", NASTY)
def test_names_that_a_suite_gives(name: str) -> None:
    train = "train: {samples: 1, recipe: {mixture: {rooms: 1}}}\n"
    entry = f"{{name: {quoted(name)}, model: tst-t}}"
    recipe = f"recipes: {{{quoted(name)}: {{precision: {{cpu: fp32}}}}}}\n"
    for text, place in (
        (suite(name=quoted(name)), "s.yaml:1: name: "),
        (suite(entry, more=train), "s.yaml:4: matrix[0].models[0].name: "),
        (suite(more=recipe), "s.yaml:2: recipes"),
    ):
        [line] = refused(text)
        assert line.startswith(place)


@pytest.mark.parametrize("name", NASTY)
def test_names_that_a_suite_chooses(name: str) -> None:
    for text, place in (
        (suite(more=f"data: {{name: {quoted(name)}}}\n"), "s.yaml:2: data.name: unknown data set"),
        (suite(more=f"data: {{protocol: {quoted(name)}}}\n"), "s.yaml:2: data.protocol: unknown protocol"),
        (suite(quoted(name)), "s.yaml:3: matrix[0].models[0]: unknown model"),
        (suite().replace("fp32", quoted(name)), "s.yaml:3: matrix[0].recipes[0]: unknown recipe"),
        (suite().replace("desktop-cpu", quoted(name)), "s.yaml:3: matrix[0].targets[0]: unknown target"),
    ):
        [line] = refused(text)
        assert line.startswith(place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The suite's folder, with files outside it that are there, and links to them."""
    (tmp_path / "suites" / "nets").mkdir(parents=True)
    for name in ("net.onnx", "teacher.safetensors"):
        (tmp_path / name).write_bytes(b"outside")
        (tmp_path / "suites" / f"link-{name}").symlink_to(tmp_path / name)
    (tmp_path / "suites" / "away").symlink_to(tmp_path)
    return tmp_path / "suites"


@pytest.mark.parametrize("file", ["net.onnx", "teacher.safetensors"])
@pytest.mark.parametrize("path", ["../{}", "nets/../../{}", "{base}/{}", "link-{}", "away/{}", "a\n../{}"])
def test_files_that_a_suite_names_lie_below_it(path: str, file: str, folder: Path) -> None:
    name = path.format(file, base=folder.parent)
    distill = f"{{distill: {{teacher: {quoted(name)}}}}}"
    if file == "net.onnx":
        texts = {"matrix[0].models[0]": suite(quoted(name))}
    else:
        train = f"train: {{samples: 1, recipe: {{mixture: {{rooms: 1}}, distill: {{teacher: {quoted(name)}}}}}}}\n"
        own = f"recipes: {{a: {{precision: {{cpu: fp32}}, steps: [{{finetune: {distill}}}]}}}}\n"
        texts = {
            "train.recipe.distill.teacher": suite("{name: a, model: tst-t}", more=train),
            "recipes.a.steps[0].finetune.distill.teacher": suite(more=own),
        }
    for place, text in texts.items():
        [line] = refused(text, folder)
        assert f": {place}: " in line
        assert line.endswith(("leads outside the suite's folder; name a file below it", "is not a file name"))


def test_a_teacher_below_the_suite_is_found_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "nets" / "teacher.safetensors").write_bytes(b"weights")
    train = "train: {samples: 1, recipe: {mixture: {rooms: 1}, distill: {teacher: nets/teacher.safetensors}}}\n"
    text = suite("{name: a, model: tst-t}", more=train)
    assert refused(text, folder.parent)[0].endswith("nets/teacher.safetensors: no such weights file")
    monkeypatch.chdir("/")
    data = Data("rooms", "test", 4, "native", "d")
    [job] = make_plan(parse_suite(text, "s.yaml", folder), data, base=folder)
    assert job.model.variant is not None
    assert job.model.variant.config.distill is not None
    assert job.model.variant.config.distill.teacher == str(folder / "nets" / "teacher.safetensors")
    moved = folder.rename(folder.parent / "moved")
    [same] = make_plan(parse_suite(text, "s.yaml", moved), data, base=moved)
    assert same.id == job.id
    (moved / "nets" / "teacher.safetensors").write_bytes(b"other weights")
    [other] = make_plan(parse_suite(text, "s.yaml", moved), data, base=moved)
    assert other.id != job.id


def test_a_plan_runs_nothing_that_its_suite_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "intruder_package"
    package.mkdir()
    for name in ("__init__", "nets"):
        (package / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = parse_suite(suite("intruder_package.nets:build"), "s.yaml")
    [job] = make_plan(loaded, Data("rooms", "test", 4, "native", "d"))
    assert job.model.digest.startswith("code-")
    assert not (tmp_path / "ran").exists()
    assert "no module named intruder_package.none" in refused(suite("intruder_package.none:build"))[0]


def contents(root: Path, without: tuple[Path, ...]) -> set[Path]:
    return {path for path in root.rglob("*") if not any(path.is_relative_to(place) for place in without)}


def test_a_run_of_a_file_with_shell_signs_in_its_name_on_two_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(desktop_cpu.PROFILES, "quick", TINY)
    cache, out, images, suites = (tmp_path / name for name in ("cache", "run", "images", "suites"))
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(cache))
    for place in (images / "rgb", images / "depth", suites):
        place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(images / "rgb" / f"{i}.png")
        Image.fromarray(rng.integers(500, 8000, (32, 32), dtype=np.uint16)).save(images / "depth" / f"{i}.png")
    name = "a;touch x $(touch y) `touch z` & <b> 'q' | %s.onnx"
    write_net(suites / name)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path, (cache, out))
    text = (
        f"name: nasty\ndata: {{name: folder}}\nmatrix:\n  - models: [{quoted(name)}]\n    recipes: [fp32, fp16]\n"
        "    sizes: [32x32]\n    targets: [desktop-cpu, jetson-nano]\n    data: [folder, {name: rooms, limit: 10}]\n"
    )
    outcome = run(Request(parse_suite(text, "s.yaml", suites), out, suites, images), lambda *_: None)
    ready = [record for record in outcome.records if record.status != "skipped"]
    assert {(record.status, record.model) for record in ready} == {("ok", name.removesuffix(".onnx"))}
    assert sorted((record.target, record.dataset) for record in ready) == [
        ("desktop-cpu", "folder"),
        ("desktop-cpu", "rooms"),
        ("jetson-nano", "folder"),
        ("jetson-nano", "rooms"),
    ]
    measured = [record.latency for record in ready if record.target == "desktop-cpu"]
    assert measured[0] == measured[1]  # one file on one target is measured once, whatever the number of data sets
    assert len({record.evaluation for record in ready}) == 4  # an ONNX file for the CPU and one for boards, on two sets
    page = build_report(out, notebook=False)
    assert page.is_file()
    assert "<b> 'q'" not in page.read_text("utf-8")
    assert contents(tmp_path, (cache, out)) == before
