"""Measuring on a Jetson, over SSH or on the board itself.

One long command on the board holds an exclusive lock, has the power mode and the clocks set, and puts them back when its
standard input ends: after the run, when the connection is cut, or when this process is killed. The steps are commands of
their own beside it. A step that fails is a failure of its cell alone; after a cut connection the run goes on with the next.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from depthbench.suites.targets.board_results import Outcome, outcome
from depthbench.suites.targets.board_steps import (
    BoardCell,
    BoardProfile,
    BoardStep,
    Limits,
    board_script,
    board_steps,
    facts,
    frames,
    unpack,
)
from depthbench.suites.targets.boardfile import BoardEntry
from depthbench.suites.targets.transport import (
    BoardBusyError,
    BoardError,
    ConnectionLostError,
    Local,
    Ssh,
    Transport,
    reason,
    ssh_missing,
    ssh_reason,
)

HEARTBEAT_S = 5
OPEN_S = 60
ATTEMPTS = 4

_PUSHED = 'mkdir -p "$1" && cat >"$1/board.sh"'
_DOING = {
    "push": "pushing the file",
    "build": "building the engine",
    "check": "checking its output",
    "time": "timing it",
}


def transport_to(entry: BoardEntry | None) -> Transport:
    """The way to a board; None is this machine."""
    return Local() if entry is None else Ssh(entry)


def probe(entry: BoardEntry | None, timeout: float = 30) -> dict[str, str]:
    """What a board is: model, L4T, TensorRT, power modes, free disk, clocks, temperatures, whether it is in use.

    :class:`~depthbench.suites.targets.transport.BoardError` with the reason when it cannot be asked.
    """
    if entry is not None and (missing := ssh_missing()):
        raise BoardError(missing)
    said = transport_to(entry).run(["sh", "-s", "--", "probe"], board_script(), timeout=timeout)
    return facts(said)


def unavailable(entry: BoardEntry | None) -> str | None:
    """Why a board cannot be measured on now, or None."""
    try:
        return judge(entry, probe(entry))
    except BoardError as error:
        return str(error)


def judge(entry: BoardEntry | None, found: Mapping[str, str]) -> str | None:
    """Why a board that was probed cannot be measured on, or None."""
    if "trtexec" not in found:
        return "there is no trtexec on the board (install TensorRT from its JetPack)"
    if entry is not None and (entry.power_mode is not None or entry.lock_clocks) and found.get("root") != "yes":
        return "its power mode and clocks need root, and sudo there asks for a password"
    return None


def int8_refusal(model: str) -> str | None:
    """Why a board of this model (as its device tree says) cannot run INT8, or None."""
    if re.search(r"\bTX2\b|\bTX1\b|Jetson Nano", model) and "Orin" not in model:
        return "no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16"
    return None


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
        """Give the board back; waits until it says that mode and clocks are restored."""
        self._stopped.set()
        self._end()
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


class _Run:
    """The steps of one measurement on one board, through as many sessions as its connection makes necessary."""

    def __init__(self, cells: Sequence[BoardCell], transport: Transport, entry: BoardEntry | None, frames: int) -> None:
        self.cells = {cell.key: cell for cell in cells}
        self.transport = transport
        self.entry = entry
        self.job = hashlib.sha256(" ".join(sorted(self.cells)).encode() + secrets.token_bytes(8)).hexdigest()[:12]
        self.session: Session | None = None
        self.reasons: dict[str, str] = {}
        self.pushed: set[str] = set()
        self.gone: str | None = None
        self.frames = frames

    def open(self) -> Session:
        """The session, opened again when it was lost."""
        if self.session is not None and self.session.alive:
            return self.session
        again = self.session is not None
        self.close()
        for attempt in range(ATTEMPTS):
            try:
                self.session = Session(self.transport, self.entry, self.job).__enter__()
                return self.session
            except ConnectionLostError:
                if not again or attempt == ATTEMPTS - 1:
                    raise
            except BoardBusyError:  # after a cut the board needs a moment to see that its old hold is over
                if not again or attempt == ATTEMPTS - 1:
                    raise
            time.sleep(2**attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self.session is not None:
            self.session.__exit__()

    def do(self, step: BoardStep) -> None:
        """One step; what fails is written down as its cell's reason."""
        if step.key in self.reasons or self.gone is not None:
            return
        opened = False
        try:
            session = self.open()
            opened = True
            if step.verb == "push":
                self._push(session, self.cells[step.key], step.limit_s)
            else:
                session.step(step)
        except BoardError as error:
            if not opened:
                self.gone = str(error)
            elif step.key in self.cells:
                lost = isinstance(error, ConnectionLostError)
                self.reasons[step.key] = f"{error}, while {_DOING[step.verb]}" if lost else str(error)
            elif not isinstance(error, ConnectionLostError):  # a step for all cells; a cut one shows with the next step
                self.gone = str(error)

    def _push(self, session: Session, cell: BoardCell, limit_s: int) -> None:
        session.put(f"{cell.key}.onnx", cell.path.read_bytes(), limit_s)
        if cell.size not in self.pushed:
            images = b"".join(image.tobytes() for image in frames(*cell.image[1:], self.frames))
            session.put(f"frames-{cell.size}.bin", images, limit_s)
            self.pushed.add(cell.size)

    def results(self) -> dict[str, dict[str, bytes]]:
        """The board's files, then its work folder removed."""
        for attempt in range(2):
            if self.gone is not None:
                break
            try:
                session = self.open()
                files = unpack(session.results(), "pack")
                session.clean()
                return files
            except ConnectionLostError as error:
                if attempt:
                    self.gone = f"{error}, while fetching the results"
            except BoardError as error:
                self.gone = str(error)
        return {}


def measure(
    cells: Sequence[BoardCell],
    entry: BoardEntry | None,
    profile: BoardProfile,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Measure ONNX files on a board, interleaved; one outcome a file, in their order. None is the board this runs on."""
    limits = Limits(entry.build_limit_s, entry.step_limit_s, entry.workspace_mb) if entry else Limits()
    transport = transport_to(entry)
    refused: dict[int, str] = {}
    for place, cell in enumerate(cells):
        if (fault := cell.fault()) is not None:
            refused[place] = fault
    usable = [cell for place, cell in enumerate(cells) if place not in refused]
    run = _Run(usable, transport, entry, profile.frames)
    try:
        steps = [BoardStep("facts", "board"), *board_steps(usable, profile, limits, seed)] if usable else []
        _refuse_int8(run, usable, entry)
        for number, step in enumerate(steps):
            run.do(step)
            if progress is not None:
                progress((number + 1) / len(steps))
        files = run.results() if usable else {}
    finally:
        run.close()
        if isinstance(transport, Ssh):
            transport.close()
    return [
        Outcome(None, refused[place])
        if place in refused
        else outcome(cell, files, run.reasons.get(cell.key) or run.gone, entry.board if entry else None)
        for place, cell in enumerate(cells)
    ]


def _refuse_int8(run: _Run, cells: Sequence[BoardCell], entry: BoardEntry | None) -> None:
    wanted = [cell.key for cell in cells if cell.precision == "int8-trt"]
    if not wanted:
        return
    try:
        why = int8_refusal(probe(entry).get("model", ""))
    except BoardError as error:
        run.gone = str(error)
        return
    if why is not None:
        run.reasons |= dict.fromkeys(wanted, why)
