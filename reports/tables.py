"""Tables for papers and READMEs: one per target, in LaTeX (booktabs) or Markdown, the best of each column in bold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from depthbench.reports.payoff import HARDLY, SLOWER, Notes
from depthbench.reports.summary import MISSING, significant

BEST = {"RMSE [m]": min, "AbsRel": min, "δ1": max, "latency [ms]": min, "GMAC": min, "size [MB]": min}
"""Columns in which the best number is set in bold, and which is the best."""

_LATEX = {"\\": r"\textbackslash{}", "δ1": r"$\delta_1$", "±": r"$\pm$", "×": r"$\times$", "≈": r"$\approx$", "–": "--"}
_LATEX |= {character: "\\" + character for character in "&%$#_{}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"$\mu$"}
_LATEX |= {SLOWER: r"$\blacktriangledown$", HARDLY: r"$\triangledown$"}
_LATEX |= {digit: rf"\textsuperscript{{{value}}}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}


def paper_table(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of one target that ran, fastest first, as text, with the numbers of ``BEST`` under ``("value", column)``.

    Columns: network, recipe, input, RMSE and half its 95 % interval, AbsRel, δ1, latency (≈: predicted; marked with the
    number of its reason where the form did not pay), GMAC, size, the probability of being on the front, and the speed-up.
    """
    notes = Notes(cells)
    done = cells[cells["status"] == "ok"].sort_values(["latency_ms", "rmse_m"], kind="stable")
    rows = []
    for _, cell in done.iterrows():
        half = (cell["rmse_hi_m"] - cell["rmse_lo_m"]) / 2
        spread = "" if pd.isna(half) else f" ± {half:.3f}"
        sign = "≈ " if cell["latency_kind"] == "predicted" else ""
        rows.append(
            {
                "network": cell["model"],
                "recipe": cell["recipe"],
                "input": f"{cell['height']}×{cell['width']}",
                "RMSE [m]": (cell["rmse_m"], f"{cell['rmse_m']:.3f}{spread}"),
                "AbsRel": (cell["abs_rel"], f"{cell['abs_rel']:.3f}"),
                "δ1": (cell["delta1"], f"{cell['delta1']:.3f}"),
                "latency [ms]": (cell["latency_ms"], f"{sign}{significant(cell['latency_ms'])}{notes.mark(cell)}"),
                "GMAC": (cell["gmacs"], f"{cell['gmacs']:.3f}"),
                "size [MB]": (cell["size_mb"], f"{cell['size_mb']:.2f}"),
                "on front": (cell["front_probability"], f"{cell['front_probability']:.0%}"),
                "speed-up": (cell["speedup"], f"{cell['speedup']:.2f}"),
            }
        )
    names = ["network", "recipe", "input", *BEST, "on front", "speed-up"]
    return pd.DataFrame(rows, columns=names)


def _texts(table: pd.DataFrame, bold: Callable[[str], str], plain: Callable[[str], str]) -> list[list[str]]:
    best = {
        name: choose((value for value, _ in table[name] if not pd.isna(value)), default=None)
        for name, choose in BEST.items()
    }
    lines = []
    for row in table.to_dict("records"):
        line = []
        for name, entry in row.items():
            if not isinstance(entry, tuple):
                line.append(plain(str(entry)))
                continue
            value, text = entry
            text = plain(MISSING if pd.isna(value) else text)
            line.append(bold(text) if not pd.isna(value) and value == best.get(str(name)) else text)
        lines.append(line)
    return lines


def _groups(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """Title, table and the reasons of its marks of each target and data set."""
    done = cells[cells["status"] == "ok"]
    keys = ["target", "dataset", "protocol"]
    return [
        (f"{target}: {dataset} ({protocol})", paper_table(group), Notes(group).lines())
        for (target, dataset, protocol), group in done.groupby(keys, sort=False)
    ]


def markdown(cells: pd.DataFrame) -> str:
    """A table per target and data set in GitHub's Markdown, each under a heading; a line saying so when nothing ran."""
    parts = []
    for title, table, reasons in _groups(cells):
        lines = _texts(table, lambda text: f"**{text}**", lambda text: text.replace("|", "\\|"))
        rules = ["---" if name in {"network", "recipe"} else "--:" for name in table.columns]
        rows = [list(map(str, table.columns)), rules, *lines]
        told = "".join(f"\n\n{line}" for line in reasons)
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + told)
    note = "± half the bootstrap 95 % interval over images; ≈ predicted, not measured; bold: the best of a column."
    return "\n\n".join([*parts, note]) + "\n" if parts else "No cell of this run has numbers yet.\n"


def latex(cells: pd.DataFrame) -> str:
    """A ``table`` environment per target and data set (packages booktabs, graphicx and amssymb); a comment when nothing ran."""
    parts = []
    for title, table, reasons in _groups(cells):
        lines = _texts(table, lambda text: rf"\textbf{{{text}}}", escape)
        columns = "".join("l" if name in {"network", "recipe"} else "r" for name in table.columns)
        names = [escape(str(name)) for name in table.columns]
        parts.append(_environment(escape(title), columns, names, lines, [escape(line) for line in reasons]))
    return "\n\n".join(parts) + "\n" if parts else "% no cell of this run has numbers yet\n"


def _environment(
    title: str, columns: str, head: Sequence[str], lines: Sequence[Sequence[str]], reasons: Sequence[str]
) -> str:
    note = r"$\pm$: half the bootstrap 95\,\% interval over images. $\approx$: predicted, not measured."
    rows = [" & ".join(line) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{title}. {note}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            *(rf"\par\footnotesize\raggedright {line}" for line in reasons),
            r"\end{table}",
        ]
    )


def escape(text: str) -> str:
    """Text as LaTeX shows it literally."""
    result = text.replace("δ1", "\0")
    result = "".join(_LATEX.get(character, character) for character in result)
    return result.replace("\0", _LATEX["δ1"])
