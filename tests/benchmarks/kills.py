"""Kill a run at random moments of every stage, or fill its disk, resume it, and compare it with an unbroken one.

    python tests/benchmarks/kills.py --kills 50 --full-disks 5 --out kills.json

A tiny suite trains a network, prunes and fine-tunes it, exports and quantizes it, evaluates, profiles and measures it. An
unbroken run lists its moments: each step of a training, each file that is begun, written or put in place, the begin and end
of each stage. The stages take turns; each time one of its moments is drawn, and SIGKILL comes a random time after it. The
store and the run folder are then checked byte by byte, and the run goes on to the next kill or to its end, where its records
must be those of the unbroken run. Full disks are small tmpfs mounts (root, or ``unshare -rm``) that are filled up at such a
moment. Exit code 1 when anything differs. The report is left out: it is made anew from the records.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from broken_runs import STAGES, Place, compare, drawn, interrupted, look, prepare, unbroken

FULL = "no space left on its disk"


@dataclass
class Findings:
    """What the kills came to. ``wrong``: all that was not as it should be."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    full_disks: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def kill_often(
    work: Path, kills: int, rng: random.Random, findings: Findings, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """Kill and resume until ``kills`` have come; what the unbroken run holds, and its events."""
    first = Place(work / "unbroken")
    code, events = unbroken(first, work)
    reference = look(first)
    if code or not reference["cells"] or any(record["status"] == "failed" for record in reference["records"].values()):
        raise SystemExit(f"the unbroken run failed (exit code {code}):\n{(work / 'said').read_text()[-2000:]}")
    findings.wrong += [f"unbroken: {line}" for line in compare(first, reference, whole=True)]
    say(f"unbroken: {len(reference['cells'])} cells, {len(events)} moments, {sum(gap for _, gap in events):.1f} s")

    place, fresh = Place(work / "broken-0"), True
    while findings.kills.total() < kills:
        done = findings.kills.total()
        stage = STAGES[done % len(STAGES) if kills >= len(STAGES) else done * len(STAGES) // kills]
        moment, kill = drawn(stage, events, rng), rng.choice([os.kill, os.killpg])
        came, code = interrupted(place, work, moment, lambda child, kill=kill: kill(child, signal.SIGKILL))  # type: ignore[misc]
        if came and code == -signal.SIGKILL:
            findings.kills[stage] += 1
            wrong = compare(place, reference, whole=False)
            fresh = False
        elif fresh:
            wrong = [f"a fresh run came to its end (exit code {code}) without its moment {moment}"]
            findings.kills[stage] += 1
        else:
            wrong = finish(place, work, reference, code)
            findings.runs += 1
            place, fresh = Place(work / f"broken-{findings.runs}"), True
        findings.wrong += [f"{place.root.name}, kill {findings.kills.total()} in {stage}: {line}" for line in wrong]
        say(f"{findings.kills.total()} kills, {findings.runs} runs ended, {len(findings.wrong)} wrong; last: {stage}")
    if not fresh:
        findings.wrong += finish(place, work, reference, unbroken(place, work)[0])
        findings.runs += 1
    return reference, events


def finish(place: Place, work: Path, reference: dict[str, Any], code: int) -> list[str]:
    """What is wrong with a run that came to its end."""
    wrong = compare(place, reference, whole=True)
    if code:
        wrong.append(f"exit code {code}: {(work / 'said').read_text()[-500:]}")
    if not wrong:
        shutil.rmtree(place.root)
    return wrong


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of ``size`` bytes at ``folder``."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte of a disk free."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def fill_disks(
    work: Path,
    times: int,
    rng: random.Random,
    reference: dict[str, Any],
    events: list[tuple[str, float]],
    findings: Findings,
) -> None:
    """Run on a disk that is full from a moment on, then make room and resume."""
    needed = sum(path.stat().st_size for path in (work / "unbroken").rglob("*") if path.is_file())
    for turn in range(times):
        place = Place(work / f"disk-{turn}")
        stage = ("quantize", "train", "evaluate", "compress", "record", "measure")[turn % 6]
        with small_disk(place.root, 4 * needed):
            moment = drawn(stage, events, rng, 0.5)
            came, code = interrupted(place, work, moment, lambda _, root=place.root: fill(root))  # type: ignore[misc]
            said = (work / "said").read_text().splitlines()
            told = [line for line in said if FULL in line]
            wrong = compare(place, reference, whole=False)
            kept = look(place)
            if not came or code != 2 or len(told) != 1 or any("Traceback" in line for line in said):
                wrong.append(f"exit code {code}, said: {said[-5:]}")
            (place.root / "filler").unlink()
            again, _ = unbroken(place, work)
            wrong += compare(place, reference, whole=True)
            if again:
                wrong.append(f"resumed: exit code {again}: {(work / 'said').read_text()[-500:]}")
        found = {"stage": stage, "entries": len(kept["files"]), "records": len(kept["records"]), "said": told}
        findings.full_disks.append(found)
        findings.wrong += [f"full disk {turn} in {stage}: {line}" for line in wrong]


def main() -> int:
    """The command line; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full-disks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder to work in, kept; else a temporary one")
    parser.add_argument("--out", type=Path, help="JSON of what was found")
    arguments = parser.parse_args()
    if arguments.full_disks and os.geteuid() != 0:
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    scratch = None if arguments.work else tempfile.mkdtemp(prefix="depthbench-kills-")
    work = (arguments.work or Path(str(scratch))).resolve() / "work"
    sys.path.insert(0, str(work))
    rng, findings = random.Random(arguments.seed), Findings()
    prepare(work)
    say = partial(print, file=sys.stderr, flush=True)
    reference, events = kill_often(work, arguments.kills, rng, findings, say)
    fill_disks(work, arguments.full_disks, rng, reference, events, findings)
    value = {
        "kills": sum(findings.kills.values()),
        "by_stage": dict(findings.kills),
        "runs": findings.runs,
        "cells": len(reference["cells"]),
        "full_disks": findings.full_disks,
        "wrong": findings.wrong,
    }
    text = json.dumps(value, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if scratch and not findings.wrong:
        shutil.rmtree(scratch)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
