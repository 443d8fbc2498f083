"""A measuring process, seen from the one that lets it work: one JSON line there, one back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class WorkerDiedError(RuntimeError):
    """A measuring process that ended by itself, or was ended: for want of memory, perhaps."""


class Worker:
    """A running process of a worker module, which has begun to import what it needs.

    ``arguments``: words for the module. ``python`` and ``environment``: another interpreter, and variables that are set for it.
    ``ready``: what the process says of its network, once it is loaded.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [python or sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # with all that a runtime's library starts it is ended together
        )
        self.ready: dict[str, Any] = {}

    def wait(self) -> None:
        """Until it has imported what it needs."""
        self._answer()

    def load(self, spec: Mapping[str, Any], refusal: str) -> None:
        """Load the network of ``spec`` and warm it up; ``ValueError``: ``refusal``, a colon, and the process's reason."""
        answer = self.ask(spec)
        if "error" in answer:
            raise ValueError(f"{refusal}: {answer['error']}")
        self.ready = answer["ready"]

    def block(self, seconds: float) -> dict[str, Any]:
        """A block of inferences: ``samples_ms``, ``wall_s`` and ``cpu_s`` spent, ``peak_mem_mb``."""
        return self.ask({"block": seconds})

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One line there, one line back; :class:`WorkerDiedError` when none comes."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: there is no answer either
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerDiedError(f"the measuring process ended with code {self.process.wait()} and no result")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(BrokenPipeError):  # what was written last reached nobody
            self.process.stdin.close()
        self.process.stdout.close()
