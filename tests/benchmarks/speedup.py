"""What local workers are worth on the stages that use the processor: compression, making files, their profiles and accuracy.

    python tests/benchmarks/speedup.py [--images 256] [--workers 2] [--timeline]

A study for boards that are not here, so without measurements: the six networks of the suite `jetson` in four forms, two of them
pruned here, on as many images. It is carried out in one process and by workers, each time by a program of its own with an
empty store; the images are rendered before. Every process is given one thread for its networks. The ratio of wall times, from
the start of the program to its last record, says something only on a machine on which that many cores are idle; ``cores``,
processor time over wall time, says whether they were. ``--timeline``: which process did what and when, on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SUITE = """
name: speedup
data: {{name: rooms, limit: {images}}}
recipes:
  thin: {{steps: [{{prune: {{macs_ratio: 0.4}}}}], precision: {{board: fp16}}}}
  thin-int8: {{steps: [{{prune: {{macs_ratio: 0.4}}}}], precision: {{board: int8-trt}}}}
matrix:
  - models: [tst-t, tst-s, tst-b, fastdepth, fastdepth-pruned, mobilevit-xxs]
    recipes: [fp16, int8-trt, thin, thin-int8]
    sizes: [224x224]
    targets: [jetson-xavier-nx, jetson-orin-nano-super]
"""


def main() -> None:
    """Both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        carry_out(options.here, options.images, options.workers)
        return
    from depthbench.suites.data.rooms_dataset import RoomsDataset
    from depthbench.suites.source import CALIBRATION_IMAGES
    from depthbench.suites.storage.cache import cache_dir

    RoomsDataset("test", options.images).prepare()
    RoomsDataset("calibration", CALIBRATION_IMAGES).prepare()
    found: dict[str, Any] = {"images": options.images, "load_1min": round(os.getloadavg()[0], 2)}
    records = []
    with tempfile.TemporaryDirectory() as name:
        for workers in (1, options.workers):
            place = Path(name) / str(workers)
            (place / "cache").mkdir(parents=True)
            (place / "cache" / "rooms").symlink_to(cache_dir() / "rooms")
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEPTHBENCH_CACHE": str(place / "cache")}
            command = [sys.executable, __file__, "--here", str(place), "--images", str(options.images)]
            started, used = time.time(), _cpu_s()
            subprocess.run([*command, "--workers", str(workers)], check=True, env=environment)
            done = json.loads((place / "done.json").read_text())
            wall, cpu = done["ended"] - started, _cpu_s() - used
            found[f"workers_{workers}"] = {
                "wall_s": round(wall, 1),
                "cpu_s": round(cpu, 1),
                "cores": round(cpu / wall, 2),
            }
            records.append(done["records"])
            if options.timeline:
                show(done["tasks"], started)
    assert records[0] == records[1]
    walls = [found[f"workers_{workers}"]["wall_s"] for workers in (1, options.workers)]
    print(json.dumps({"speedup": round(walls[0] / walls[1], 2), **found}))


def carry_out(place: Path, images: int, workers: int) -> None:
    """One run; its end, its tasks with their times, and its records without any are left in ``done.json``."""
    from dataclasses import replace

    from depthbench.suites import runner
    from depthbench.suites.running.execution import Done
    from depthbench.suites.running.status import Watch
    from depthbench.suites.running.tasks import Task
    from depthbench.suites.schema import parse_suite

    tasks: list[tuple[int, float, float, str]] = []

    class Noted(Watch):
        def over(self, task: Task, done: Done) -> None:
            at_work = self.status.running.get(task.key)
            if at_work is not None and done.timings is not None:
                times = done.timings
                tasks.append((times.pid, times.started_s, times.finished_s, at_work.what))
            super().over(task, done)

    runner.Watch = Noted  # type: ignore[misc]
    suite = parse_suite(SUITE.format(images=images), "speedup.yaml")
    outcome = runner.run(runner.Request(suite, place / "run", workers=workers), lambda *_: None)
    ended = time.time()
    assert {record.status for record in outcome.records} == {"ok"}, {record.reason for record in outcome.records}
    records = [replace(record, finished=None, compression=[]).to_json() for record in outcome.records]
    (place / "done.json").write_text(json.dumps({"ended": ended, "tasks": tasks, "records": records}))


def show(tasks: list[tuple[int, float, float, str]], started: float) -> None:
    """A line a task, by the process and the time it began."""
    for pid, begun, ended, what in sorted(tasks, key=lambda task: (task[0], task[1])):
        print(f"{pid:>8} {begun - started:7.2f} {ended - started:7.2f} {ended - begun:6.2f}  {what}", file=sys.stderr)


def _cpu_s() -> float:
    """Processor time of the processes that this one has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
