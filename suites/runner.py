"""Running a suite: the visible list of stages, from its cells to their records.

    plan → skips → training of what the suite trains itself → artefacts (compress, export, quantize, profile)
         → accuracy → latency (measured, predicted) → records

Everything costly is kept by content in the store, and every finished cell as a record in the run folder, so a run that was
stopped goes on where it was and a run that is complete recomputes nothing. Nothing else of the run is at work while latency
is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.compressing import network
from depthbench.suites.environment import environment, now
from depthbench.suites.execution import Progress, pool, run_tasks
from depthbench.suites.plan import Data, Job, library_versions, make_plan
from depthbench.suites.results import SCHEMA_VERSION, Record, RunFolder, write_atomic, write_json
from depthbench.suites.schema import Suite
from depthbench.suites.shared_evaluation import evaluations, share
from depthbench.suites.source import CALIBRATION_IMAGES, DataSource
from depthbench.suites.stages import Artefact, ArtefactSpec, StoredEvaluation, artefact
from depthbench.suites.targets.board_results import Outcome as Timing
from depthbench.suites.targets.measuring import Work, measure_group
from depthbench.suites.trained import trained

if TYPE_CHECKING:
    from depthbench.suites.data import DepthDataset
    from depthbench.suites.training_log import Report


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
    jobs = make_plan(request.suite, data, base=request.base, only=request.only, roots=source.roots)
    _write_manifest(folder, request.suite, data, jobs)

    done = {job.id: record for job in jobs if (record := folder.read_record(job.id)) and record.status != "failed"}
    todo = [job for job in jobs if job.id not in done]
    fresh = {job.id: _record(job, "skipped", reason=job.skip) for job in todo if job.skip}
    todo = [job for job in todo if not job.skip]
    if todo:
        for images in [*splits, *training_images(todo, source.roots)]:
            prepare_images(images, progress)
    specs = {job.id: artefact_spec(job, source, splits[1].digest) for job in todo}

    with pool(request.workers, len(todo)) as executor:
        untrained = _trainings(executor, todo, source.roots, progress)
        failures = {specs[job.id].key: untrained[job.model.digest] for job in todo if job.model.digest in untrained}
        wanted = {id_: spec for id_, spec in specs.items() if spec.key not in failures}
        artefacts, unmade = _artefacts(executor, wanted, progress)
        accuracies, more = _evaluations(executor, artefacts.values(), data, request.data_root, progress)
    failures |= unmade | {spec.key: more[spec.key] for spec in specs.values() if spec.key in more}

    for record in fresh.values():
        folder.write_record(record)
    for job in todo:
        if (reason := failures.get(specs[job.id].key)) is not None:
            fresh[job.id] = _record(job, "failed", reason=reason)
            folder.write_record(fresh[job.id])
    ready = [(job, artefacts[specs[job.id].key]) for job in todo if specs[job.id].key not in failures]
    for stored in accuracies.values():
        write_atomic(folder.evaluation_path(stored.digest), stored.metrics.read_bytes())
        write_atomic(folder.samples_path(stored.digest), stored.samples.read_bytes())
    for job, made, timing in _latencies(ready, source, progress):
        record = _complete(job, made, accuracies[made.key], timing)
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


def training_images(jobs: Iterable[Job], roots: Mapping[str, Path]) -> list[DepthDataset]:
    """The training splits that the models of ``jobs`` are trained on, each once."""
    from depthbench.suites.data import open_dataset

    configs = [job.model.variant.config for job in jobs if job.model.variant]
    wanted = dict.fromkeys((name, config.images.get(name)) for config in configs for name in config.mixture)
    return [open_dataset(name, "train", root=roots.get(name), limit=limit) for name, limit in wanted]


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


def _trainings(
    executor: Executor | None, jobs: Iterable[Job], roots: Mapping[str, Path], progress: Progress
) -> dict[str, str]:
    """Train what the suite trains itself and the store lacks; the reason of each failure by the model's digest."""
    models = {job.model.digest: job.model for job in jobs if job.model.variant}

    def reporter(place: int) -> Report:
        return lambda status: progress("training", place + status.samples / status.total, len(models))

    tasks = {
        key: (trained, (spec, roots, reporter(place) if executor is None else None))
        for place, (key, spec) in enumerate(models.items())
    }
    return run_tasks(executor, tasks, "training", progress)[1]


def _artefacts(
    executor: Executor | None, specs: dict[str, ArtefactSpec], progress: Progress
) -> tuple[dict[str, Artefact], dict[str, str]]:
    tasks = {spec.key: (artefact, (spec,)) for spec in specs.values()}
    return run_tasks(executor, tasks, "artefacts", progress)


def _evaluations(
    executor: Executor | None, artefacts: Iterable[Artefact], data: Data, root: Path | None, progress: Progress
) -> tuple[dict[str, StoredEvaluation], dict[str, str]]:
    tasks = {
        " ".join(made.key for made in group): (evaluations, (group, data, root)) for group in share(list(artefacts))
    }
    results, failed = run_tasks(executor, tasks, "accuracy", progress)
    stored = {key: value for good, _ in results.values() for key, value in good.items()}
    reasons = {key: why for _, bad in results.values() for key, why in bad.items()}
    return stored, reasons | {key: why for keys, why in failed.items() for key in keys.split()}


def _latencies(
    ready: Sequence[tuple[Job, Artefact]], source: DataSource, progress: Progress
) -> Iterator[tuple[Job, Artefact, Timing]]:
    """The latency of every cell: predictions at once, measurements of one target interleaved with each other."""
    from depthbench.suites.targets.predicted import predict

    for job, made in ready:
        if job.target.how == "predicted":
            prediction = predict(made.path, job.target.name, "int8" if made.precision == "int8-trt" else made.precision)
            yield job, made, Timing(prediction.latency())
    measured = [(job, made) for job, made in ready if job.target.how == "measured"]
    for name in dict.fromkeys(job.target.name for job, _ in measured):
        group = [(job, made) for job, made in measured if job.target.name == name]
        timings = measure_group(
            group[0][0].target,
            [_work(job, made, source) for job, made in group],
            group[0][0].measure_profile,
            progress=partial(_tell, progress, f"latency on {name}"),
        )
        for (job, made), timing in zip(group, timings, strict=True):
            yield job, made, timing


def _work(job: Job, made: Artefact, source: DataSource) -> Work:
    build = None if job.model.kind == "onnx" else lambda: network(job.model, job.recipe, source)[0]
    return Work(made.path, made.precision, made.size, build)


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


def _complete(job: Job, made: Artefact, stored: StoredEvaluation, timing: Timing) -> Record:
    return replace(
        _record(job, "ok" if timing.latency is not None else "failed", timing.reason),
        profile=made.profile,
        latency=timing.latency,
        evaluation=stored.digest,
        lineage=made.lineage,
        compression=made.reports,
        environment=timing.environment,
    )
