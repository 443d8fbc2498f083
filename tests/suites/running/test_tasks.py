"""Tasks after one another: what each is given, what a failure means, and that a second attempt is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from depthbench.suites.running.execution import Call, Done, InProcess
from depthbench.suites.running.tasks import Task, carry_out
from depthbench.suites.storage.disk import FullDiskError


def calling(name: str, function: Callable[[], object], *after: str, again: bool = False) -> Task:
    return Task(name, "stage", lambda _: Call(name, function), after, again=lambda value: again and value is None)


def outcomes(*tasks: Task) -> dict[str, Done]:
    return {task.key: done for task, done in carry_out(tasks, InProcess(lambda *_: None))}


def test_a_task_begins_when_those_before_it_are_known() -> None:
    known: list[str] = []

    def begin(name: str) -> Callable[[int], Call]:
        def make(_: int) -> Call:
            known.append(f"begin {name} after {sorted(word for word in known if len(word) == 1)}")
            return Call(name, lambda: name)

        return make

    tasks = [Task("c", "s", begin("c"), ("a", "b")), Task("a", "s", begin("a")), Task("b", "s", begin("b"), ("a",))]
    for task, done in carry_out(tasks, InProcess(lambda *_: None)):
        assert done.value == task.key
        known.append(task.key)
    assert known == ["begin a after []", "a", "begin b after ['a']", "b", "begin c after ['a', 'b']", "c"]


def test_what_is_known_already_needs_no_worker() -> None:
    done = outcomes(Task("a", "s", lambda _: Done(3)), Task("b", "s", lambda _: Done(reason="a: no"), ("a",)))
    assert (done["a"].value, done["a"].cached) == (3, True)
    assert (done["b"].reason, done["b"].cached) == ("a: no", False)


def test_what_fails_is_tried_a_second_time() -> None:
    calls: list[str] = []

    def once() -> str:
        calls.append("once")
        if len(calls) == 1:
            raise ValueError("not yet")
        return "well"

    def never() -> None:
        calls.append("never")
        raise ValueError(f"call {calls.count('never')}\n of it")

    done = outcomes(calling("once", once), calling("never", never), calling("after", lambda: 1, "never"))
    assert calls == ["once", "once", "never", "never"]
    assert done["once"].value == "well"
    assert done["once"].reason is None
    assert done["never"].reason == "stage: ValueError: call 2 of it"
    assert done["after"].value == 1  # its begin decides what the failure means


def test_a_value_may_be_worth_a_second_attempt() -> None:
    values = iter([None, "better"])
    assert outcomes(calling("a", lambda: next(values), again=True))["a"].value == "better"
    assert outcomes(calling("a", lambda: None, again=True))["a"].value is None


def test_a_second_attempt_may_find_nothing_left_to_do() -> None:
    def begin(attempt: int) -> Call | Done:
        return Call("a", lambda: 1 / 0) if attempt == 1 else Done("stored")

    assert outcomes(Task("a", "s", begin))["a"] == Done("stored")


def test_a_task_that_cannot_begin_has_failed() -> None:
    def begin(_: int) -> Call:
        raise OSError("gone")

    assert outcomes(Task("a", "s", begin))["a"].reason == "s: OSError: gone"


@pytest.mark.parametrize("error", [FullDiskError("no space"), KeyboardInterrupt()])
def test_what_ends_a_run_is_no_failure_of_a_task(error: BaseException) -> None:
    def stop() -> None:
        raise error

    with pytest.raises(type(error)):
        outcomes(calling("a", stop), calling("b", lambda: 1))


class Elsewhere:
    """One worker, whose calls are over as soon as they are submitted; ``log`` has what is asked of it."""

    count = 1

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.over: deque[tuple[str, Done, bool]] = deque()
        self.busy = False

    def free(self, _: Call) -> bool:
        return not self.busy

    def submit(self, key: str, call: Call) -> None:
        self.busy = True
        self.log.append(f"submit {key}")
        self.over.append((key, Done(call.function()), True))

    def ready(self) -> bool:
        return bool(self.over)

    def next(self) -> tuple[str, Done, bool]:
        self.busy = False
        return self.over.popleft()


def test_a_worker_is_not_kept_waiting_by_what_is_done_here() -> None:
    log: list[str] = []

    def here(name: str) -> Task:
        return Task(name, "s", lambda _: log.append(f"begin {name}") or Done(), here=True)  # type: ignore[func-returns-value]

    tasks = [here("x"), calling("a", lambda: 1), here("y"), calling("b", lambda: 2), here("z")]
    assert [task.key for task, _ in carry_out(tasks, Elsewhere(log))] == ["a", "b", "x", "y", "z"]
    assert log == ["submit a", "submit b", "begin x", "begin y", "begin z"]
