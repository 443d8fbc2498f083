from __future__ import annotations

import asyncio
import contextlib
import html.parser
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from depthbench.reports.load import COLUMNS, Run, load_run
from depthbench.reports.notebook import _Kernel
from depthbench.reports.page import Figures, render_page
from depthbench.reports.pareto import fronts
from depthbench.reports.report import build_report, write_tables
from depthbench.suites.results import Record, RunFolder
from tests.reports.conftest import write_run

MakeRun = Callable[..., Path]
TARGETS = ("cpu", "jetson-nano")


class Page(html.parser.HTMLParser):
    """What the tests want to know of a page: its text, its rows of cells, and everything that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[dict[str, str | None]] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        self.fetched += [values[name] or "" for name in ("src", "srcset") if name in values]
        if tag == "a":
            self.links.append(values["href"] or "")
        if tag == "tr" and "data-model" in values:
            self.cells.append(values)
        if tag not in {"meta", "img", "source", "br", "input", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


def check(page: Path) -> Page:
    """Every tag is closed, nothing is fetched, every link leads somewhere."""
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.fetched)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    for link in parsed.links:
        assert link[1:] in parsed.ids if link.startswith("#") else (page.parent / link).is_file(), link
    return parsed


def without_figures(run: Run) -> str:
    """The page without what takes long to draw."""
    return render_page(run, Figures({front.slug: () for front in fronts(run.cells)}), [])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A run with its whole report, the page, and what was said meanwhile."""
    chosen = {*TARGETS, "jetson"}
    root = write_run(tmp_path_factory.mktemp("built") / "a run", lambda one: one if one.target in chosen else None)
    stages: list[str] = []
    with contextlib.chdir(root.parent):  # a relative path, as on a command line
        return root, build_report(Path(root.name), progress=stages.append), stages


def test_whole_report(built: tuple[Path, Path, list[str]]) -> None:
    root, page, stages = built
    out = root / "report"
    assert page == out / "report.html"
    fronts = {f"pareto_{target}{cost}.png" for target in TARGETS for cost in ("", "_size_mb")}
    others = {
        "report.html",
        "cells.csv",
        "cells.parquet",
        "cells.md",
        "cells.tex",
        "pictures.png",
        "worst.png",
        "int8_differences.png",
        "latencies_cpu.png",
        "classes_jetson-nano.png",
    }
    others |= {f"{name}.{kind}" for name in ("overview", "boards", "compression") for kind in ("ipynb", "html")}
    assert {path.name for path in out.iterdir()} == fronts | others
    assert stages[0] == "reading the records"
    assert "executing the notebooks" in stages

    parsed = check(page)
    assert len(parsed.cells) == len(load_run(root).records)
    assert len(parsed.fetched) == 1 + 6 + 6 + 11 + 2  # header, networks, their worst images, what INT8 changed, scales
    text = page.read_text(encoding="utf-8")
    assert "jetson-nano has no fast INT8" in text
    assert "RuntimeError: could not load &lt;model.onnx&gt;" in text
    assert "Example CPU &lt;x86&gt;" in text
    assert sum(cell["data-slower"] == "1" for cell in parsed.cells) == 1

    for name in ("compression", "boards", "overview"):  # each in a kernel that knows nothing of the others
        notebook = nbformat.read(out / f"{name}.ipynb", as_version=4)
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))
    figures = sum("image/png" in o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", []))
    assert figures == 2 * len(TARGETS) + 1
    assert str(root) not in (out / "overview.ipynb").read_text(encoding="utf-8")
    shown = (out / "overview.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|from)\s*=?\s*["']https?:""", shown)


def test_a_kernel_forgets_the_names_of_the_notebook_before() -> None:
    async def left() -> tuple[int, str]:
        kernel = _Kernel(kernel_name="python3")
        await kernel.start_kernel(extra_arguments=["--log-level=ERROR"])
        try:
            for code in ("value = 3", "pass"):
                connection = kernel.client()
                connection.start_channels()
                await connection.wait_for_ready()
                reply = await connection.execute_interactive(code, user_expressions={"known": "'value' in globals()"})
                known = reply["content"]["user_expressions"]["known"]["data"]["text/plain"]
                assert known == str(code != "pass")
                await kernel.forget()
            return reply["content"]["execution_count"], known
        finally:
            kernel.hang_up()
            await kernel.shutdown_kernel(now=True)

    assert asyncio.run(left()) == (1, "False")


def tables(notebook: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """The line printed last before each table of texts that a notebook shows, and the table's rows."""
    found: list[tuple[str, list[dict[str, str]]]] = []
    said = ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            said = [said, *output.get("text", "").split("\n")[:-1]][-1]
            page = BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser")
            names = [head.get_text() for head in page.select("thead th")]
            rows = [[entry.get_text() for entry in row.select("td")] for row in page.select("tbody tr")]
            if rows and not page.select("tbody th"):
                found.append((said, [dict(zip(names, row, strict=True)) for row in rows]))
    return found


def agrees(shown: str, value: float) -> bool:
    """Whether the first number of a text is ``value``, to half a unit of the last digit shown."""
    [number, *_] = re.findall(r"[-+−]?\d+(?:\.\d+)?", shown)
    decimals = len(number.partition(".")[2])
    return abs(float(number.replace("−", "-")) - value) <= 0.5001 * 10**-decimals


def test_notebooks_show_the_numbers_of_the_csv(built: tuple[Path, Path, list[str]]) -> None:
    root, *_ = built
    cells = pd.read_csv(root / "report" / "cells.csv", keep_default_na=False, na_values=[""])
    cells = cells[cells["status"] == "ok"]

    def one(model: str, recipe: str, target: str) -> pd.Series:
        [found] = [
            row for _, row in cells[cells["target"] == target].iterrows() if (row.model, row.recipe) == (model, recipe)
        ]
        return found

    gains = [(said, rows) for said, rows in tables(root / "report" / "compression.ipynb") if "speed-up" in rows[0]]
    assert [said.split(":")[0] for said, _ in gains] == list(TARGETS)
    assert sum(len(rows) for _, rows in gains) == cells["parent_recipe"].notna().sum()
    for said, rows in gains:
        for row in rows:
            cell = one(row["network"], row["recipe"], said.split(":")[0])
            assert agrees(row["speed-up"], cell["speedup"])
            assert agrees(row["RMSE change [m]"], cell["rmse_change_m"])
            assert agrees(row["size [MB]"], cell["size_mb"])
            assert ("▼" in row["speed-up"] or "▽" in row["speed-up"]) == cell["not_faster"]

    shown = tables(root / "report" / "boards.ipynb")
    [fastest] = [rows for _, rows in shown if "network" in rows[0]]
    for row, target in itertools.product(fastest, TARGETS):
        cell = one(row["network"], row[target].removeprefix("≈ ").split()[1], target)
        same = cells[(cells["model"] == row["network"]) & (cells["target"] == target)]
        assert cell["latency_ms"] == same["latency_ms"].min()
        assert agrees(row[target], cell["latency_ms"])
    taken = [
        rows
        for _, rows in [*shown, *tables(root / "report" / "overview.ipynb")]
        if {"take", "best choice"} & set(rows[0])
    ]
    assert [len(rows) for rows in taken] == [2, 6, 6]
    for row in itertools.chain(*taken):
        model, recipe = row.get("take", row.get("best choice", "")).split()[:2]
        cell = one(model, recipe, row["target"])
        assert agrees(row["latency [ms]"], cell["latency_ms"])
        assert agrees(row["RMSE [m]"], cell["rmse_m"])

    [summary] = [rows for _, rows in tables(root / "report" / "overview.ipynb") if "recipe" in rows[0]]
    assert len(summary) == len(cells.drop_duplicates(["model", "recipe"]))
    for row, target in itertools.product(summary, TARGETS):
        if row[target] != "–":
            cell = one(row["model"], row["recipe"], target)
            assert agrees(row[target], cell["latency_ms"])
            assert agrees(row["RMSE [m]"], cell["rmse_m"])


def test_tables_can_be_read_back(run: Run, tmp_path: Path) -> None:
    cells = run.cells
    write_tables(cells, tmp_path)
    for table in (pd.read_csv(tmp_path / "cells.csv"), pd.read_parquet(tmp_path / "cells.parquet")):
        assert list(table.columns) == list(COLUMNS)
        assert list(table["id"]) == list(cells["id"])
        pd.testing.assert_series_equal(table["latency_ms"], cells["latency_ms"])
        pd.testing.assert_series_equal(table["rmse_m"], cells["rmse_m"])
        assert table["on_front"].tolist() == cells["on_front"].tolist()
        assert table["n_latency"].tolist() == cells["n_latency"].tolist()


def test_report_elsewhere(make_run: MakeRun, tmp_path: Path) -> None:
    root = make_run(only_one)
    assert build_report(root, tmp_path / "elsewhere", notebook=False) == tmp_path / "elsewhere" / "report.html"
    assert not (root / "report").exists()


def test_rebuilding_gives_the_same_bytes(make_run: MakeRun) -> None:
    root = make_run(lambda record: record if record.model == "tst-t" and record.target == "cpu" else None)
    build_report(root, notebook=False)
    first = {path.name: path.read_bytes() for path in (root / "report").iterdir()}
    build_report(root, notebook=False)
    assert {path.name: path.read_bytes() for path in (root / "report").iterdir()} == first


def test_pictures_are_sharp_enough_to_print(built: tuple[Path, Path, list[str]]) -> None:
    root, *_ = built
    for name in ("pareto_cpu.png", "pictures.png"):
        with Image.open(root / "report" / name) as image:
            assert image.width >= 1000


def failed(record: Record) -> Record:
    return replace(
        record, status="failed", reason="artefacts: ValueError: no", latency=None, evaluation=None, profile={}
    )


def only_one(record: Record) -> Record | None:
    return record if record.id == "tst-t.fp32.224x224.cpu" else None


def skipped_only(record: Record) -> Record | None:
    return record if record.target == "jetson" else None


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda _: None,
            "No cell of this run has both a latency and an accuracy, so there is nothing to choose from yet.",
        ),
        (failed, "cells failed."),
        (skipped_only, "<b>jetson</b> has no front: no trtexec on this machine."),
        (only_one, "tst-t fp32"),
        (lambda r: replace(r, evaluation=None), "no cell has both a latency and an accuracy"),
        (lambda r: replace(r, latency=None), "no cell has both a latency and an accuracy"),
        (lambda r: replace(r, profile={}), "What to take"),
    ],
    ids=["empty", "failed", "skipped", "one cell", "no accuracy", "no latency", "no profile"],
)
def test_a_poor_run_has_a_sensible_report(
    make_run: MakeRun, edit: Callable[[Record], Record | None], says: str
) -> None:
    root = make_run(
        lambda record: edit(record) if record.family == "tst" and record.target in {"cpu", "jetson"} else None
    )
    page = build_report(root, notebook=False)
    check(page)
    assert says in page.read_text(encoding="utf-8")


def test_an_empty_run_has_a_notebook_and_building_it_is_quiet_and_never_loads_torch(make_run: MakeRun) -> None:
    root = make_run(lambda _: None)
    code = (
        "import sys; from depthbench.reports.report import build_report\n"
        "build_report(sys.argv[1])\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    notebook = nbformat.read(root / "report" / "overview.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_a_run_without_pictures(make_run: MakeRun) -> None:
    root = make_run(only_one)
    RunFolder(root).samples_path("tst-t-fp32-224-fp32").unlink()
    page = build_report(root, notebook=False)
    assert "What the networks see" not in page.read_text(encoding="utf-8")
    assert not (root / "report" / "pictures.png").exists()


def test_a_model_whose_pictures_are_of_other_images_is_named(make_run: MakeRun) -> None:
    models = ("tst-t", "fastdepth", "mobilevit-xxs")
    root = make_run(lambda r: r if r.model in models and r.recipe == "fp32" and r.target == "cpu" else None)
    path = RunFolder(root).samples_path("fastdepth-fp32-224-fp32")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"rgb": 255 - arrays["rgb"]}))
    page = build_report(root, notebook=False)
    assert "because their pictures are of other images: fastdepth." in page.read_text(encoding="utf-8")


def test_cards_name_their_images_where_there_are_several_data_sets(make_run: MakeRun) -> None:
    def on_cpu(record: Record) -> Record | None:
        return record if record.target == "cpu" else None

    def on_two(record: Record) -> Record | None:
        other = record.model.startswith("tst")
        return on_cpu(replace(record, dataset="nyu-labeled", protocol="nyu-eigen") if other else record)

    def said(edit: Callable[[Record], Record | None], name: str) -> list[str]:
        page = BeautifulSoup(without_figures(load_run(make_run(edit, name))), "html.parser")
        return [found.text for card in page.select(".cards .card") for found in card.select("header + p")]

    assert said(on_cpu, "one") == []
    assert said(on_two, "two") == ["accuracy on nyu-labeled (nyu-eigen)", "accuracy on rooms (native)"]


def test_no_run_is_a_value_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/run: no run here \(there is no run.json\)$"):
        build_report(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_broken_images_that_were_left_out_are_told(make_run: MakeRun) -> None:
    run = load_run(make_run(lambda record: replace(record, left_out=2 if record.target == "cpu" else 3)))
    assert list(run.cells[run.cells["target"] == "cpu"]["n_left_out"].unique()) == [2]
    assert "on 40 images (2–3 broken ones were left out): each" in without_figures(run)
