"""Measuring on a board of somebody else: an archive that is run there, offline, and one file that comes back.

The archive holds the ONNX files of a run, the frames for the check, the list of steps and ``run.sh``, which is the script
that measures over SSH too. What comes back is what SSH would have fetched, and is read by the same code.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from depthbench.suites.environment import now
from depthbench.suites.models import file_sha256
from depthbench.suites.names import lookup
from depthbench.suites.plan import digest
from depthbench.suites.results import Record, RunFolder, write_atomic, write_json
from depthbench.suites.storage.store import Store
from depthbench.suites.targets import BUILT_IN, TARGETS, board_target
from depthbench.suites.targets.board_results import outcome
from depthbench.suites.targets.board_steps import (
    PROFILES,
    BoardCell,
    BoardProfile,
    board_script,
    board_steps,
    frames,
    of_board,
    unpack,
)

if TYPE_CHECKING:
    from depthbench.suites.targets.boardfile import BoardEntry

RESULT = "result.depthbench"


@dataclass(frozen=True)
class Bundle:
    """An archive that was made: its cells, the target that their records will name, and what was left out and why."""

    path: Path
    target: str
    cells: int
    left_out: list[str]


def measured_name(board: str) -> str:
    """The target that records of a board bear: the user's own name of it, or the built-in one's with ``-measured``."""
    return f"{board}-measured" if board in BUILT_IN else board


def make(
    run: Path,
    board: str,
    out: Path,
    profile: BoardProfile = PROFILES["quick"],
    *,
    boards: Mapping[str, BoardEntry] = MappingProxyType({}),
    seed: int = 0,
) -> Bundle:
    """Write the archive for one board, built-in, of the user's file or of ``boards``, those of a suite.

    ``ValueError`` when the board is unknown, or the run has nothing for it.
    """
    known = {name: target for name, target in TARGETS.items() if target.kind == "board"}
    target = lookup("board", board, known | {name: board_target(name, entry) for name, entry in boards.items()})
    chosen: dict[str, BoardCell] = {}
    left_out = []
    for record in _board_records(run, target.board.board if target.board else board):
        if (why := target.refuses.get(str(record.precision))) is not None:
            left_out.append(f"{_label(record)}: {why}")
        else:
            cell = BoardCell(_artefact(record), str(record.precision))
            chosen[cell.key] = cell
    if not chosen:
        raise ValueError(f"{run}: no cell of this run can be measured on {board}" + "".join(f"; {x}" for x in left_out))
    entry = target.board
    mode = "-" if entry is None or entry.power_mode is None else str(entry.power_mode)
    clocks = "lock" if entry is not None and entry.lock_clocks else "keep"
    profile, limits = of_board(entry, profile)
    steps = board_steps(list(chosen.values()), profile, limits, seed)
    kind = entry.board if entry is not None else board
    lines = [f"run {RESULT} {mode} {clocks} {measured_name(board)} {kind}"]
    lines += [step.line for step in steps if step.verb != "push"]
    members = {"run.sh": board_script(), "plan": ("\n".join(lines) + "\n").encode()}
    for cell in chosen.values():
        members[f"{cell.key}.onnx"] = cell.path.read_bytes()
        images = frames(*cell.image[1:], profile.frames)
        members[f"frames-{cell.size}.bin"] = b"".join(image.tobytes() for image in images)
    folder = f"depthbench-{measured_name(board)}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mode = len(data), 0o755 if name == "run.sh" else 0o644
            archive.addfile(info, io.BytesIO(data))
    write_atomic(out, buffer.getvalue())
    return Bundle(out, measured_name(board), len(chosen), left_out)


def merge(run: Path, result: Path) -> list[Record]:
    """Join the measurements of a result into a run, as records of their own; the new records.

    ``ValueError`` for a file that is no whole result, one of another run, or one whose ONNX digests do not match.
    """
    if not result.is_file():
        raise ValueError(f"{result}: no such file")
    data = result.read_bytes()
    files = unpack(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data, str(result))
    plan = files.get("", {}).get("plan", b"").decode("utf-8", "replace").splitlines()
    if not plan or len(plan[0].split()) != 6:
        raise ValueError(f"{result}: not the result of a bundle")
    target, kind = plan[0].split()[4:]
    measured = list(dict.fromkeys(line.split()[1] for line in plan if line.startswith("build ")))
    records = {_key(record): record for record in _board_records(run, kind)}
    made = []
    for key in measured:
        if key not in records:
            raise ValueError(f"{result}: {key} is no file of {run}: the bundle was made from another run")
        record = records[key]
        got = files.get(key, {}).get("onnx.sha256")
        if got is not None and got.decode().strip() != record.lineage[-1].digest:
            raise ValueError(
                f"{result}: {_label(record)}: the board measured another file (its ONNX digest does not match)"
            )
        found = outcome(BoardCell(_artefact(record), str(record.precision)), files, board=kind)
        made.append(
            replace(
                record,
                id=digest([record.id, target]),
                status="failed" if found.latency is None else "ok",
                target=target,
                latency=found.latency,
                reason=found.reason,
                environment=found.environment,
                finished=now(),
            )
        )
    folder = RunFolder(run)
    for record in made:
        folder.write_record(record)
    manifest = folder.read_manifest()
    manifest["cells"] += [record.id for record in made if record.id not in manifest["cells"]]
    write_json(folder.manifest, manifest)
    return made


def _board_records(run: Path, board: str) -> Sequence[Record]:
    """Finished records of a run whose files a board can be given: those of this board, else those of any, each file once."""
    finished = [r for r in RunFolder(run).records() if r.target_kind == "board" and r.status == "ok" and r.lineage]
    predicted = [r for r in finished if r.latency is not None and r.latency.kind == "predicted"]
    own = [r for r in predicted if r.target == board]
    return list({_key(record): record for record in own or predicted or finished}.values())


def _key(record: Record) -> str:
    return f"{record.lineage[-1].digest[:20]}-{record.precision}"


def _label(record: Record) -> str:
    return f"{record.model}/{record.recipe}/{record.size[0]}x{record.size[1]}"


def _artefact(record: Record) -> Path:
    """The ONNX file of a record in the cache."""
    wanted = record.lineage[-1].digest
    for entry in Store("artefacts").described():
        path = entry.folder / "model.onnx"
        if entry.meta.get("sha256") == wanted and path.is_file() and file_sha256(path) == wanted:
            return path
    raise ValueError(f"{_label(record)}: its ONNX file is no longer in the cache; run the suite again")
