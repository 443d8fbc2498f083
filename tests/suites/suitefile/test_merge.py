"""``extends``, ``env`` and ``defaults``; ``include`` and ``exclude``; several data sets; recipes of a suite's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthbench.compression.recipes import RECIPES
from depthbench.suites.plan import Data, Job, make_plan
from depthbench.suites.schema import Suite, load_suite, parse_suite, suite_recipes
from tests.suites.conftest import write_net

DATA = {name: Data(name, "test", 16, "native", name) for name in ("rooms", "nyu-labeled", "indoor-open")}


def jobs(text: str) -> list[Job]:
    return make_plan(parse_suite(text, "mine.yaml"), DATA)


def labels(text: str) -> list[str]:
    return [f"{job.label}/{job.data.name}" for job in jobs(text)]


def refused(text: str, base: Path | None = None) -> list[str]:
    with pytest.raises(ValueError, match=r"\.yaml:\d+: ") as caught:
        parse_suite(text, "mine.yaml", base)
    return str(caught.value).splitlines()


BLOCK = "{models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_extends_a_catalogue_suite() -> None:
    mine = parse_suite("name: mine\nextends: desktop\ndata: {limit: 8}\n", "mine.yaml")
    desktop = load_suite("desktop")[0]
    assert mine.matrix == desktop.matrix
    assert mine.summary == desktop.summary
    assert mine.data.name == desktop.data.name
    assert mine.data.limit == 8


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    write(tmp_path / "shared", base=f"name: base\ndata: {{limit: 4, protocol: native}}\nmatrix: [{BLOCK}, {BLOCK}]\n")
    write(tmp_path, middle="name: middle\nextends: shared/base.yaml\nmeasure: {profile: standard}\n")
    write(tmp_path, mine=f"name: mine\nextends: middle.yaml\ndata: {{limit: 9}}\nmatrix: [{BLOCK}]\n")
    suite, base = load_suite(str(tmp_path / "mine.yaml"))
    assert base == tmp_path
    assert (suite.data.limit, suite.data.protocol, suite.measure.profile, len(suite.matrix)) == (
        9,
        "native",
        "standard",
        1,
    )


def test_a_file_that_a_parent_names_lies_beside_the_parent(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    write_net(tmp_path / "shared" / "net.onnx")
    write(tmp_path / "shared", base=f"name: base\nmatrix: [{BLOCK.replace('tst-t', 'net.onnx')}]\n")
    write(tmp_path, mine="name: mine\nextends: shared/base.yaml\n")
    suite, base = load_suite(str(tmp_path / "mine.yaml"))
    [job] = make_plan(suite, DATA, base=base)
    assert job.model.path == tmp_path / "shared" / "net.onnx"


def test_a_fault_names_the_file_it_stands_in(tmp_path: Path) -> None:
    write(tmp_path, base=f"name: base\nmatrix:\n  - {BLOCK.replace('fp32', 'fp31')}\n")
    write(tmp_path, mine="name: mine\nextends: base.yaml\ndata: {limt: 3}\n")
    with pytest.raises(ValueError, match=r"base\.yaml:3: ") as caught:
        load_suite(str(tmp_path / "mine.yaml"))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/base.yaml:3: matrix[0].recipes[0]: unknown recipe 'fp31'; did you mean fp32? ")
    assert second.startswith(f"{tmp_path}/mine.yaml:3: data.limt: unknown key 'limt'; did you mean limit? ")


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("desktpo", "mine.yaml:2: extends: unknown suite 'desktpo'; did you mean desktop? (choices: "),
        ("nix.yaml", "mine.yaml:2: extends: {base}/nix.yaml: no such suite file"),
        ("7", "mine.yaml:2: extends: the name of a catalogue suite, or of a file, is expected"),
        ("[a]", "mine.yaml:2: extends: the name of a catalogue suite, or of a file, is expected"),
        (
            "../outside.yaml",
            "mine.yaml:2: extends: ../outside.yaml leads outside the suite's folder; name a file below it",
        ),
        (
            "/etc/passwd.yaml",
            "mine.yaml:2: extends: /etc/passwd.yaml leads outside the suite's folder; name a file below it",
        ),
        ("link.yaml", "mine.yaml:2: extends: link.yaml leads outside the suite's folder; name a file below it"),
        ('"a\\nb.yaml"', "mine.yaml:2: extends: 'a\\nb.yaml' is not a file name"),
    ],
)
def test_what_cannot_be_extended(extends: str, message: str, tmp_path: Path) -> None:
    base = tmp_path / "suites"
    base.mkdir()
    write(tmp_path, outside=f"name: outside\nmatrix: [{BLOCK}]\n")
    (base / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    [line] = refused(f"name: mine\nextends: {extends}\n", base)
    assert line.startswith(message.format(base=base))


def test_a_circle_is_named(tmp_path: Path) -> None:
    write(tmp_path, a="name: a\nextends: b.yaml\n", b="name: b\nextends: c.yaml\n", c="name: c\nextends: a.yaml\n")
    with pytest.raises(ValueError, match="is a circle") as caught:
        load_suite(str(tmp_path / "a.yaml"))
    a, b, c = (f"{tmp_path}/{name}.yaml" for name in "abc")
    assert str(caught.value) == f"{c}:2: extends: {a} → {b} → {c} → {a} is a circle"


def test_a_suite_that_extends_has_a_name_of_its_own() -> None:
    assert refused("extends: desktop\n") == ["mine.yaml:1: name: this key is required"]


def test_declared_variables_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_LIMIT", "12")
    monkeypatch.setenv("DB_SIZE", "256")
    monkeypatch.setenv("DB_NAME", "a: [b]")
    suite = parse_suite(
        'name: mine\nenv: [DB_LIMIT, DB_SIZE, DB_NAME]\nsummary: "about ${DB_NAME}"\ndata: {limit: "${DB_LIMIT}"}\n'
        "matrix:\n  - {models: [tst-t], recipes: [fp32], targets: [desktop-cpu], sizes: ['${DB_SIZE}x320']}\n",
        "mine.yaml",
    )
    assert suite.data.limit == 12
    assert suite.summary == "about a: [b]"
    assert suite.matrix[0].sizes == ((256, 320),)


def test_other_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_SECRET", "s")
    monkeypatch.delenv("DB_UNSET", raising=False)
    text = f"name: mine\nenv: [DB_UNSET, 7, 'a b']\nsummary: ${{DB_SECRET}}\ndata:\n  name: ${{DB_UNSET}}\nmatrix: [{BLOCK}]\n"
    assert refused(text) == [
        "mine.yaml:2: env[1]: 7 is not the name of an environment variable",
        "mine.yaml:2: env[2]: 'a b' is not the name of an environment variable",
        "mine.yaml:3: summary: ${DB_SECRET} is not declared; list it in env",
        "mine.yaml:5: data.name: the environment variable DB_UNSET is not set",
    ]


def test_defaults_fill_what_sections_leave_out() -> None:
    suite = parse_suite(
        "name: mine\n"
        "defaults:\n"
        "  matrix: {recipes: [fp32], targets: [desktop-cpu], sizes: [64x64, 96x96]}\n"
        "  models: {model: tst-t, options: {grid: 2}}\n"
        "  data: {limit: 5}\n"
        "data: {name: rooms}\n"
        "train: {samples: 10, recipe: {mixture: {rooms: 1}}}\n"
        "matrix:\n"
        "  - models: [{name: a}, {name: b, options: {fusion: false}}]\n"
        "  - {models: [tst-s], sizes: [32x32], data: [{name: nyu-labeled}, {name: indoor-open, limit: 2}]}\n",
        "mine.yaml",
    )
    first, second = suite.matrix
    assert [model.options for model in first.models if not isinstance(model, str)] == [
        {"grid": 2},
        {"grid": 2, "fusion": False},
    ]
    assert first.sizes == ((64, 64), (96, 96))
    assert second.sizes == ((32, 32),)
    assert second.recipes == ("fp32",)
    assert {name: spec.limit for name, spec in suite.data_sets.items()} == {
        "rooms": 5,
        "nyu-labeled": 5,
        "indoor-open": 2,
    }


def test_faults_of_defaults_are_said_where_they_stand() -> None:
    text = (
        "name: mine\ndefaults:\n  matrix: {recipes: [fp31], target: [desktop-cpu]}\n  sizes: [32x32]\n"
        "matrix:\n  - {models: [tst-t], targets: [desktop-cpu]}\n  - {models: [tst-s], targets: [desktop-cpu]}\n"
    )
    found = [line.split(": ")[:2] for line in refused(text)]
    assert found == [
        ["mine.yaml:3", "defaults.matrix.recipes[0]"],
        ["mine.yaml:3", "defaults.matrix.target"],
        ["mine.yaml:4", "defaults.sizes"],
    ]


AXES = "models: [tst-t, fastdepth], recipes: [fp32, int8], sizes: [64x64, 96x96], targets: [desktop-cpu]"


def test_exclude_and_include() -> None:
    text = (
        f"name: mine\nmatrix:\n  - {{{AXES},\n"
        "     exclude: [{model: 'tst-*', size: 96x96}, {recipe: [int8, int*], size: '64*'}],\n"
        "     include: [{model: tst-t, recipe: int8, size: 64x64}, {model: tst-b, recipe: fp32, size: 128x128, "
        "target: desktop-cpu-all, data: nyu-labeled}]}\n"
    )
    assert labels(text) == [
        "tst-t/fp32/64x64/desktop-cpu/rooms",
        "fastdepth/fp32/64x64/desktop-cpu/rooms",
        "fastdepth/fp32/96x96/desktop-cpu/rooms",
        "fastdepth/int8/96x96/desktop-cpu/rooms",
        "tst-t/int8/64x64/desktop-cpu/rooms",
        "tst-b/fp32/128x128/desktop-cpu-all/nyu-labeled",
    ]


def test_entries_are_chosen_by_name_or_seed() -> None:
    text = (
        "name: mine\ntrain: {samples: 8, seeds: [0, 1], recipe: {mixture: {rooms: 1}}}\nmatrix:\n"
        "  - {models: [{name: a, model: tst-t}, {name: b, model: tst-t}], recipes: [fp32], targets: [desktop-cpu],\n"
        "     exclude: [{model: a}, {model: b-seed1}]}\n"
    )
    assert labels(text) == ["b-seed0/fp32/224x224/desktop-cpu/rooms"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            "exclude: [{model: tst-x}]",
            "exclude[0].model: unknown model 'tst-x'; did you mean tst-t? (choices: fastdepth, tst-t)",
        ),
        ("exclude: [{recipe: 'fp16*'}]", "exclude[0].recipe: unknown recipe 'fp16*'"),
        ("exclude: [{models: tst-t}]", "exclude[0].models: unknown key 'models'; did you mean model?"),
        ("exclude: [{}]", "exclude[0]: no key is given; choose from model, recipe, size, target, data"),
        ("exclude: [{model: []}]", "exclude[0].model: needs at least one entry"),
        ("include: [{model: tst-x}]", "include[0].model: unknown model 'tst-x'; did you mean tst-"),
        ("include: [{size: 65x64}]", "include[0].size: size 65x64 is not usable"),
        ("include: [{recipe: fp3}]", "include[0].recipe: unknown recipe 'fp3'; did you mean fp32?"),
        ("include: [{target: nano}]", "include[0].target: unknown target 'nano'; did you mean jetson-nano?"),
        ("include: [{data: romms}]", "include[0].data: unknown data set 'romms'; did you mean rooms?"),
        (
            "include: [{target: 'x*'}]",
            "include[0].target: unknown target 'x*' (choices: desktop-cpu); no cell of the block has it",
        ),
    ],
)
def test_a_choice_that_matches_nothing_is_a_fault(choices: str, message: str) -> None:
    [line] = refused(f"name: mine\nmatrix:\n  - {{{AXES}, {choices}}}\n")
    assert line.startswith(f"mine.yaml:3: matrix[0].{message}")


def test_nothing_left() -> None:
    with pytest.raises(ValueError, match=r"^suite mine has no cell: its exclude leaves nothing$"):
        jobs(f"name: mine\nmatrix:\n  - {{{AXES}, exclude: [{{size: '*'}}]}}\n")


def test_more_cells_than_anybody_wants_are_refused() -> None:
    many = ", ".join(f"{32 * a}x{32 * b}" for a in range(1, 100) for b in range(1, 80))
    axes = AXES.replace("64x64, 96x96", many)
    text = f"name: mine\nmatrix:\n  - {{{axes}}}\n  - {{{axes}}}\n  - {{{axes}, data: [rooms, nyu-labeled]}}\n"
    assert refused(text) == ["mine.yaml:5: matrix[2]: 125,136 cells up to here; a suite may have 100,000"]
    text = f"name: mine\nmatrix:\n  - {{{axes}, include: [{{model: tst-*}}, {{target: desktop-cpu-all}}, {{}}]}}\n"
    assert refused(text) == [
        "mine.yaml:3: matrix[0]: 109,494 cells up to here; a suite may have 100,000",
        "mine.yaml:3: matrix[0].include[2]: no key is given; choose from model, recipe, size, target, data",
    ]


def test_cells_on_several_data_sets() -> None:
    data = "[rooms, {name: nyu-labeled, limit: 4}]"
    text = f"name: mine\ndata: {{name: rooms, limit: 16}}\nmatrix:\n  - {{{AXES}, data: {data}}}\n"
    suite = parse_suite(text, "mine.yaml")
    assert list(suite.data_sets) == ["rooms", "nyu-labeled"]
    assert suite.data_sets["nyu-labeled"].limit == 4
    found = make_plan(suite, DATA)
    assert len(found) == 16
    assert len({job.id for job in found}) == 16
    assert {job.data.name for job in found} == {"rooms", "nyu-labeled"}
    assert len(make_plan(suite, DATA, only=["tst-t/fp32/64x64/desktop-cpu/nyu*"])) == 1
    with pytest.raises(ValueError, match=r"^mine has cells on nyu-labeled, of which no images are described$"):
        make_plan(suite, DATA["rooms"])
    moved = suite.on("indoor-open")
    assert {job.data.name for job in make_plan(moved, DATA)} == {"indoor-open"}
    assert (
        Suite.model_validate({**moved.model_dump(mode="json"), "matrix": []} | {"matrix": suite.matrix}).data
        == moved.data
    )


def test_a_data_set_has_one_description() -> None:
    text = f"name: mine\ndata: {{name: rooms, limit: 16}}\nmatrix:\n  - {{{AXES}, data: [{{name: rooms, limit: 4}}]}}\n"
    assert refused(text) == [
        "mine.yaml:4: matrix[0].data[0]: rooms is given twice in this suite, with another split, limit or protocol"
    ]


RECIPE = (
    "recipes:\n"
    "  half: {steps: [{prune: {macs_ratio: 0.5}}], precision: {cpu: int8}, options: {int8: {everything: true}}}\n"
)


def test_a_recipe_of_the_suites_own() -> None:
    text = f"name: mine\n{RECIPE}matrix:\n  - {{{AXES.replace('int8', 'half')}}}\n"
    suite = parse_suite(text, "mine.yaml")
    assert set(suite_recipes(suite)) == {*RECIPES, "half"}
    job = next(job for job in make_plan(suite, DATA) if job.recipe.name == "half")
    assert job.precision == "int8"
    assert job.recipe.steps[0].options == {"macs_ratio": 0.5}
    for old, new in (("everything: true", "everything: false"), ("0.5", "0.4")):
        changed = next(job for job in jobs(text.replace(old, new)) if job.recipe.name == "half")
        assert changed.id != job.id
    others = {job.id for job in make_plan(suite, DATA) if job.recipe.name != "half"}
    assert others <= {job.id for job in jobs(text.replace("0.5", "0.4"))}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("half:", "fp32:", "mine.yaml:3: recipes.fp32: fp32 is a built-in recipe; give the suite's own another name"),
        ("macs_ratio", "mac_ratio", "mine.yaml:3: recipes.half.steps[0].prune"),
        ("int8}", "int9}", "mine.yaml:3: recipes.half.precision.cpu: unknown precision 'int9'; did you mean int8?"),
        (
            "{macs_ratio: 0.5}",
            "{latency_ratio: 0.5, board: jetson-nan}",
            "mine.yaml:3: recipes.half.steps[0].prune.board: ",
        ),
        ("{prune: {macs_ratio: 0.5}}", "{finetune: {lr: -1}}", "mine.yaml:3: recipes.half.steps[0].finetune.lr: "),
        ("everything", "evrything", "mine.yaml:3: recipes.half.options.int8"),
        ("half:", "../half:", "mine.yaml:3: recipes.../half: "),
    ],
)
def test_faults_of_a_recipe(old: str, new: str, message: str) -> None:
    text = f"name: mine\n{RECIPE.replace(old, new, 1)}matrix:\n  - {{{AXES}}}\n"
    assert [line for line in refused(text) if line.startswith(message)], refused(text)
