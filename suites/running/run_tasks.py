"""The tasks of a run: training → compression → artefacts (with their profiles) → accuracy → latency, and their records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from depthbench.suites.compressing import network_key
from depthbench.suites.data import USUAL, Access
from depthbench.suites.models import ModelSpec
from depthbench.suites.plan import Data, Job, shipped_child
from depthbench.suites.results import Record, Timings
from depthbench.suites.running import stage_calls
from depthbench.suites.running.exclusion import resource_of
from depthbench.suites.running.execution import Call, Done, StoreKey, perform
from depthbench.suites.running.measured import Measurable, Measured, measure
from depthbench.suites.running.records import completed, unfinished
from depthbench.suites.running.shared_evaluation import evaluation_key, share
from depthbench.suites.running.tasks import Task
from depthbench.suites.running.trained import trained_key
from depthbench.suites.stages import Artefact, ArtefactSpec, stored_artefact
from depthbench.suites.storage.store import Store
from depthbench.suites.targets.board_results import Outcome

Key = TypeVar("Key", bound=Hashable)

Timed = tuple[Outcome, Timings | None, dict[str, Any] | None]
"""A latency, when it was measured, and why it is hardly better than the parent's."""


@dataclass(frozen=True)
class File:
    """What the file of a cell is made of, and its key in the store."""

    key: str
    spec: ArtefactSpec

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its input."""
        return self.spec.size


class RunTasks:
    """The tasks of a run's cells, and what has come of them so far.

    ``cells``: each with its file. ``access``: how the data sets, by name, are reached.
    """

    def __init__(self, cells: Sequence[tuple[Job, File]], access: Mapping[str, Access]) -> None:
        self._cells = cells
        self._access = access
        self._tasks: dict[str, Task] = {}
        self._takes: dict[str, Callable[[Done], None]] = {}  # by task: what is done with its outcome
        self._needed: dict[str, list[int]] = defaultdict(list)  # by task: the cells whose record may wait for it
        self._networks: dict[tuple[str, str, str], str] = {}  # by model and recipe: the key of the compressed network
        self._open = set(range(len(cells)))  # cells without a record
        self._outcomes: dict[str, Done] = {}
        self._scored: dict[tuple[str, Data], str] = {}  # by file and data set: the evaluation
        self._failed: dict[tuple[str, Data], str] = {}  # by file and data set: why there is none
        self._timed: dict[tuple[str, str], Timed] = {}  # by file and target

    def all(self, workers: int = 1) -> list[Task]:
        """Every task, in an order in which they can be carried out; what measures on this machine comes after all others.

        ``workers``: how many carry them out at a time.
        """
        for data, places in self._cells_by(lambda job: job.data).items():
            for group in share(self._files(places), workers=workers):
                self._add_score(group, data, places)
        for place, (job, file) in enumerate(self._cells):
            if job.target.how == "predicted":
                self._add_prediction(file, job.target.name, place)
        measured = self._cells_by(lambda job: (job.target.kind != "board", job.target.name), how="measured")
        for key in sorted(measured, key=lambda key: key[0]):
            self._add_measurement(key[1], measured[key])
        return list(self._tasks.values())

    def over(self, task: Task, done: Done) -> list[Record]:
        """Take what came of a task; the records of the cells that are complete by it."""
        self._outcomes[task.key] = done
        if task.key in self._takes:
            self._takes[task.key](done)
        complete = []
        for place in self._needed[task.key]:
            if place in self._open and (record := self._record(*self._cells[place])) is not None:
                self._open.remove(place)
                complete.append(record)
        return complete

    def _record(self, job: Job, file: File) -> Record | None:
        """The record of a cell, or None as long as something of it is not known."""
        scored, timed = (file.key, job.data), (file.key, job.target.name)
        if scored in self._failed:
            return unfinished(job, "failed", self._failed[scored])
        if scored not in self._scored or timed not in self._timed:
            return None
        return completed(job, self._made(file), self._scored[scored], *self._timed[timed])

    # ----- the tasks, in their order

    def _add_training(self, spec: ModelSpec) -> str:
        call = Call(f"training {spec.name}", stage_calls.train, (spec, self._access), makes=_kept(spec), reports=True)
        return self._add(Task(f"training {spec.digest}", "training", lambda _: _unless_stored(call)))

    def _add_compression(self, file: File) -> str:
        spec = file.spec
        after = (self._add_training(spec.model),) if spec.model.variant else ()
        key = self._network(spec)
        call = Call(
            f"compressing {spec.model.name} by {spec.recipe.name}",
            stage_calls.compress,
            (spec.model, spec.recipe, spec.source),
            needs=_kept(spec.model),
            makes=(("networks", key),),
        )
        return self._add(Task(f"compression {key}", "compression", partial(self._unless_failed, after, call), after))

    def _add_file(self, file: File) -> str:
        spec = file.spec
        if spec.recipe.steps and spec.model.kind != "onnx" and shipped_child(spec.model, spec.recipe) is None:
            after: tuple[str, ...] = (self._add_compression(file),)
            made_of = (*_kept(spec.model), ("networks", self._network(spec)))
        else:
            after = (self._add_training(spec.model),) if spec.model.variant else ()
            made_of = _kept(spec.model)
        call = Call(
            f"making {spec.model.name} {spec.recipe.name} {spec.size[0]}x{spec.size[1]} {spec.precision}",
            stage_calls.export,
            (spec,),
            needs=made_of,
            makes=(("artefacts", file.key),),
        )

        def begin(_: int) -> Call | Done:
            entry = Store("artefacts").get(file.key)
            return Done(stored_artefact(spec, file.key, entry)) if entry else self._unless_failed(after, call)

        return self._add(Task(_task_of(file), "artefacts", begin, after))

    def _add_score(self, group: Sequence[File], data: Data, places: Sequence[int]) -> None:
        after = tuple(self._add_file(file) for file in group)

        def begin(_: int) -> Call | Done:
            made = [self._made(file) for file in group if self._outcomes[_task_of(file)].reason is None]
            if not made:
                return self._outcomes[after[0]]
            missing = {key: one for one in made if Store("evaluations").get(key := evaluation_key(one, data)) is None}
            if not missing:
                return Done({})
            return Call(
                f"accuracy of {len(missing)} files on {data.name}",
                stage_calls.score,
                (list(missing.values()), data, self._access.get(data.name, USUAL)),
                needs=tuple(("artefacts", one.key) for one in missing.values()),
                makes=tuple(("evaluations", key) for key in missing),
            )

        def take(done: Done) -> None:
            for file in group:
                made = self._outcomes[_task_of(file)]
                reason = made.reason or done.reason or done.value.get(file.key)
                if reason is not None:
                    self._failed[file.key, data] = reason
                else:
                    self._scored[file.key, data] = evaluation_key(made.value, data)

        key = self._add(Task(f"accuracy on {data.name} of {' '.join(after)}", "accuracy", begin, after, again=bool))
        self._takes[key] = take
        self._need(key, group, places)

    def _add_prediction(self, file: File, target: str, place: int) -> None:
        after = (_task_of(file),)

        def begin(_: int) -> Done:
            if self._outcomes[after[0]].reason is not None:
                return self._outcomes[after[0]]
            done = perform(Call(f"predicting for {target}", stage_calls.predict, (self._made(file), target)))
            return done if done.reason is None else Done(Outcome(None, f"latency: {done.reason}"), timings=done.timings)

        def take(done: Done) -> None:
            if done.reason is None:
                self._timed[file.key, target] = (done.value, None, None)

        key = self._add(Task(f"latency of {file.key} on {target}", "latency", begin, after, here=True))
        self._takes[key] = take
        self._needed[key].append(place)

    def _add_measurement(self, target: str, places: Sequence[int]) -> None:
        files = self._files(places)
        first = self._cells[places[0]][0]
        board = first.target.kind == "board"
        mine = set(places)
        scores = (key for key, task in self._tasks.items() if task.stage == "accuracy")
        after = tuple(key for key in scores if not mine.isdisjoint(self._needed[key])) if board else tuple(self._tasks)
        measured: list[File] = []

        def begin(_: int) -> Call | Done:
            wanted = {self._cells[place][1].key for place in places if self._is_scored(place)}
            measured[:] = [file for file in files if file.key in wanted]
            if not measured:
                return Done(Measured([]))
            items = [
                Measurable(self._made(file), file.spec.model, file.spec.recipe, file.spec.source) for file in measured
            ]
            return Call(
                f"latency on {target}",
                measure,
                (first.target if first.target.of_suite else target, items, first.measure_profile, first.batches),
                needs=tuple(("artefacts", file.key) for file in measured),
                resource=resource_of(first.target),
                reports=True,
            )

        def take(done: Done) -> None:
            failed = Measured([Outcome(None, done.reason)] * len(measured))
            made: Measured = done.value if done.reason is None else failed
            for place, file in enumerate(measured):
                latency = made.outcomes[place], done.timings, made.explanations.get(place)
                self._timed[file.key, target] = latency

        key = self._add(Task(f"latency on {target}", "latency", begin, after))
        self._takes[key] = take
        self._need(key, files, places)

    # ----- what they share

    def _add(self, task: Task) -> str:
        self._tasks.setdefault(task.key, task)
        return task.key

    def _need(self, key: str, files: Sequence[File], places: Sequence[int]) -> None:
        keys = {file.key for file in files}
        self._needed[key] += [place for place in places if self._cells[place][1].key in keys]

    def _cells_by(self, of: Callable[[Job], Key], how: str | None = None) -> dict[Key, list[int]]:
        """The places of the cells, of one kind of latency or of all, by what ``of`` says of them."""
        groups: dict[Key, list[int]] = defaultdict(list)
        for place, (job, _) in enumerate(self._cells):
            if how is None or job.target.how == how:
                groups[of(job)].append(place)
        return groups

    def _files(self, places: Sequence[int]) -> list[File]:
        """The files of some cells, each once."""
        return list({file.key: file for _, file in (self._cells[place] for place in places)}.values())

    def _is_scored(self, place: int) -> bool:
        job, file = self._cells[place]
        return (file.key, job.data) in self._scored

    def _network(self, spec: ArtefactSpec) -> str:
        same = (spec.model.name, spec.model.digest, spec.recipe.name)
        if same not in self._networks:
            self._networks[same] = network_key(spec.model, spec.recipe, spec.source)
        return self._networks[same]

    def _made(self, file: File) -> Artefact:
        made: Artefact = self._outcomes[_task_of(file)].value
        return stage_calls.stored_here(made)

    def _unless_failed(self, after: Sequence[str], call: Call, _: int = 0) -> Call | Done:
        """A call, unless what it comes after failed or everything that it makes is stored."""
        for key in after:
            if self._outcomes[key].reason is not None:
                return self._outcomes[key]
        return _unless_stored(call)


def _unless_stored(call: Call) -> Call | Done:
    return Done() if all(Store(kind).get(key) is not None for kind, key in call.makes) else call


def _task_of(file: File) -> str:
    return f"artefact {file.key}"


def _kept(spec: ModelSpec) -> tuple[StoreKey, ...]:
    """The entry of the store that a model is read from, if it is."""
    if spec.variant is not None:
        return (("trained", trained_key(spec)),)
    return ((stage_calls.MODEL_FILES, spec.digest),) if spec.kind == "onnx" else ()
