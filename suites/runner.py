"""Running a suite, from its cells to their records.

    plan → skips → tasks (:mod:`.run_tasks`: training → compression → artefacts → accuracy → latency)
         → carried out by workers (:mod:`.tasks`, :mod:`.workers`) → a record a cell, as soon as it is complete

Everything costly is kept by content in the store, and every finished cell as a record in the run folder, so a run that was
stopped goes on where it was and a run that is complete recomputes nothing. Nothing else of the run is at work on a machine
while latency is measured there (:mod:`.exclusion`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.environment import environment, now
from depthbench.suites.merging import cell_of
from depthbench.suites.plan import Data, Job, library_versions, make_plan
from depthbench.suites.results import SCHEMA_VERSION, Record, RunFolder, write_json
from depthbench.suites.running.cluster import Scheduler
from depthbench.suites.running.exclusion import resource_of
from depthbench.suites.running.execution import Call, Progress
from depthbench.suites.running.record_writer import RecordWriter
from depthbench.suites.running.records import unfinished
from depthbench.suites.running.run_tasks import File, RunTasks
from depthbench.suites.running.status import Status, Watch
from depthbench.suites.running.tasks import Task, carry_out
from depthbench.suites.running.workers import open_workers
from depthbench.suites.schema import Suite
from depthbench.suites.source import CALIBRATION_IMAGES, DataSource
from depthbench.suites.stages import ArtefactSpec
from depthbench.suites.storage.disk import writable

if TYPE_CHECKING:
    from depthbench.suites.data import Access, DepthDataset


@dataclass(frozen=True)
class Request:
    """What a user asks of a run beyond the suite.

    ``workers``: processes of this machine for everything but measuring; one is this process. ``scheduler``: a Dask cluster
    that does the work instead.
    """

    suite: Suite
    out: Path
    base: Path | None = None
    data_root: Path | None = None
    only: tuple[str, ...] = ()
    workers: int = 1
    scheduler: Scheduler | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished run: its records, how many of them this call computed, and a line for each broken image that was left out."""

    folder: RunFolder
    records: list[Record]
    computed: int
    left_out: tuple[str, ...] = ()


def run(request: Request, progress: Progress, look: Callable[[Status], None] = lambda _: None) -> Outcome:
    """Run a suite into a folder; ``progress`` is told of what takes long, ``look`` of the run's status as it changes.

    Raises:
        ValueError: the folder cannot be used, the suite's data is not there or broken, or the workers cannot.
        FullDiskError: no space is left for what the run makes.
    """
    folder = open_run(request.out, request.suite)
    data, source, splits = describe_data(request.suite, request.data_root, progress)
    jobs = make_plan(request.suite, data, base=request.base, only=request.only, access=source.access)
    elsewhere = done_elsewhere(folder, jobs)
    records = {job.id: elsewhere.get(job.id) or folder.read_record(job.id) for job in jobs}
    done = {cell: record for cell, record in records.items() if record is not None and record.status != "failed"}
    todo = [job for job in jobs if job.id not in done]
    _check(todo, splits, source, progress)
    _write_manifest(folder, request.suite, data[request.suite.data.name], jobs, elsewhere)
    fresh: dict[str, Record] = {}
    watch = Watch(folder, len(jobs), look)
    for record in done.values():
        watch.cell(record, kept=True)
    try:
        with RecordWriter(folder) as writer:
            for record in _records(request, todo, source, splits, writer.flush, watch, progress):
                writer.write(record)
                watch.cell(record)
                fresh[record.id] = record
    except BaseException as error:
        watch.end("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    watch.end("finished")
    left_out = tuple(dict.fromkeys(line for images in splits for line in images.skipped))
    return Outcome(folder, [done.get(job.id) or fresh[job.id] for job in jobs], len(fresh), left_out)


def _records(
    request: Request,
    todo: Sequence[Job],
    source: DataSource,
    splits: Sequence[DepthDataset],
    pause: Callable[[], None],
    watch: Watch,
    progress: Progress,
) -> Iterator[Record]:
    """The records of cells, each as soon as it is known; ``pause`` is called before anything that may take long."""
    yield from (unfinished(job, "skipped", job.skip) for job in todo if job.skip)
    jobs = [job for job in todo if not job.skip]
    if not jobs:
        return
    pause()

    def begun(task: Task, call: Call) -> None:
        pause()
        watch.begun(task, call)

    resources = {resource_of(job.target) for job in jobs if job.target.how == "measured"}
    models = [job.model for job in jobs]
    with open_workers(request.workers, request.scheduler, resources, models, progress) as workers:
        for images in [*splits, *training_images(jobs, source.access)]:
            prepare_images(images, progress)
        specs = [artefact_spec(job, source, splits[1].digest) for job in jobs]
        made = RunTasks([(job, File(spec.key, spec)) for job, spec in zip(jobs, specs, strict=True)], source.access)
        tasks = made.all(workers.count)
        watch.plan(tasks, workers.count)
        for task, outcome in carry_out(tasks, workers, begun):
            watch.over(task, outcome)
            yield from made.over(task, outcome)


def open_run(out: Path, suite: Suite) -> RunFolder:
    """The run folder at ``out``, created when missing; ``ValueError`` when it is not writable or holds another suite's run."""
    folder = RunFolder(out)
    writable(out)
    if folder.manifest.is_file():
        name = folder.read_manifest()["suite"]["name"]
        if name != suite.name:
            raise ValueError(f"{out}: holds a run of suite {name}, not of {suite.name}; choose another folder")
    return folder


def describe_data(
    suite: Suite, root: Path | None, progress: Progress = lambda *_: None
) -> tuple[dict[str, Data], DataSource, list[DepthDataset]]:
    """A suite's images: their descriptions by data set, where those of its own come from, and the splits that a run needs.

    The first two splits are of the suite's own data set, which ``root`` is the folder of: evaluation and calibration.
    """
    from depthbench.suites.data import Access, dataset_info
    from depthbench.suites.names import lookup
    from depthbench.suites.protocols import PROTOCOLS

    own, described, splits = suite.data.name, {}, []
    access = {
        name: Access(root if name == own else None, spec.depth_scale, spec.skip_broken)
        for name, spec in suite.data_sets.items()
    }

    def opened(name: str, split: str, limit: int | None) -> DepthDataset:
        return access[name].open(name, split, limit, partial(progress, f"reading ({name} {split})"))

    for spec in suite.data_sets.values():
        protocol = spec.protocol or dataset_info(spec.name).protocol
        lookup("protocol", protocol, PROTOCOLS)
        images = opened(spec.name, spec.split, spec.limit)
        described[spec.name] = Data(spec.name, spec.split, len(images), protocol, images.digest, len(images.skipped))
        splits.append(images)
    splits.insert(1, opened(own, "calibration", CALIBRATION_IMAGES))
    source = DataSource(
        own, described[own].protocol, root, suite.data.depth_scale, suite.data.skip_broken, others=access
    )
    return described, source, splits


def _check(todo: Sequence[Job], splits: Sequence[DepthDataset], source: DataSource, progress: Progress) -> None:
    """``ValueError`` names the first broken file of the images that cells will read, before anything is made of them."""
    from depthbench.suites.data.loading import check_images

    jobs = [job for job in todo if not job.skip]
    read = {job.data.name for job in jobs}
    wanted = [images for images in splits if jobs and (images.name in read or images.split == "calibration")]
    for images in [*wanted, *training_images(jobs, source.access)]:
        check_images(images, partial(progress, f"reading ({images.name} {images.split})"))


def prepare_images(images: DepthDataset, progress: Progress) -> None:
    """Render the images of a data set that is rendered here, unless the cache has them."""
    from depthbench.suites.data.rooms_dataset import RoomsDataset

    if isinstance(images, RoomsDataset):
        images.prepare(lambda done, total: progress(f"images ({images.name} {images.split})", done, total))


def training_images(jobs: Iterable[Job], access: Mapping[str, Access]) -> list[DepthDataset]:
    """The training splits that the models of ``jobs`` are trained on, each once."""
    from depthbench.suites.data import USUAL

    configs = [job.model.variant.config for job in jobs if job.model.variant]
    wanted = dict.fromkeys((name, config.images.get(name)) for config in configs for name in config.mixture)
    return [access.get(name, USUAL).open(name, "train", limit) for name, limit in wanted]


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


def done_elsewhere(folder: RunFolder, jobs: Sequence[Job]) -> dict[str, Record]:
    """By cell that is skipped here: the ok record of it that the folder has, from a machine (or a day) on which it could run.

    It counts as long as the model is the same.
    """
    skipped = {_cell(job): job for job in jobs if job.skip}
    if not skipped or not folder.manifest.is_file():
        return {}
    planned = {job.id for job in jobs}
    found = {}
    for cell in folder.read_manifest()["cells"]:
        record = folder.read_record(cell) if cell not in planned else None
        job = skipped.get(cell_of(record)) if record is not None and record.status == "ok" else None
        if job is not None and record is not None and _same_model(record, job):
            found[job.id] = record
    return found


def _same_model(record: Record, job: Job) -> bool:
    if not record.lineage:
        return False
    first, variant = record.lineage[0], job.model.variant
    return first.digest == job.model.digest if variant is None else variant.to_json().items() <= first.options.items()


def _write_manifest(
    folder: RunFolder, suite: Suite, data: Data, jobs: Sequence[Job], elsewhere: Mapping[str, Record]
) -> None:
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
        "cells": [elsewhere[job.id].id if job.id in elsewhere else job.id for job in jobs],
        "libraries": library_versions(),
        "environment": environment(),
        "started": now(),
    }
    if folder.manifest.is_file():
        old = folder.read_manifest()
        manifest |= {"merged": old["merged"]} if "merged" in old else {}
        if {**old, "environment": None, "started": None} == {**manifest, "environment": None, "started": None}:
            return
        manifest["cells"] += _others(folder, old["cells"], jobs)
    write_json(folder.manifest, manifest)


def _others(folder: RunFolder, cells: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """Earlier cells of this folder that the new plan does not replace (another data set, or left out by ``--only``)."""
    planned = {_cell(job) for job in jobs}
    records = [record for cell in cells if (record := folder.read_record(cell)) is not None]
    return [record.id for record in records if cell_of(record) not in planned]


def _cell(job: Job) -> tuple[Any, ...]:
    """As :func:`depthbench.suites.merging.cell_of`."""
    return job.model.name, job.recipe.name, job.size, job.target.name, job.data.name, job.data.protocol
