"""What a plan will take: the pieces of work that its cells share, what of them the store holds, and how long the rest takes.

Durations come from earlier pieces of the same kind, which the store keeps with each entry. Imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from depthbench.suites.compressing import network_key
from depthbench.suites.plan import Data, Job, digest, shipped_child
from depthbench.suites.results import read_json
from depthbench.suites.running.shared_evaluation import evaluation_key
from depthbench.suites.running.trained import trained_key
from depthbench.suites.stages import Artefact, ArtefactSpec
from depthbench.suites.storage.store import META, Store

TRAINING, COMPRESSION, FILE, ACCURACY, LATENCY = STAGES = ("training", "compression", "file", "accuracy", "latency")

_KINDS = {TRAINING: "trained", COMPRESSION: "networks", FILE: "artefacts", ACCURACY: "evaluations"}
RECENT = 100
"""So many of the newest entries of a kind are looked at for how long one takes."""


@dataclass
class Piece:
    """A piece of work that is done once, whatever the number of cells that need it.

    ``what``: in words. ``seconds``: how long it takes by earlier ones like it, None when there are none; 0 when it is cached.
    """

    stage: str
    what: str
    cached: bool = False
    seconds: float | None = None
    cells: list[str] = field(default_factory=list)


def outlook(
    jobs: Sequence[Job], specs: Mapping[str, ArtefactSpec], recorded: frozenset[str] = frozenset()
) -> list[Piece]:
    """The pieces of work of the cells that can run, in the order in which they are done.

    ``specs``: what the file of each cell is made of, by the cell's id. ``recorded``: cells of which a run has the record
    already; they need nothing.
    """
    found = _Pieces()
    for job in jobs:
        if job.skip is None and job.id not in recorded:
            found.add(job, specs[job.id])
    return sorted(found.pieces.values(), key=lambda piece: STAGES.index(piece.stage))


class _Pieces:
    """Pieces by their key, each looked up in the store once."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[str, str], Piece] = {}
        self.rates: dict[str, _Rates] = {}
        self.keys: dict[Any, str] = {}
        self.networks: dict[tuple[str, str, str], str | None] = {}
        self.evaluations: dict[tuple[str, Data], str | None] = {}

    def add(self, job: Job, spec: ArtefactSpec) -> None:
        """Note what a cell needs."""
        model, recipe = job.model, job.recipe
        if model.variant is not None:
            key = trained_key(model) if (TRAINING, model.digest) not in self.pieces else ""
            self.piece(job, TRAINING, model.digest, model.name, key, model.variant.config.samples)
        same = (model.name, model.digest, recipe.name)
        if same not in self.networks:
            made = bool(recipe.steps) and model.kind != "onnx" and shipped_child(model, recipe) is None
            self.networks[same] = network_key(model, recipe, spec.source) if made else None
        if (network := self.networks[same]) is not None:
            self.piece(job, COMPRESSION, network, f"{model.name} {recipe.name}", network)
        height, width = spec.size
        name = f"{model.name} {recipe.name} {height}x{width} {spec.precision}"
        file = (*same, spec.size, spec.precision, spec.opset)
        if file not in self.keys:
            self.keys[file] = spec.key
        key = self.keys[file]
        self.piece(job, FILE, key, name, key, kind=spec.precision)
        if (key, job.data) not in self.evaluations:
            self.evaluations[key, job.data] = _evaluation(key, spec, job.data)
        score = self.evaluations[key, job.data]
        self.piece(job, ACCURACY, f"{key} {digest(job.data.identity)}", f"{name} on {job.data.name}", score, job.data.n)
        if job.target.how == "measured":
            self.piece(job, LATENCY, f"{key} {job.target.name}", f"{name} on {job.target.name}", None)

    def piece(
        self, job: Job, stage: str, same: str, what: str, key: str | None, amount: float = 1.0, kind: str = ""
    ) -> None:
        """One more cell needs a piece. ``key``: of its entry in the store; ``amount``: how much of it there is to do."""
        piece = self.pieces.get((stage, same))
        if piece is None:
            piece = Piece(stage, what)
            if stage == LATENCY:
                piece.seconds = _measuring_s(job)
            else:
                piece.cached = key is not None and Store(_KINDS[stage]).holds(key)
                rates = self.rates.get(stage) or self.rates.setdefault(stage, _Rates(stage))
                piece.seconds = 0.0 if piece.cached else rates.seconds(amount, kind)
            self.pieces[stage, same] = piece
        piece.cells.append(job.id)


def _evaluation(key: str, spec: ArtefactSpec, data: Data) -> str | None:
    """The key of a file's evaluation, or None as long as there is no file."""
    meta = _description("artefacts", key).get("meta")
    if not isinstance(meta, dict) or "sha256" not in meta:
        return None
    folder = Store("artefacts").root / key
    made = Artefact(key, folder / "model.onnx", meta["sha256"], spec.size, spec.precision, [], {})
    return evaluation_key(made, data)


def _description(kind: str, key: str) -> dict[str, Any]:
    """What the store says of an entry, unchecked; empty when it says nothing that can be read."""
    path = Store(kind).root / key / META
    try:
        value = read_json(path) if path.is_file() else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class _Rates:
    """How long earlier pieces of a stage took: per sample, per image, or per file of a precision."""

    def __init__(self, stage: str) -> None:
        kind = _KINDS[stage]
        folders = [Store(kind).root / key for key in Store(kind)]
        newest = sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)[:RECENT]
        self.rates: dict[str, list[float]] = defaultdict(list)
        for folder in newest:
            for name, rate in _rates(stage, _description(kind, folder.name)):
                self.rates[name].append(rate)

    def seconds(self, amount: float, kind: str) -> float | None:
        """For so much of a kind; of all kinds when there was none of this one."""
        known = self.rates.get(kind) or self.rates.get("")
        return median(known) * amount if known else None


def _rates(stage: str, stored: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    meta = stored.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    seconds = stored.get("seconds", meta.get("seconds"))
    amount = {TRAINING: meta.get("samples"), ACCURACY: meta.get("n")}.get(stage, 1)
    if not isinstance(seconds, int | float) or not isinstance(amount, int | float) or amount <= 0:
        return
    yield "", seconds / amount
    if stage == FILE and meta.get("lineage"):
        last = meta["lineage"][-1]["stage"]
        yield "fp32" if last == "onnx" else last, seconds / amount


def _measuring_s(job: Job) -> float | None:
    """The least that measuring takes, by its profile; unknown for a target of another package."""
    from depthbench.suites.targets.desktop_cpu import PROFILES

    profile = PROFILES.get(job.measure_profile)
    return None if profile is None or job.target.measure is not None else profile.seconds + profile.warmup_s
