"""Running a suite: the visible list of stages, from its cells to their records.

    plan → skips → artefacts (compress, export, quantize, profile) → accuracy → latency (measured, predicted) → records

Everything costly is kept by content in the store, and every finished cell as a record in the run folder, so a run that was
stopped goes on where it was and a run that is complete recomputes nothing. Nothing else of the run is at work while latency
is measured.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.environment import environment, now
from depthbench.suites.plan import Data, Job, library_versions, make_plan
from depthbench.suites.results import SCHEMA_VERSION, Latency, Record, RunFolder, write_atomic, write_json
from depthbench.suites.schema import Suite
from depthbench.suites.stages import (
    CALIBRATION_IMAGES,
    Artefact,
    ArtefactSpec,
    DataSource,
    StoredEvaluation,
    artefact,
    evaluation,
)
from depthbench.suites.targets.desktop_cpu import PROFILES, latency, measure, measuring_environment, thread_count

if TYPE_CHECKING:
    from depthbench.suites.data import DepthDataset

Progress = Callable[[str, float, float], None]
"""Called with the name of a stage, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Request:
    """What a user asks of a run beyond the suite."""

    suite: Suite
    out: Path
    base: Path | None = None
    data_root: Path | None = None
    only: tuple[str, ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class Outcome:
    """A finished run: its records, and how many of them this call computed."""

    folder: RunFolder
    records: list[Record]
    computed: int


def run(request: Request, progress: Progress) -> Outcome:
    """Run a suite into a folder; ``ValueError`` for a folder that cannot be used."""
    folder = open_run(request.out, request.suite)
    data, source, splits = describe_data(request.suite, request.data_root)
    jobs = make_plan(request.suite, data, base=request.base, only=request.only)
    _write_manifest(folder, request.suite, data, jobs)

    done = {job.id: record for job in jobs if (record := folder.read_record(job.id)) and record.status != "failed"}
    todo = [job for job in jobs if job.id not in done]
    fresh = {job.id: _record(job, "skipped", reason=job.skip) for job in todo if job.skip}
    todo = [job for job in todo if not job.skip]
    if todo:
        for images in splits:
            prepare_images(images, progress)
    specs = {job.id: artefact_spec(job, source, splits[1].digest) for job in todo}

    with _executor(request.workers, len(todo)) as executor:
        artefacts, failures = _artefacts(executor, specs, progress)
        evaluations, more = _evaluations(executor, artefacts.values(), data, request.data_root, progress)
    failures |= {spec.key: more[spec.key] for spec in specs.values() if spec.key in more}

    for record in fresh.values():
        folder.write_record(record)
    for job in todo:
        if (reason := failures.get(specs[job.id].key)) is not None:
            fresh[job.id] = _record(job, "failed", reason=reason)
            folder.write_record(fresh[job.id])
    ready = [(job, artefacts[specs[job.id].key]) for job in todo if specs[job.id].key not in failures]
    for stored in evaluations.values():
        write_atomic(folder.evaluation_path(stored.digest), stored.metrics.read_bytes())
        write_atomic(folder.samples_path(stored.digest), stored.samples.read_bytes())
    for job, made, timing, where in _latencies(ready, progress):
        record = _complete(job, made, evaluations[made.key], timing, where)
        folder.write_record(record)
        fresh[job.id] = record
    records = [done.get(job.id) or fresh[job.id] for job in jobs]
    return Outcome(folder, records, len(fresh))


def open_run(out: Path, suite: Suite) -> RunFolder:
    """The run folder at ``out``, created when missing; ``ValueError`` when it is not writable or holds another suite's run."""
    folder = RunFolder(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: not a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / ".writable", b"")
        (out / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror})") from None
    if folder.manifest.is_file():
        name = folder.read_manifest()["suite"]["name"]
        if name != suite.name:
            raise ValueError(f"{out}: holds a run of suite {name}, not of {suite.name}; choose another folder")
    return folder


def describe_data(suite: Suite, root: Path | None) -> tuple[Data, DataSource, list[DepthDataset]]:
    """A suite's images: their description, their source, and the two splits a run needs (evaluation, calibration)."""
    from depthbench.suites.data import dataset_info, open_dataset
    from depthbench.suites.names import lookup
    from depthbench.suites.protocols import PROTOCOLS

    spec = suite.data
    protocol = spec.protocol or dataset_info(spec.name).protocol
    lookup("protocol", protocol, PROTOCOLS)
    images = open_dataset(spec.name, spec.split, root=root, limit=spec.limit)
    calibration = open_dataset(spec.name, "calibration", root=root, limit=CALIBRATION_IMAGES)
    data = Data(spec.name, spec.split, len(images), protocol, images.digest)
    return data, DataSource(spec.name, protocol, root), [images, calibration]


def prepare_images(images: DepthDataset, progress: Progress) -> None:
    """Render the images of a data set that is rendered here, unless the cache has them."""
    from depthbench.suites.data.rooms_dataset import RoomsDataset

    if isinstance(images, RoomsDataset):
        images.prepare(lambda done, total: progress(f"images ({images.name} {images.split})", done, total))


def artefact_spec(job: Job, source: DataSource, calibration: str) -> ArtefactSpec:
    """What the file that a cell deploys is made of."""
    assert job.precision is not None
    return ArtefactSpec(
        model=job.model,
        recipe=job.recipe,
        size=job.size,
        precision=job.precision,
        opset=job.target.opset,
        source=source,
        calibration_digest=calibration if job.precision.startswith("int8") else None,
    )


def _write_manifest(folder: RunFolder, suite: Suite, data: Data, jobs: Sequence[Job]) -> None:
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "suite": suite.model_dump(mode="json"),
        "dataset": {
            "name": data.name,
            "split": data.split,
            "n": data.n,
            "protocol": data.protocol,
            "digest": data.digest,
        },
        "cells": [job.id for job in jobs],
        "libraries": library_versions(),
        "environment": environment(),
        "started": now(),
    }
    if folder.manifest.is_file():
        old = folder.read_manifest()
        if {**old, "environment": None, "started": None} == {**manifest, "environment": None, "started": None}:
            return
        manifest["cells"] += _others(folder, old["cells"], jobs)
    write_json(folder.manifest, manifest)


def _others(folder: RunFolder, cells: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """Earlier cells of this folder that the new plan does not replace (another data set, or left out by ``--only``)."""
    planned = {(j.model.name, j.recipe.name, j.size, j.target.name, j.data.name, j.data.protocol) for j in jobs}
    records = [record for cell in cells if (record := folder.read_record(cell)) is not None]
    return [r.id for r in records if (r.model, r.recipe, r.size, r.target, r.dataset, r.protocol) not in planned]


@contextmanager
def _executor(workers: int, work: int) -> Iterator[Executor | None]:
    """``workers`` fresh processes with one thread each, or None: in this process."""
    if workers <= 1 or work < 2:
        yield None
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _map(
    executor: Executor | None,
    tasks: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]],
    stage: str,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Results and failures of tasks by key; a task that fails is a failure of its cells, not of the run."""
    results: dict[str, Any] = {}
    failures: dict[str, str] = {}

    def settle(key: str, call: Callable[[], Any]) -> None:
        try:
            results[key] = call()
        except Exception as error:  # whatever a user's network or a library raises is recorded as the cells' reason
            failures[key] = f"{stage}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        progress(stage, len(results) + len(failures), len(tasks))

    if executor is None:
        for key, (function, arguments) in tasks.items():
            settle(key, partial(function, *arguments))
        return results, failures
    futures: dict[Future[Any], str] = {executor.submit(fn, *arguments): key for key, (fn, arguments) in tasks.items()}
    for future in as_completed(futures):
        settle(futures[future], future.result)
    return results, failures


def _artefacts(
    executor: Executor | None, specs: dict[str, ArtefactSpec], progress: Progress
) -> tuple[dict[str, Artefact], dict[str, str]]:
    tasks = {spec.key: (artefact, (spec,)) for spec in specs.values()}
    return _map(executor, tasks, "artefacts", progress)


def _evaluations(
    executor: Executor | None, artefacts: Iterable[Artefact], data: Data, root: Path | None, progress: Progress
) -> tuple[dict[str, StoredEvaluation], dict[str, str]]:
    ordered = sorted(artefacts, key=lambda made: -made.size[0] * made.size[1])  # the longest first
    tasks = {made.key: (evaluation, (made, data, root)) for made in ordered}
    return _map(executor, tasks, "accuracy", progress)


def _latencies(
    ready: Sequence[tuple[Job, Artefact]], progress: Progress
) -> Iterator[tuple[Job, Artefact, Latency, dict[str, Any]]]:
    """The latency of every cell: predictions at once, measurements of one target interleaved with each other."""
    from depthbench.suites.targets.predicted import predict

    for job, made in ready:
        if job.target.how == "predicted":
            prediction = predict(made.path, job.target.name, "int8" if made.precision == "int8-trt" else made.precision)
            yield job, made, prediction.latency(), {}
    measured = [(job, made) for job, made in ready if job.target.how == "measured"]
    for name in dict.fromkeys(job.target.name for job, _ in measured):
        group = [(job, made) for job, made in measured if job.target.name == name]
        target = group[0][0].target
        threads = thread_count(target.threads)
        where = measuring_environment(threads)
        timings = measure(
            [made.path for _, made in group],
            PROFILES[group[0][0].measure_profile],
            threads=threads,
            progress=partial(_tell, progress, f"latency on {name}"),
        )
        for (job, made), timing in zip(group, timings, strict=True):
            yield job, made, latency(timing, threads), where


def _tell(progress: Progress, stage: str, share: float) -> None:
    progress(stage, share, 1.0)


def _record(job: Job, status: Any, reason: str | None = None) -> Record:
    return Record(
        id=job.id,
        status=status,
        model=job.model.name,
        family=job.model.family,
        recipe=job.recipe.name,
        size=job.size,
        target=job.target.name,
        target_kind=job.target.kind,
        dataset=job.data.name,
        protocol=job.data.protocol,
        precision=job.precision,
        reason=reason,
        finished=now(),
    )


def _complete(job: Job, made: Artefact, stored: StoredEvaluation, timing: Latency, where: dict[str, Any]) -> Record:
    return replace(
        _record(job, "ok"),
        profile=made.profile,
        latency=timing,
        evaluation=stored.digest,
        lineage=made.lineage,
        compression=made.reports,
        environment=where,
    )
