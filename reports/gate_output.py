"""A gate's result for people (a table, Markdown with a sparkline) and for machines (JSON, JUnit XML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from depthbench.reports.gate import EXIT_CODES, Check, Verdict, overall

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1
"""Of the JSON document. History: 1, first version."""

MARKS = {
    "pass": "✓",
    "accepted": "✓",
    "follows": "·",
    "skipped": "·",
    "fail": "✗",
    "ambiguous": "?",
    "contaminated": "!",
}
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class GateReport:
    """A judged gate. By artefact: ``values``, the head's; ``attempts``, raw timings. ``notes``: one line each."""

    base: str
    head: str
    checks: Sequence[Check]
    notes: Sequence[str] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attempts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    finished: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The worst of all checks."""
        return overall(self.checks)

    @property
    def exit_code(self) -> int:
        """0 pass or ambiguous, 1 fail, 3 contaminated."""
        return EXIT_CODES[self.verdict]

    @property
    def artefacts(self) -> list[str]:
        """Names of the artefacts, in order."""
        return list(dict.fromkeys(check.artefact for check in self.checks))

    def shown(self) -> list[Check]:
        """What a person wants to see: whatever moved, was measured or did not pass."""
        return [c for c in self.checks if c.state not in ("pass", "skipped") or c.interval or c.change]

    def headline(self) -> str:
        """One sentence."""
        counts = {state: sum(check.state == state for check in self.checks) for state in MARKS}
        parts = [f"{count} {state}" for state, count in counts.items() if count and state not in ("skipped", "follows")]
        return f"{self.verdict}: {', '.join(parts) or 'nothing to compare'} in {len(self.artefacts)} artefacts"


def to_json(report: GateReport) -> dict[str, Any]:
    """One JSON document with everything, raw timings included."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "gate",
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "base": report.base,
        "head": report.head,
        "finished": report.finished,
        "seconds": round(report.seconds, 2),
        "checks": [{key: _plain(value) for key, value in asdict(check).items()} for check in report.checks],
        "notes": list(report.notes),
        "values": {name: dict(values) for name, values in report.values.items()},
        "attempts": {name: list(attempts) for name, attempts in report.attempts.items()},
        "environment": dict(report.environment),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def change_text(check: Check) -> str:
    """By how much: ``+3.1 %``; empty for what is no number."""
    return "" if check.change is None else f"{check.change:+.2%}"


def sure_text(check: Check) -> str:
    """How sure: the 95 % interval of a measured change, ``exact`` for a counted one."""
    if check.interval is None:
        return "exact" if check.base else ""
    return f"{check.interval[0]:+.1%} to {check.interval[1]:+.1%}"


def table(report: GateReport) -> Table:
    """What changed, by how much, how sure, in which layers."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=f"{report.base} → {report.head}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "artefact", "check", "base", "head", "change", "sure", "layers"):
        shown.add_column(column, overflow="fold")
    previous = None
    for check in report.shown():
        shown.add_row(
            MARKS[check.state],
            "" if check.artefact == previous else Text(check.artefact),
            f"{check.metric} ({check.state})" if check.state not in ("pass", "fail") else check.metric,
            Text(check.base),
            Text(check.head),
            change_text(check),
            sure_text(check),
            Text(_few(check.layers)),
        )
        previous = check.artefact
    return shown


def _few(layers: Sequence[str], most: int = 2) -> str:
    return ", ".join(layers[:most]) + (f" +{len(layers) - most}" if len(layers) > most else "")


def markdown(report: GateReport, history: Mapping[tuple[str, str], Sequence[float]] | None = None) -> str:
    """A summary for a pull request. ``history``: earlier values by (artefact, metric), drawn as sparklines."""
    sign = {"pass": "✅", "fail": "❌", "ambiguous": "⚠️", "contaminated": "🚫"}[report.verdict]
    lines = [f"## {sign} Efficiency: {report.headline()}", "", f"`{report.base}` → `{report.head}`", ""]
    shown = report.shown()
    if shown:
        lines += [
            "| | artefact | check | base | head | change | sure | layers | history |",
            "| --- | --- | --- | ---: | ---: | ---: | --- | --- | --- |",
        ]
    for check in shown:
        past = (history or {}).get((check.artefact, check.metric), ())
        cells = (
            MARKS[check.state],
            check.artefact,
            check.metric if check.state in ("pass", "fail") else f"{check.metric} ({check.state})",
            check.base,
            check.head,
            change_text(check),
            sure_text(check),
            _few(check.layers),
            sparkline(past),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    stopped = [check for check in report.checks if check.state in ("fail", "contaminated", "ambiguous")]
    if stopped:
        lines += ["", "<details open><summary>Why</summary>", ""]
        lines += [f"- **{check.artefact}** {check.message}" + _because(check) for check in stopped]
        lines += ["", "</details>"]
    if report.verdict == "fail":
        lines += ["", 'Meant? `depthbench gate ... --accept --reason "why"`, then commit efficiency.accepted.yaml.']
    lines += [*([""] if report.notes else []), *(f"> {note}" for note in report.notes), ""]
    return "\n".join(lines)


def _because(check: Check) -> str:
    return f" (tolerance {check.tolerance:.1%}: {check.reason})" if check.tolerance is not None and check.reason else ""


def sparkline(values: Sequence[float], most: int = 12) -> str:
    """The last values as bars of eight heights; empty below two values."""
    last = list(values)[-most:]
    if len(last) < 2:
        return ""
    low, span = min(last), (max(last) - min(last)) or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in last)


def junit(report: GateReport) -> bytes:
    """JUnit XML: a suite per artefact, a case per check; contaminated is an error, ambiguous a skip with its reason."""
    root = ElementTree.Element("testsuites", name="depthbench gate", time=f"{report.seconds:.2f}")
    for artefact in report.artefacts:
        checks = [check for check in report.checks if check.artefact == artefact]
        states = [check.state for check in checks]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=artefact,
            tests=str(len(checks)),
            failures=str(states.count("fail")),
            errors=str(states.count("contaminated")),
            skipped=str(sum(state in ("ambiguous", "skipped", "follows") for state in states)),
        )
        for check in checks:
            case = ElementTree.SubElement(suite, "testcase", name=check.metric, classname=artefact)
            if check.state in ("fail", "contaminated"):
                kind = "failure" if check.state == "fail" else "error"
                ElementTree.SubElement(case, kind, message=check.message, type=check.state).text = check.reason
            elif check.state in ("ambiguous", "skipped", "follows"):
                ElementTree.SubElement(case, "skipped", message=check.message)
            else:
                ElementTree.SubElement(case, "system-out").text = check.message
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
