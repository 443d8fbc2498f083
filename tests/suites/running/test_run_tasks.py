"""The tasks of a run: which come after which, and when a cell is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from depthbench.compression.recipes import RECIPES
from depthbench.suites.models import ModelSpec
from depthbench.suites.plan import Data, Job
from depthbench.suites.running.execution import Call, Done
from depthbench.suites.running.run_tasks import File, RunTasks
from depthbench.suites.running.shared_evaluation import evaluation_key
from depthbench.suites.running.tasks import Task
from depthbench.suites.source import DataSource
from depthbench.suites.stages import Artefact, ArtefactSpec
from depthbench.suites.targets import TARGETS

DATA = Data("rooms", "test", 4, "native", "d")
SOURCE = DataSource("rooms", "native")


def cell(model: str, recipe: str, target: str, data: Data = DATA) -> tuple[Job, File]:
    spec = ModelSpec(model, "function", "user", f"digest of {model}")
    precision = RECIPES[recipe].precision[TARGETS[target].kind]
    made = ArtefactSpec(spec, RECIPES[recipe], (32, 32), precision, TARGETS[target].opset, SOURCE, None)
    name = f"{model} {recipe} {target} {data.name}"
    job = Job(name, spec, RECIPES[recipe], (32, 32), TARGETS[target], data, "quick", precision, None)
    return job, File(f"{model}-{recipe}-{precision}", made)


def made(key: str) -> Artefact:
    return Artefact(key, Path(), f"sha of {key}", (32, 32), "fp32", [], {})


def by_stage(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    return {stage: [task for task in tasks if task.stage == stage] for stage in dict.fromkeys(t.stage for t in tasks)}


def test_shared_work_is_one_task() -> None:
    forms = [("prune30", "jetson-nano"), ("prune30", "jetson-tx2"), ("prune30", "desktop-cpu"), ("fp32", "desktop-cpu")]
    tasks = RunTasks([cell("net", *form) for form in forms], {}).all()
    stages = by_stage(tasks)
    assert {stage: len(found) for stage, found in stages.items()} == {
        "compression": 1,
        "artefacts": 3,
        "accuracy": 1,
        "latency": 3,
    }
    [compression] = stages["compression"]
    after = {task.key: task.after for task in stages["artefacts"]}
    assert sorted(map(len, after.values())) == [0, 1, 1]
    assert {key for keys in after.values() for key in keys} == {compression.key}
    assert set(stages["accuracy"][0].after) == set(after)
    last = tasks[-1]
    assert last.key == "latency on desktop-cpu"
    assert set(last.after) == {task.key for task in tasks[:-1]}  # what measures this machine waits for all else
    call = compression.begin(1)
    assert isinstance(call, Call)
    assert call.label == "compressing net by prune30"
    assert call.makes[0][0] == "networks"
    places = {task.key: place for place, task in enumerate(tasks)}
    assert all(places[key] < places[task.key] for task in tasks for key in task.after)


def test_a_failed_compression_fails_the_cells_made_of_it() -> None:
    cells = [cell("net", "prune30", "desktop-cpu"), cell("net", "fp32", "desktop-cpu")]
    run = RunTasks(cells, {})
    tasks = by_stage(run.all())
    reason = "compression: ValueError: no"
    assert run.over(tasks["compression"][0], Done(reason=reason)) == []
    for task in tasks["artefacts"]:
        begun = task.begin(1)
        if task.after:
            assert begun == Done(reason=reason)
            assert run.over(task, Done(reason=reason)) == []
        else:
            assert run.over(task, Done(made("net-fp32-fp32"))) == []
    [accuracy] = tasks["accuracy"]
    call = accuracy.begin(1)
    assert isinstance(call, Call)
    assert [one.key for one in call.arguments[0]] == ["net-fp32-fp32"]
    [failed] = run.over(accuracy, Done({}))
    assert (failed.id, failed.status, failed.reason) == ("net prune30 desktop-cpu rooms", "failed", reason)
    [latency] = tasks["latency"]
    measuring = latency.begin(1)
    assert isinstance(measuring, Call)
    assert [file.made.key for file in measuring.arguments[1]] == ["net-fp32-fp32"]
    [other] = run.over(latency, Done(reason="latency: the process that worked on it died"))
    assert (other.status, other.reason) == ("failed", "latency: the process that worked on it died")
    assert other.evaluation == evaluation_key(made("net-fp32-fp32"), DATA)


def test_a_file_that_cannot_be_scored_is_not_measured() -> None:
    run = RunTasks([cell("net", "fp32", "desktop-cpu"), cell("other", "fp32", "desktop-cpu")], {})
    tasks = by_stage(run.all())
    for task in tasks["artefacts"]:
        run.over(task, Done(made(task.key.removeprefix("artefact "))))
    [failed] = run.over(tasks["accuracy"][0], Done({"other-fp32-fp32": "accuracy: ValueError: not finite"}))
    assert failed.reason == "accuracy: ValueError: not finite"
    call = tasks["latency"][0].begin(1)
    assert isinstance(call, Call)
    assert [file.made.key for file in call.arguments[1]] == ["net-fp32-fp32"]


@pytest.mark.parametrize("other", [DATA, replace(DATA, name="folder")])
def test_accuracy_is_a_task_for_each_data_set(other: Data) -> None:
    tasks = RunTasks([cell("net", "fp32", "desktop-cpu"), cell("net", "fp32", "desktop-cpu", other)], {}).all()
    stages = by_stage(tasks)
    assert len(stages["accuracy"]) == (1 if other is DATA else 2)
    assert len(stages["artefacts"]) == len(stages["latency"]) == 1
