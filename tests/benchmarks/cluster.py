"""A Dask cluster of three processes on this machine, two stand-in boards among its resources, one process killed on the way.

    python tests/benchmarks/cluster.py [--files 15] [--kills 1]

A suite of four cells a file is run in this process and on the cluster, whose workers have a cache of their own. It is checked
that the suite finishes, that no two measurements overlapped on a machine or board by the records' times and by what the boards
themselves noted, that nothing else measured while the machine did, and that the records are the same but for their times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

STANDINS = Path(__file__).parents[1] / "suites" / "cluster_standins"
SUITE = """
name: clustered
data: {{name: folder}}
matrix:
  - models: [{models}]
    recipes: [fp16]
    sizes: [32x32]
    targets: [stand-in-a, stand-in-b, jetson-nano]
  - models: [{models}]
    recipes: [fp32]
    sizes: [32x32]
    targets: [stand-in-cpu]
"""


def main() -> None:
    """Run the suite twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=15)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(STANDINS))
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(check(Path(name), options.files, options.kills, random.Random(options.seed)), indent=1))


def check(folder: Path, files: int, kills: int, chance: random.Random) -> dict[str, Any]:
    """What was found; ``AssertionError`` when something does not hold."""
    import cluster_standins

    from depthbench.suites.runner import Request, run
    from depthbench.suites.running.cluster import Scheduler
    from depthbench.suites.running.local_cluster import local_cluster
    from depthbench.suites.schema import parse_suite

    (folder / "images").mkdir()
    for i in range(16):
        Image.fromarray(np.full((32, 32, 3), 60 + i, np.uint8)).save(folder / "images" / f"{i}.jpg")
        Image.fromarray(np.full((32, 32), 2000 + i, np.uint16)).save(folder / "images" / f"{i}.png")
    names = [cluster_standins.network(folder / f"net{i}.onnx", 4 + i / 10).name for i in range(files)]
    suite = parse_suite(SUITE.format(models=", ".join(names)), "clustered.yaml", folder)
    os.environ |= {"PYTHONPATH": str(STANDINS), "DEPTHBENCH_LOCKS": str(folder / "locks"), "OMP_NUM_THREADS": "1"}
    os.environ |= {"DEPTHBENCH_CACHE": str(folder / "one"), "STANDIN_LOG": str(folder / "one.log")}
    started = time.monotonic()
    alone = run(Request(suite, folder / "alone", folder, folder / "images"), lambda *_: None)
    seconds = {"in_process": round(time.monotonic() - started, 1)}

    os.environ |= {"DEPTHBENCH_CACHE": str(folder / "theirs"), "STANDIN_LOG": str(folder / "two.log")}
    killed: list[str] = []
    with ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(3, ["stand-in-a", "stand-in-b"], measure=True))
        os.environ["DEPTHBENCH_CACHE"] = str(folder / "ours")
        started = time.monotonic()
        stop = threading.Event()
        killer = threading.Thread(target=kill, args=(folder / "run", len(alone.records), kills, chance, killed, stop))
        killer.start()
        request = Request(
            suite, folder / "run", folder, folder / "images", scheduler=Scheduler(cluster.scheduler_address)
        )
        together = run(request, lambda *_: None)
        stop.set()
        killer.join()
    seconds["cluster"] = round(time.monotonic() - started, 1)

    assert len(killed) == kills, killed
    assert {record.status for record in together.records} == {"ok"}
    plain = [[replace(r, timings=None, finished=None).to_json() for r in one.records] for one in (alone, together)]
    assert plain[0] == plain[1]
    spans = {
        (r.target, r.target_kind, r.timings.host, r.timings.started_s, r.timings.finished_s)
        for r in together.records
        if r.timings
    }
    for (target, kind, host, begun, ended), (other, _, there, b, e) in combinations(spans, 2):
        same_place = target == other or (host == there and "stand-in-cpu" in (target, other))
        assert not same_place or ended <= b or e <= begun, (target, kind, other)
    rows = [line.split() for line in (folder / "two.log").read_text().splitlines()]
    for (target, _, begun, ended), (other, _, b, e) in combinations(rows, 2):
        assert target != other or float(ended) <= float(b) or float(e) <= float(begun)
    return {
        "cells": len(together.records),
        "killed": killed,
        "measurements": len(spans),
        "inferences_noted_by_the_stand_ins": len(rows),
        "seconds": seconds,
        "same_records": True,
        "overlaps": 0,
    }


def kill(run: Path, cells: int, kills: int, chance: random.Random, killed: list[str], stop: threading.Event) -> None:
    """Kill a worker, at work or not, at moments spread over the run."""
    moments = sorted(chance.uniform(0.0, 0.9) * cells for _ in range(kills))
    while moments and not stop.wait(0.01):
        done = len(list((run / "records").glob("*.json"))) if (run / "records").is_dir() else 0
        workers = [process for process in psutil.Process().children(recursive=True) if _is_worker(process)]
        if (run / "status.json").exists() and done >= moments[0] and workers:
            victim = chance.choice(workers)
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(f"process {victim.pid} when {done} cells had records")
            moments.pop(0)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("python") and "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
