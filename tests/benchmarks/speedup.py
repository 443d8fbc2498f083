"""What two local workers are worth on the stages that use the processor: making files, and their accuracy.

    python tests/benchmarks/speedup.py [--images 128] [--workers 2]

Runs a suite without measurements in this process and by workers, each with an empty store. The ratio of wall times says
something only on a machine on which that many cores are idle; processor times say everywhere what the workers cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

SUITE = """
name: speedup
data: {{name: rooms, limit: {images}}}
matrix:
  - models: [tst-t, tst-s, fastdepth-pruned, mobilevit-xxs]
    recipes: [fp16, int8-trt]
    sizes: [224x224]
    targets: [jetson-orin-nano]
"""


def main() -> None:
    """Both runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from depthbench.suites.cache import cache_dir
    from depthbench.suites.runner import Request, run
    from depthbench.suites.schema import parse_suite

    rooms = cache_dir() / "rooms"
    suite = parse_suite(SUITE.format(images=options.images), "speedup.yaml")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for workers in (1, options.workers):
            place = Path(name) / str(workers)
            (place / "cache").mkdir(parents=True)
            if rooms.is_dir():
                (place / "cache" / "rooms").symlink_to(rooms)  # rendering is no part of it
            os.environ["DEPTHBENCH_CACHE"] = str(place / "cache")
            started, used = time.perf_counter(), _cpu_s()
            outcome = run(Request(suite, place / "run", workers=workers), lambda *_: None)
            assert {record.status for record in outcome.records} == {"ok"}
            found |= {f"wall_s_{workers}": time.perf_counter() - started, f"cpu_s_{workers}": _cpu_s() - used}
    found["speedup"] = found["wall_s_1"] / found[f"wall_s_{options.workers}"]
    found["cpu_ratio"] = found[f"cpu_s_{options.workers}"] / found["cpu_s_1"]
    found["load_1min"] = os.getloadavg()[0]
    print(json.dumps({key: round(value, 2) for key, value in found.items()}))


def _cpu_s() -> float:
    """Processor time of this process and of those that it has ended."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


if __name__ == "__main__":
    main()
