"""The page in a real browser, and a large run. Needs Chromium and Playwright; skipped with the reason where there are none."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from depthbench.reports.load import load_run
from depthbench.reports.report import build_report
from depthbench.suites.results import Record, RunFolder, read_json, write_json
from tests.reports.conftest import write_run

MakeRun = Callable[..., Path]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the CPU and two boards, one of which has no fast INT8."""
    targets = {"cpu", "jetson-nano", "jetson-xavier-nx"}
    return write_run(tmp_path_factory.mktemp("page") / "run", lambda one: one if one.target in targets else None)


@pytest.fixture(scope="module")
def page_path(a_run: Path) -> Path:
    """Its page."""
    return build_report(a_run, notebook=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(params=[1440, 390])
def page(request: pytest.FixtureRequest, browser: Any, page_path: Path) -> Iterator[Any]:
    """The page, open; at the end: nothing was logged, nothing was fetched but the page itself."""
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    said: list[str] = []
    fetched: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda sent: fetched.append(sent.url))
    opened.goto(page_path.as_uri())
    yield opened
    assert said == []
    assert [url for url in fetched if not url.startswith("data:")] == [page_path.as_uri()]
    opened.close()


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_sorting_and_filtering(page: Any) -> None:
    header = page.locator("#cells th", has_text="latency ms")
    values = (
        "[...document.querySelectorAll('#cells tbody tr')].map(r => r.cells[4].dataset.v).filter(v => v).map(Number)"
    )
    header.locator("button").click()
    rising = page.evaluate(values)
    assert rising == sorted(rising)
    header.locator("button").press("Enter")
    assert page.evaluate(values) == sorted(rising, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    page.select_option("select[name=target]", "cpu")
    page.fill("input[name=text]", "tst-s int8")
    assert page.locator("form.filters output").text_content() == "2 of 72 cells"  # int8 and prune30-int8
    page.locator("form.filters button").click()
    page.wait_for_function("document.querySelector('form.filters output').textContent === '72 of 72 cells'")


def test_pointing_at_a_mark_shows_its_numbers(page: Any) -> None:
    mark = page.locator("figure.front:visible .pt[data-cell='tst-s.prune30-int8.224x224.cpu']").first
    mark.scroll_into_view_if_needed()
    mark.dispatch_event("pointerenter")
    tip = page.locator("#tip")
    assert tip.is_visible()
    text = tip.text_content()
    assert "tst-s prune30-int8" in text
    assert "3.60" in text
    assert "weights tst-s-we → compressed tst-s-pr → onnx tst-s-pr → int8" in text
    assert "made fromtst-s prune30" in text
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]
    mark.dispatch_event("pointerleave")
    assert not tip.is_visible()


def test_marks_by_keyboard_lead_to_the_pictures_and_the_table(page: Any) -> None:
    first = page.locator("figure.front:visible .pt[tabindex='0']").first
    first.focus()
    fastest = page.locator("#tip strong").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip strong").text_content() != fastest
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "row in the table"
    page.keyboard.press("Tab")
    model = page.evaluate("document.activeElement.textContent").removeprefix("pictures of ")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == f"pictures-{model}"
    assert not page.locator("#tip").is_visible()


def test_escape_puts_the_numbers_away(page: Any) -> None:
    page.locator("figure.front:visible .pt[tabindex='0']").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


def test_tabs_change_what_accuracy_is_traded_for(page: Any) -> None:
    card = page.locator(".fronts").first
    assert card.locator("figure.front:visible").count() == 1
    card.locator(".tabs button", has_text="file size").click()
    assert (
        card.locator("figure.front:visible svg").get_attribute("aria-label").startswith("RMSE against file size on cpu")
    )


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory, a_run: Path) -> Path:
    """A run of 1,000 cells that all ran: a run's cells under further names, each with files of its own."""
    source, folder = load_run(a_run), RunFolder(tmp_path_factory.mktemp("thousand"))
    done = [record for record in source.records if record.status == "ok" and record.target in {"cpu", "jetson-nano"}]
    records: list[Record] = []
    for copy in range(1000 // len(done) + 1):
        for record in done:
            evaluation = f"{record.evaluation}-{copy}"
            renamed = replace(record, id=f"{record.id}.{copy}", model=f"{record.model}-{copy}", evaluation=evaluation)
            records.append(renamed)
    records = records[:1000]
    write_json(folder.manifest, source.manifest | {"cells": [record.id for record in records]})
    for record in records:
        folder.write_record(record)
        name, _, copy = (record.evaluation or "").rpartition("-")
        if not folder.evaluation_path(record.evaluation or "").is_file():
            evaluation = read_json(source.folder.evaluation_path(name))
            metrics = {k: [x * (1 + 0.01 * int(copy)) for x in v] for k, v in evaluation["metrics"].items()}
            write_json(folder.evaluation_path(record.evaluation or ""), evaluation | {"metrics": metrics})
            if copy == "0":
                samples = folder.samples_path(record.evaluation or "")
                samples.parent.mkdir(exist_ok=True)
                samples.write_bytes(source.folder.samples_path(name).read_bytes())
    return folder.root


@pytest.fixture(scope="module")
def large_page(thousand: Path) -> Path:
    """The page of the large run."""
    return build_report(thousand, notebook=False)


def test_a_page_of_a_thousand_cells_is_small(large_page: Path) -> None:
    assert len(load_run(large_page.parents[1]).cells) == 1000
    assert large_page.stat().st_size < 15e6


def test_a_page_of_a_thousand_cells_opens_and_filters(browser: Any, large_page: Path) -> None:
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.goto(large_page.as_uri())
    opened.fill("input[name=text]", "mobilevit-xxs-3")
    assert opened.locator("form.filters output").text_content().endswith("of 1000 cells")
    assert opened.locator("#cells tbody tr:visible").count() > 0
    opened.close()
