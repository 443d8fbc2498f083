from __future__ import annotations

import html.parser
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
from PIL import Image

from depthbench.reports.load import COLUMNS, Run, load_run
from depthbench.reports.report import build_report, write_tables
from depthbench.suites.results import Record, RunFolder

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


def test_whole_report(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(lambda record: record if record.target in {*TARGETS, "jetson"} else None)
    stages: list[str] = []
    monkeypatch.chdir(root.parent)  # a relative path, as on a command line
    page = build_report(Path(root.name), progress=stages.append)
    out = root / "report"
    assert page == out / "report.html"
    fronts = {f"pareto_{target}.png" for target in TARGETS}
    others = {
        "report.html",
        "cells.csv",
        "cells.parquet",
        "cells.md",
        "cells.tex",
        "pictures.png",
        "worst.png",
        "int8_differences.png",
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

    notebook = nbformat.read(out / "overview.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    figures = sum("image/png" in o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", []))
    assert figures == 2 * len(TARGETS) + 1
    assert str(root) not in (out / "overview.ipynb").read_text(encoding="utf-8")
    cells = pd.read_csv(out / "cells.csv")
    for name, columns in (("boards", ["latency_ms"]), ("compression", ["speedup", "rmse_change_m"])):
        printed = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", (out / f"{name}.ipynb").read_text(encoding="utf-8"))
        numbers = np.array(printed, dtype=float)
        for value in cells[columns].melt()["value"].dropna():
            assert np.abs(numbers - value).min() < 2e-6, (name, value)
    shown = (out / "overview.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|from)\s*=?\s*["']https?:""", shown)


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


def test_pictures_are_sharp_enough_to_print(make_run: MakeRun) -> None:
    root = make_run(lambda record: record if record.family == "tst" and record.target == "cpu" else None)
    build_report(root, notebook=False)
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


def test_no_run_is_a_value_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/run: no run here \(there is no run.json\)$"):
        build_report(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
