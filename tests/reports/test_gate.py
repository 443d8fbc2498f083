"""Judging accuracy in pairs, verdicts and exit codes, outputs, and files of pytest-benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from depthbench.reports.gate import Check, Limit, State, judge_accuracy, overall
from depthbench.reports.gate_benchmarks import judge_files
from depthbench.reports.gate_output import GateReport, junit, markdown, sparkline, to_json

LIMITS = {"rmse_m": Limit(0.01, "seen"), "delta1": Limit(0.01, "seen")}


def images(change: float, spread: float = 0.0, n: int = 32) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per-image values of a base, and of a head that differs by a share of the mean, more or less by image."""
    rng = np.random.default_rng(0)
    hard, own = rng.normal(0, 0.2, n), rng.normal(0, 1, n)
    base = {"rmse_m": 0.6 + hard, "delta1": 0.8 - hard / 3}
    own -= own.mean()
    head = {name: values + values.mean() * (change + spread * own) for name, values in base.items()}
    return base, head


def judge(change: float, spread: float = 0.0, n: int = 32, **options: Any) -> dict[str, Check]:
    base, head = images(change, spread, n)
    return {check.metric: check for check in judge_accuracy("net", base, head, LIMITS, **options)}


@pytest.mark.parametrize(
    ("change", "spread", "outcome"),
    [(0.0, 0.0, "pass"), (0.008, 0.001, "pass"), (0.03, 0.01, "fail"), (0.03, 0.5, "ambiguous"), (0.005, 0.5, "pass")],
)
def test_accuracy_is_judged_in_pairs(change: float, spread: float, outcome: State) -> None:
    assert judge(change, spread)["rmse_m"].state == outcome


def test_the_better_side_depends_on_the_metric() -> None:
    worse, better = judge(0.03, 0.01), judge(-0.03, 0.01)
    assert worse["rmse_m"].message.endswith(": worse than 1.0%")
    assert worse["delta1"].message.endswith("the reference is stale, settle it with --accept")
    assert better["rmse_m"].message.endswith("the reference is stale, settle it with --accept")
    assert better["delta1"].message.endswith(": worse than 1.0%")


def test_too_few_images_are_not_judged() -> None:
    check = judge(0.5, n=9)["rmse_m"]
    assert check.state == "ambiguous"
    assert check.message == "rmse_m: 9 images are too few for an interval"


def test_images_without_ground_truth_are_left_out() -> None:
    base, head = images(0.0)
    base["rmse_m"][3] = head["rmse_m"][7] = np.nan
    [check, _] = judge_accuracy("net", base, head, LIMITS)
    assert check.state == "pass"
    assert check.change == 0


def test_accepted_accuracy() -> None:
    _, head = images(0.03, 0.01)
    accepted = {"reason": "retrained", "onnxruntime": "1.30.0", "accuracy": {"rmse_m": float(head["rmse_m"].mean())}}
    check = judge(0.03, 0.01, accepted=accepted, onnxruntime="1.31.1")["rmse_m"]
    assert check.state == "accepted"
    assert check.message.endswith("; accepted: retrained")
    accepted["accuracy"] = {"rmse_m": 0.1}
    check = judge(0.03, 0.01, accepted=accepted, onnxruntime="1.31.1")["rmse_m"]
    assert check.state == "ambiguous"
    assert check.message.endswith("accepted under onnxruntime 1.30.0, this is 1.31.1; accept it again")
    assert judge(0.03, 0.01, accepted=accepted, onnxruntime="1.30.0")["rmse_m"].state == "fail"


def report(*states: State) -> GateReport:
    checks = [
        Check("net", f"metric{i}", state, f"metric{i}: 1 → 2", "1", "2", 1.0, layers=("a.Conv", "b.Conv", "c.Conv"))
        for i, state in enumerate(states)
    ]
    return GateReport("main", "work|tree", checks, ["a note"])


@pytest.mark.parametrize(
    ("states", "verdict", "code"),
    [
        (["pass", "accepted", "follows", "skipped"], "pass", 0),
        (["pass", "ambiguous"], "ambiguous", 0),
        (["ambiguous", "contaminated", "pass"], "contaminated", 3),
        (["contaminated", "fail", "ambiguous"], "fail", 1),
        ([], "pass", 0),
    ],
)
def test_the_worst_decides(states: list[State], verdict: str, code: int) -> None:
    made = report(*states)
    assert overall(made.checks) == made.verdict == verdict
    assert made.exit_code == code
    assert json.loads(json.dumps(to_json(made), allow_nan=False))["verdict"] == verdict


def test_markdown_is_a_table_with_reasons_and_history() -> None:
    text = markdown(report("fail", "pass"), {("net", "metric0"): [1, 2, 3]})
    assert "## ❌ Efficiency: fail: 1 pass, 1 fail in 1 artefacts" in text
    assert "| ✗ | net | metric0 | 1 | 2 | +100.00% | exact | a.Conv, b.Conv +1 | ▁▅█ |" in text
    assert "- **net** metric0: 1 → 2" in text
    assert "> a note" in text
    assert "--accept" in text
    assert "--accept" not in markdown(report("pass"))


def test_junit_counts() -> None:
    root = ElementTree.fromstring(junit(report("fail", "contaminated", "ambiguous", "follows", "pass")))
    [suite] = root
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "2",
    }
    assert [child.tag for case in suite for child in case] == ["failure", "error", "skipped", "skipped", "system-out"]


@pytest.mark.parametrize(("values", "drawn"), [([1], ""), ([1, 1], "▁▁"), ([0, 7], "▁█"), (range(20), "▁▂▂▃▄▄▅▅▆▇▇█")])
def test_sparkline(values: Any, drawn: str) -> None:
    assert sparkline(values) == drawn


def benchmarks(path: Path, factor: float = 1.0, control: float = 1.0, n: int = 50, **machine: Any) -> Path:
    rng = np.random.default_rng(int(100 * factor))

    def one(name: str, seconds: float, extra: dict[str, Any]) -> dict[str, Any]:
        data = (seconds * (1 + rng.normal(0, 0.01, n))).tolist()
        found = {"median": float(np.median(data)), "data": data}
        return {"name": name, "fullname": f"tests/benchmarks/test_a.py::{name}", "stats": found, "extra_info": extra}

    entries = [one("control", 0.01 * control, {"control": True}), one("session[a/b]", 0.02 * factor, {})]
    path.write_text(json.dumps({"benchmarks": entries, "machine_info": machine}))
    return path


@pytest.mark.parametrize(
    ("factor", "options", "outcome", "words"),
    [
        (1.0, {}, "pass", ""),
        (0.5, {}, "pass", ""),
        (1.3, {}, "fail", "slower by more than 10.0%"),
        (1.101, {}, "ambiguous", "beyond 10%, but not sure"),
        (1.3, {"control": 1.3}, "contaminated", "the control moved by"),
        (1.3, {"n": 5}, "ambiguous", "fewer than 10 raw times are stored"),
        (1.3, {"cpu": {"brand_raw": "other"}}, "ambiguous", "another processor (None against other)"),
        (1.3, {"libraries": {"onnxruntime": "2"}}, "ambiguous", "onnxruntime None against 2"),
    ],
)
def test_two_files_of_pytest_benchmark(
    tmp_path: Path, factor: float, options: dict[str, Any], outcome: State, words: str
) -> None:
    made = judge_files(benchmarks(tmp_path / "a.json"), benchmarks(tmp_path / "b.json", factor, **options), {})
    check = next(check for check in made.checks if check.artefact == "session[a/b]")
    assert check.state == outcome, check.message
    assert words in check.message
    assert made.verdict == outcome


def test_a_benchmark_may_have_its_own_limit(tmp_path: Path) -> None:
    before, after = benchmarks(tmp_path / "a.json"), benchmarks(tmp_path / "b.json", 1.3)
    assert judge_files(before, after, {"session[a/b]": Limit(0.5, "noisy")}).verdict == "pass"
    assert judge_files(before, after, {"default": Limit(0.5, "noisy")}).verdict == "pass"


def test_files_that_are_none_of_pytest_benchmark(tmp_path: Path) -> None:
    good, bad = benchmarks(tmp_path / "a.json"), tmp_path / "b.json"
    bad.write_text("{}")
    with pytest.raises(ValueError, match=r"b\.json: not a file of pytest-benchmark \(it has no 'benchmarks'\)$"):
        judge_files(good, bad, {})
    bad.write_text("{")
    with pytest.raises(ValueError, match=r"b\.json: not valid JSON"):
        judge_files(good, bad, {})
    with pytest.raises(ValueError, match=r"none\.json: no such file$"):
        judge_files(good, tmp_path / "none.json", {})
