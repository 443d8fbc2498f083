from __future__ import annotations

import re

from depthbench.reports.load import Run
from depthbench.reports.tables import escape, latex, markdown, paper_table


def test_markdown_has_a_table_per_target_with_the_best_in_bold(run: Run) -> None:
    text = markdown(run.cells)
    assert re.findall(r"^### (.+)$", text, re.MULTILINE)[:2] == ["cpu: rooms (native)", "jetson-nano: rooms (native)"]
    [line] = [line for line in text.splitlines() if line.startswith("| mobilevit-xxs | fp32 |")]
    assert "**0.470 ± 0.0" in line
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {12}
    assert "≈ 8.80" in text


def test_latex_is_balanced_and_escaped(run: Run) -> None:
    text = latex(run.cells)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 5
    assert text.count("{") == text.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {10}
    assert r"\textbf{0.470 $\pm$ 0.0" in text
    assert not re.search(r"(?<!\\)[%_#]", re.sub(r"\\resizebox.*|delta_1", "", text))
    assert escape("a_b & 5 % δ1 \\ ~") == r"a\_b \& 5 \% $\delta_1$ \textbackslash{} \textasciitilde{}"


def test_rows_are_ordered_by_latency(run: Run) -> None:
    cells = run.cells[run.cells["target"] == "cpu"]
    table = paper_table(cells)
    latencies = [value for value, _ in table["latency [ms]"]]
    assert latencies == sorted(latencies)
    assert len(table) == (cells["status"] == "ok").sum()


def test_nothing_is_said_in_words(run: Run) -> None:
    assert markdown(run.cells[:0]) == "No cell of this run has numbers yet.\n"
    assert latex(run.cells[:0]) == "% no cell of this run has numbers yet\n"
