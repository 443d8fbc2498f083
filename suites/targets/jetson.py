"""Measuring on a Jetson, over SSH or on the board itself.

A session (:mod:`depthbench.suites.targets.board_session`) holds the board; the steps are commands of their own beside it.
A step that fails is a failure of its cell alone; after a cut connection the run goes on with the next.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from depthbench.suites.targets.board_results import Outcome, another_board, outcome
from depthbench.suites.targets.board_session import Session
from depthbench.suites.targets.board_steps import (
    BoardCell,
    BoardProfile,
    BoardStep,
    board_script,
    board_steps,
    facts,
    frames,
    of_board,
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
    ssh_missing,
)

ATTEMPTS = 4
OLDEST_TENSORRT, FIRST_UNKNOWN_TENSORRT = 8000, 110000
"""Versions as trtexec says them, in its digits."""

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
    transport = transport_to(entry)
    try:
        return facts(transport.run(["sh", "-s", "--", "probe"], board_script(), timeout=timeout))
    finally:
        if isinstance(transport, Ssh):
            transport.close()


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
    version = found.get("tensorrt", "")
    if version.isdigit() and not OLDEST_TENSORRT <= int(version) < FIRST_UNKNOWN_TENSORRT:
        return f"TensorRT v{version} is not supported (8.0 to 10.x)"
    if entry is not None and (why := another_board(found.get("model", ""), entry.board)) is not None:
        return why
    if entry is not None and (entry.power_mode is not None or entry.lock_clocks) and found.get("root") != "yes":
        return "its power mode and clocks need root, and sudo there asks for a password"
    return None


def int8_refusal(model: str) -> str | None:
    """Why a board of this model (as its device tree says) cannot run INT8, or None."""
    if re.search(r"\bTX2\b|\bTX1\b|Jetson Nano", model) and "Orin" not in model:
        return "no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16"
    return None


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
        self.cut = False  # a connection was: the hold's own may not have noticed yet
        self.frames = frames

    def open(self) -> Session:
        """The session, opened again when it was lost."""
        if self.session is not None and self.session.alive and not self.cut:
            return self.session
        again = self.session is not None
        self.close()
        for attempt in range(ATTEMPTS):
            try:
                self.session = Session(self.transport, self.entry, self.job).__enter__()
                self.cut = False
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
            lost = isinstance(error, ConnectionLostError)
            self.cut |= lost
            if not opened:
                self.gone = str(error)
            elif step.key in self.cells:
                self.reasons[step.key] = f"{error}, while {_DOING[step.verb]}" if lost else str(error)
            elif not lost:  # a step for all cells; a cut one shows with the next step
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
                self.cut = True
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
    profile, limits = of_board(entry, profile)
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
