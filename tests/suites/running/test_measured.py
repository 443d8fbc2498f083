"""Measuring files as a worker does: a second attempt for what fails, and reasons for forms that are hardly faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from depthbench.compression.recipes import RECIPES
from depthbench.suites.models import ModelSpec
from depthbench.suites.results import Latency
from depthbench.suites.running import measured
from depthbench.suites.running.measured import Measurable, measure, parents
from depthbench.suites.source import DataSource
from depthbench.suites.stages import Artefact
from depthbench.suites.storage.disk import FullDiskError
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.measuring import Work

Answer = dict[str, float | None] | Exception


def files(*forms: tuple[str, str]) -> list[Measurable]:
    """A file a network and recipe."""
    return [
        Measurable(
            Artefact(f"{model}-{recipe}", Path(), "", (32, 32), "int8" if recipe == "int8" else "fp32", [], {}),
            ModelSpec(model, "catalogue", "x", model),
            RECIPES[recipe],
            DataSource("rooms", "native"),
        )
        for model, recipe in forms
    ]


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> list[list[str]]:
    """Have the target give these latencies by key, one answer a call; the keys of each call."""
    calls: list[list[str]] = []
    waiting = list(answers)

    def measure_group(target: Any, work: Sequence[Work], profile: str, **_: Any) -> list[Outcome]:
        assert target.name == "desktop-cpu"
        assert profile == "quick"
        keys = [one.path.parent.name for one in work]
        calls.append(keys)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        times = [answer[key] for key in keys]
        return [
            Outcome(None, f"{key} went wrong") if t is None else Outcome(Latency("measured", [t]))
            for key, t in zip(keys, times, strict=True)
        ]

    monkeypatch.setattr(measured, "measure_group", measure_group)
    return calls


def medians(outcomes: Sequence[Outcome]) -> list[float | str | None]:
    return [one.latency.samples_ms[0] if one.latency else one.reason for one in outcomes]


def test_what_fails_is_measured_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, {"a-fp32": 1, "b-fp32": None, "c-fp32": None}, {"b-fp32": 2, "c-fp32": None})
    found = measure("desktop-cpu", files(("a", "fp32"), ("b", "fp32"), ("c", "fp32")), "quick")
    assert medians(found.outcomes) == [1, 2, "c-fp32 went wrong"]
    assert calls == [["a-fp32", "b-fp32", "c-fp32"], ["b-fp32", "c-fp32"]]


def test_a_board_that_does_not_answer_is_asked_once_more_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, {"a-fp32": None, "b-fp32": None}, {"a-fp32": None, "b-fp32": None})
    found = measure("desktop-cpu", files(("a", "fp32"), ("b", "fp32")), "quick")
    assert medians(found.outcomes) == ["a-fp32 went wrong", "b-fp32 went wrong"]
    assert calls == [["a-fp32", "b-fp32"]] * 2


def test_after_a_failure_of_all_each_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = RuntimeError("one of them\nkills it")
    calls = answering(monkeypatch, broken, {"a-fp32": 1}, broken)
    found = measure("desktop-cpu", files(("a", "fp32"), ("b", "fp32")), "quick")
    assert medians(found.outcomes) == [1, "latency: RuntimeError: one of them kills it"]
    assert calls == [["a-fp32", "b-fp32"], ["a-fp32"], ["b-fp32"]]


def test_a_full_disk_is_no_files_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, FullDiskError("no space"))
    with pytest.raises(FullDiskError):
        measure("desktop-cpu", files(("a", "fp32")), "quick")


def test_parents() -> None:
    several = files(("a", "int8"), ("a", "fp32"), ("b", "fp32"), ("b", "prune30"), ("c", "int8"))
    assert parents(several) == {0: 1, 3: 2}


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Pairs of files that were explained; explaining ``b`` fails."""
    pairs: list[tuple[str, str]] = []

    def explain(parent: Path, child: Path, **options: Any) -> Any:
        assert options["target"] == "desktop-cpu"
        pairs.append((parent.parent.name, child.parent.name))
        if child.parent.name.startswith("b"):
            raise ValueError("no kernels")
        return SimpleNamespace(to_json=lambda: {"sentences": [f"why {options['names'][1]}"]})

    monkeypatch.setattr("depthbench.suites.explain.explain", explain)
    return pairs


def test_forms_that_are_hardly_faster_are_explained(
    monkeypatch: pytest.MonkeyPatch, explained: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(measured, "EXPLAIN_S", 0.0)
    monkeypatch.setattr(measured, "EXPLAIN_SHARE", 1e9)
    times: Answer = {"a-fp32": 2.4, "a-int8": 2.01, "a-prune30": 2.0, "b-fp32": 1, "b-int8": 3}
    answering(monkeypatch, times)
    forms = files(("a", "fp32"), ("a", "int8"), ("a", "prune30"), ("b", "fp32"), ("b", "int8"))
    found = measure("desktop-cpu", forms, "quick")
    assert explained == [("a-fp32", "a-int8"), ("b-fp32", "b-int8")]
    assert found.explanations == {
        1: {"sentences": ["why a:int8"]},
        4: {"sentences": [], "error": "ValueError: no kernels"},
    }


def test_explaining_takes_a_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, explained: list[tuple[str, str]]
) -> None:
    answering(monkeypatch, {"a-fp32": 1, "a-int8": 1})
    assert measure("desktop-cpu", files(("a", "fp32"), ("a", "int8")), "quick").explanations == {}
    assert explained == []
