"""An exclusive hold on a board.

One long command there holds the lock, has the power mode and the clocks set, and puts them back when its standard input ends:
after the run, when the connection is cut, or when this process is killed.
"""

from __future__ import annotations

import secrets
import select
import subprocess
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from depthbench.suites.targets.board_steps import BoardStep, board_script
from depthbench.suites.targets.boardfile import BoardEntry
from depthbench.suites.targets.transport import (
    BoardBusyError,
    BoardError,
    ConnectionLostError,
    Transport,
    reason,
    ssh_reason,
)

HEARTBEAT_S = 5
OPEN_S = 60
RESTORE_FAILED = 44

_PUSHED = 'mkdir -p "$1" && cat >"$1/board.sh"'


class Session:
    """An exclusive hold on a board: the lock, the power mode, the clocks, and a work folder."""

    def __init__(self, transport: Transport, entry: BoardEntry | None, job: str) -> None:
        self.transport = transport
        self.entry = entry
        base = entry.folder if entry is not None else str(Path(".cache") / "depthbench" / "board")
        self.folder = f"{base}/job-{job}"
        self.token = ""
        self._holder: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> Session:
        """Take the lock and set the clocks; a :class:`BoardError` names what stands against it."""
        self.transport.run(["sh", "-c", _PUSHED, "sh", self.folder], board_script(), timeout=OPEN_S)
        self.token = secrets.token_hex(8)
        mode = "-" if self.entry is None or self.entry.power_mode is None else str(self.entry.power_mode)
        clocks = "lock" if self.entry is not None and self.entry.lock_clocks else "keep"
        self._holder = self.transport.start(["sh", f"{self.folder}/board.sh", "hold", self.token, mode, clocks])
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        ready, _, _ = select.select([self._holder.stdout], [], [], OPEN_S)
        if not ready or self._holder.stdout.readline() != b"held\n":
            if not ready:
                self._holder.kill()
            self._end()
            said, code = self._holder.stderr.read(), self._holder.returncode
            self._close_pipes()
            if code == 43:
                raise BoardBusyError(reason(said))
            raise ConnectionLostError(ssh_reason(said)) if code == 255 else BoardError(reason(said))
        self._stopped.clear()
        threading.Thread(target=self._beat, args=(self._holder, self._stopped), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the board back; waits until it says that mode and clocks are restored, and warns when they are not."""
        self._stopped.set()
        holder = self._holder
        assert holder is not None
        ended = holder.stderr is None or holder.stderr.closed
        self._end()
        if not ended and holder.returncode == RESTORE_FAILED:
            assert holder.stderr is not None
            warnings.warn(f"the board: {reason(holder.stderr.read())}", stacklevel=2)
        self._close_pipes()

    @property
    def alive(self) -> bool:
        """Whether the hold still lasts, as far as is known here."""
        return self._holder is not None and self._holder.poll() is None

    def step(self, step: BoardStep) -> None:
        """Carry out a step; :class:`BoardError` names why it failed."""
        command = ["sh", f"{self.folder}/board.sh", step.verb, self.token, step.key, *step.words]
        self.transport.run(command, timeout=step.limit_s + 60)

    def put(self, name: str, data: bytes, timeout: float) -> None:
        """Write a file into the work folder, whole or not at all."""
        self.transport.run(["sh", f"{self.folder}/board.sh", "put", name, str(len(data))], data, timeout=timeout)

    def results(self) -> bytes:
        """Everything that the steps have written."""
        return self.transport.run(["sh", f"{self.folder}/board.sh", "pack", self.token], timeout=600)

    def clean(self) -> None:
        """Remove the work folder."""
        self.transport.run(["sh", f"{self.folder}/board.sh", "clean"], timeout=60)

    @staticmethod
    def _beat(holder: subprocess.Popen[bytes], stopped: threading.Event) -> None:
        assert holder.stdin is not None
        while not stopped.wait(HEARTBEAT_S):
            try:
                holder.stdin.write(b"\n")
                holder.stdin.flush()
            except (OSError, ValueError):  # the hold is over; the next step says so
                return

    def _end(self) -> None:
        assert self._holder is not None
        assert self._holder.stdin is not None
        with suppress(BrokenPipeError):
            self._holder.stdin.close()
        try:
            self._holder.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()

    def _close_pipes(self) -> None:
        assert self._holder is not None
        for pipe in (self._holder.stdout, self._holder.stderr):
            if pipe is not None:
                pipe.close()
