"""A run as a graph: tasks that come after one another, carried out by workers, each tried a second time when it fails."""

from __future__ import annotations

import bisect
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from depthbench.suites.running.execution import Call, Done, Workers, described
from depthbench.suites.storage.disk import FullDiskError

ATTEMPTS = 2


@dataclass(frozen=True)
class Task:
    """A piece of a run. ``begin`` is called when the tasks ``after`` which it comes are over, whatever became of them.

    ``begin(attempt)`` gives the call to carry out, or what the task came to if there is nothing to do or nothing can be done.
    ``again``: whether a value is worth a second attempt. ``here``: ``begin`` does all of its work itself, which takes a
    moment, and waits until no worker could be given anything.
    """

    key: str
    stage: str
    begin: Callable[[int], Call | Done]
    after: tuple[str, ...] = ()
    again: Callable[[Any], bool] = lambda _: False
    here: bool = False


@dataclass(frozen=True, order=True)
class _Try:
    """A call that waits for a worker or is at work: the place of its task, and which attempt it is."""

    place: int
    attempt: int
    call: Call = field(compare=False)


def carry_out(
    tasks: Sequence[Task], workers: Workers, begun: Callable[[Task, Call], None] = lambda *_: None
) -> Iterator[tuple[Task, Done]]:
    """Carry out tasks, earlier ones first where there is a choice; each with what became of it, as soon as that is known.

    A call that fails is tried once more, and what comes of that stands. ``begun`` is told of each task that a worker is
    given. No task after another begins before the caller has taken the other's outcome.
    """
    places = {task.key: place for place, task in enumerate(tasks)}
    unmet = [set(task.after) for task in tasks]
    followers: dict[str, list[int]] = defaultdict(list)
    for place, task in enumerate(tasks):
        for key in task.after:
            followers[key].append(place)
    ready = deque(place for place, keys in enumerate(unmet) if not keys)
    here: deque[int] = deque()
    waiting: list[_Try] = []
    running: dict[str, _Try] = {}

    def over(place: int) -> None:
        key = tasks[place].key
        for follower in followers[key]:
            unmet[follower].discard(key)
            if not unmet[follower]:
                ready.append(follower)

    while ready or here or waiting or running:
        while ready:
            place = ready.popleft()
            if tasks[place].here:
                here.append(place)
                continue
            call = _begin(tasks[place], 1)
            if isinstance(call, Call):
                bisect.insort(waiting, _Try(place, 1, call))
            else:
                yield tasks[place], call
                over(place)
        for one in _handed_out(tasks, waiting, workers):
            running[tasks[one.place].key] = one
            begun(tasks[one.place], one.call)
        if here and not (running and workers.ready()):
            place = here.popleft()
            own = _begin(tasks[place], 1)
            assert isinstance(own, Done)
            yield tasks[place], own
            over(place)
            continue
        if not running:
            continue
        key, done, worthwhile = workers.next()
        one, task = running.pop(key), tasks[places[key]]
        if worthwhile and one.attempt < ATTEMPTS and (done.reason is not None or task.again(done.value)):
            again = _begin(task, one.attempt + 1)
            if isinstance(again, Call):
                bisect.insort(waiting, _Try(one.place, one.attempt + 1, again))
                continue
            done = again
        yield task, done if done.reason is None else replace(done, reason=f"{task.stage}: {done.reason}")
        over(one.place)


def _handed_out(tasks: Sequence[Task], waiting: list[_Try], workers: Workers) -> list[_Try]:
    """What of the waiting calls workers were given: as much as they take."""
    given = []
    for one in list(waiting):
        if workers.free(one.call):
            waiting.remove(one)
            workers.submit(tasks[one.place].key, one.call)
            given.append(one)
    return given


def _begin(task: Task, attempt: int) -> Call | Done:
    try:
        return task.begin(attempt)
    except FullDiskError:
        raise
    except Exception as error:  # as in perform
        return Done(reason=f"{task.stage}: {described(error)}")
