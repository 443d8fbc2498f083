"""A small run that does everything, told moment by moment, and what of it may be broken: for scripts that stop it anywhere."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from depthbench.suites import export, profile, results, runner
from depthbench.suites.cli import running
from depthbench.suites.cli.app import invoke
from depthbench.suites.storage import caches, store
from depthbench.suites.targets import desktop_cpu, measuring
from depthbench.suites.training import state as training_state

SUITE = """
name: kills
data: {name: folder}
train:
  samples: 64
  seeds: [0]
  recipe:
    mixture: {folder: 1}
    batch: 8
    stages: [{share: 1, sizes: [32x32]}]
    checkpoint_samples: 8
    log_samples: 8
recipes:
  thin:
    summary: pruned and trained on
    steps:
      - prune: {macs_ratio: 0.3, round_to: 4, size: [64, 64]}
      - finetune: {samples: 32, batch: 8, stages: [{share: 1, sizes: [32x32]}], checkpoint_samples: 8}
    precision: {cpu: fp32, board: fp16}
matrix:
  - models: [{name: tiny, model: "tiny_net:build"}]
    recipes: [fp32, thin, int8]
    sizes: [64x64]
    targets: [desktop-cpu]
  - models: ["tiny_net:build", {name: tiny, model: "tiny_net:build"}]
    recipes: [fp16]
    sizes: [64x64]
    targets: [jetson-nano, desktop-cpu]
"""

NETWORK = """
from torch import nn


def build():
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding=1), nn.Softplus())
"""

STAGES = ("train", "compress", "export", "quantize", "profile", "evaluate", "measure", "record")
KINDS = {"trained": "train", "networks": "compress", "artefacts": "quantize", "evaluations": "evaluate"}
"""The stage that makes each kind of the store's entries."""

TIMES = (
    "seconds",
    "started",
    "finished",
    "timings",
    "environment",
    "samples_ms",
    "warmup_ms",
    "details",
    "flags",
    "explanation",
)
"""Keys of a record whose values are times, or follow from them."""


@dataclass(frozen=True)
class Moment:
    """The ``index``-th event of a stage in one process, and the share of the time to the next event that then passes."""

    stage: str
    index: int
    gap_s: float
    share: float


@dataclass(frozen=True)
class Place:
    """A cache and a run folder of their own."""

    root: Path

    @property
    def cache(self) -> Path:
        """The cache folder."""
        return self.root / "cache"

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.root / "run"


def prepare(work: Path) -> None:
    """Write the suite, its network and its images."""
    work.mkdir(parents=True)
    (work / "kills.yaml").write_text(SUITE)
    (work / "tiny_net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 12)):
        (work / "images" / split).mkdir(parents=True)
        for i in range(count):
            near = rng.uniform(1, 6, (1, 4))
            rgb = np.repeat(np.uint8(255 / near), 16, axis=1).repeat(48, axis=0)
            depth = np.uint16(1000 * near).repeat(16, axis=1).repeat(48, axis=0)
            Image.fromarray(np.dstack([rgb] * 3)).save(work / "images" / split / f"{i}.jpg", quality=95)
            Image.fromarray(depth).save(work / "images" / split / f"{i}.png")


def instrument(event: Callable[[str], None]) -> None:
    """Have what a run does tell its moments, each with its stage, and measure for a moment only."""
    inside = ["record"]
    assert runner.RunTasks  # all modules of a run are loaded, so whoever has a function by name is found

    def told(owner: Any, name: str, stage: Callable[..., str | None] = lambda *_: None) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            inside.append(stage(*arguments) or inside[-1])
            event(inside[-1])
            try:
                return function(*arguments, **options)
            finally:
                event(inside.pop())

        setattr(owner, name, call)
        for module in [module for name, module in sys.modules.items() if name.startswith("depthbench.")]:
            if getattr(module, name, None) is function:  # it was imported by name
                setattr(module, name, call)

    told(store.Store, "make_all", lambda own, *_: KINDS.get(own.kind))
    told(results.RunFolder, "write_record", lambda *_: "record")
    told(export, "export_onnx", lambda *_: "export")
    told(profile, "profile_model", lambda *_: "profile")
    told(measuring, "measure_group", lambda *_: "measure")
    told(training_state.Run, "advance")
    told(os, "fsync")
    told(Path, "replace")
    told(Path, "rename")
    desktop_cpu.PROFILES["quick"] = desktop_cpu.MeasureProfile(0.05, 10, block_s=0.01, warmup_s=0.01, warmup_runs=10)
    running._report_if_changed = lambda run: run


def begin(place: Place, work: Path) -> tuple[int, IO[str]]:
    """Start the run in a process of its own; its id, and the stream of its events."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, os.fdopen(reading)
    code = 70
    try:
        os.close(reading)
        os.setsid()
        os.chdir(work)
        said = os.open(work / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        torch.set_num_threads(1)
        os.environ |= {
            "OMP_NUM_THREADS": "1",
            "DEPTHBENCH_CACHE": str(place.cache),
            "DEPTHBENCH_LOCKS": str(work / "locks"),
        }
        instrument(lambda stage: void(os.write(writing, f"{stage}\n".encode())))
        command = ["run", "kills.yaml", "--out", str(place.out), "--data-root", str(work / "images"), "--workers", "1"]
        code = invoke(command)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def void(_: object) -> None:
    """Nothing of a value."""


def unbroken(place: Place, work: Path) -> tuple[int, list[tuple[str, float]]]:
    """The run from beginning to end: its exit code, and its events, each with the time to the next one."""
    child, events = begin(place, work)
    times = [(line.strip(), time.monotonic()) for line in events]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ends = [*(moment for _, moment in times[1:]), time.monotonic()][: len(times)]
    return code, [(stage, end - moment) for (stage, moment), end in zip(times, ends, strict=True)]


def interrupted(place: Place, work: Path, moment: Moment, interrupt: Callable[[int], None]) -> tuple[bool, int]:
    """The run, with ``interrupt`` (given its process's id) at a moment: whether that came, and the exit code."""
    child, events = begin(place, work)
    came = False
    count = 0
    for line in events:  # to the end, or the run would wait for a reader
        if not came and line.strip() == moment.stage:
            if count == moment.index:
                came = True
                time.sleep(moment.gap_s * moment.share)
                interrupt(child)
            count += 1
    return came, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def drawn(stage: str, events: list[tuple[str, float]], rng: random.Random, part: float = 1.0) -> Moment:
    """A moment of a stage, among the first ``part`` of them."""
    gaps = [gap for name, gap in events if name == stage]
    index = rng.randrange(max(1, int(len(gaps) * part)))
    return Moment(stage, index, min(gaps[index], 2.0), rng.random())


def timeless(value: Any) -> Any:
    """A record's JSON without times."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def look(place: Place) -> dict[str, Any]:
    """What a place holds: cells, records by id without their times, the entries' files by kind, key and name."""
    os.environ["DEPTHBENCH_CACHE"] = str(place.cache)
    folder = results.RunFolder(place.out)
    files = {}
    for kind in KINDS:
        own = store.Store(kind)
        for key in own:
            described = json.loads((own.root / key / store.META).read_bytes())
            files[f"{kind}/{key}"] = (
                described["files"] if kind in {"artefacts", "evaluations"} else sorted(described["files"])
            )
    return {
        "cells": folder.read_manifest()["cells"] if folder.manifest.is_file() else [],
        "records": {
            path.stem: timeless(json.loads(json.dumps(results.Record.from_json(results.read_json(path)).to_json())))
            for path in sorted((place.out / "records").glob("[!.]*.json"))
        },
        "accuracy": {path.name: results.read_json(path) for path in sorted((place.out / "evaluations").glob("[!.]*"))},
        "files": files,
    }


def differences(one: Any, two: Any, where: str = "") -> Iterator[str]:
    """Where two JSON values differ, and in what."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in one.keys() | two.keys():
            yield from differences(one.get(key), two.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for i, pair in enumerate(zip(one, two, strict=True)):
            yield from differences(*pair, f"{where}[{i}]")
    elif one != two:
        yield f"{where}: {one!s:.80} and {two!s:.80}"


def compare(place: Place, reference: dict[str, Any], whole: bool) -> list[str]:
    """What in a place is not as in an unbroken run: nothing else than that may be there, and all of it when ``whole``."""
    wrong = []
    os.environ["DEPTHBENCH_CACHE"] = str(place.cache)
    wrong += [f"{item.area}/{item.name}: {fault}" for item, fault in caches.faults(caches.contents(), lambda *_: None)]
    found = look(place)
    for part in ("records", "accuracy", "files"):
        for key, value in found[part].items():
            if key not in reference[part]:
                wrong.append(f"{part}: {key} is not of the unbroken run")
            elif value != reference[part][key]:
                wrong += [
                    f"{part}: {key} differs: {line}" for line in islice(differences(value, reference[part][key]), 4)
                ]
        if whole:
            wrong += [f"{part}: {key} is lost" for key in reference[part] if key not in found[part]]
    if whole and (found["cells"] != reference["cells"] or sorted(found["cells"]) != sorted(found["records"])):
        wrong.append("cells: lost, doubled or in another order")
    if whole and caches.tidy():
        wrong.append("half-made entries were left behind")
    return wrong
