"""What commands print is what they were given: names and paths may look like markup."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.table import Table

from depthbench.suites.cli.app import invoke
from depthbench.suites.cli.output import err, out, print_table, print_wide, stages


def test_brackets_and_colons_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("d[/x].onnx :smile:", [{"a[b]": "[red]x[/red]", "c": None}])
    out.print("out: [bold]y")
    err.print("err: [/z]")
    with stages() as progress:
        progress("reading [/x]", 1, 1)
    said = capsys.readouterr()
    for text in ("d[/x].onnx :smile:", "a[b]", "[red]x[/red]", "out: [bold]y"):
        assert text in said.out
    for text in ("err: [/z]", "reading [/x]: 100%"):
        assert text in said.err


@pytest.mark.parametrize("columns", [80, 200])
def test_wide_tables_are_not_cut_short(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table(box=None)
    for name in range(18):
        table.add_column(f"value{name}", no_wrap=True)
    table.add_column("reason")
    table.add_row(*["0.564–0.565"] * 18, "words that go on " * 20)
    print_wide(table)
    said = capsys.readouterr().out
    assert said.count("0.564–0.565") == 18
    assert said.count("words") == 20
    assert "…" not in said


def test_doctor_says_what_to_install(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthbench.suites.cli.listing._version", lambda name: None if name == "openvino" else "1")
    monkeypatch.setenv("COLUMNS", "300")
    assert invoke(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "would enable a second runtime on the CPU (pip install 'depthbench[openvino]')" in said
    assert "│ enables training curves in TensorBoard" in said


def test_lists_of_what_there_is_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(name: str) -> dict[str, dict[str, Any]]:
        assert invoke([name, "--json"]) == 0
        return {one["name"]: one for one in json.loads(capsys.readouterr().out)[name]}

    recipe = listed("recipes")["prune30-int8"]
    assert recipe["steps"] == ["prune", "finetune"]
    assert recipe["precision"]["cpu"] == "int8"
    targets = listed("targets")
    assert (targets["desktop-cpu"]["available"], targets["desktop-cpu"]["reason"]) == (True, None)
    assert all(one["available"] == (one["reason"] is None) for one in targets.values())
    models = listed("models")
    assert (models["tst-s"]["weights"], models["tst-source"]["weights"]) == (True, False)
    assert invoke(["recipes"]) == 0
    assert "prune → finetune" in capsys.readouterr().out
