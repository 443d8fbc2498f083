"""Accuracy of deployed files: ONNX networks run by ONNX Runtime over a data set, scored under a protocol."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data import DepthDataset
from depthbench.suites.data.loading import default_workers
from depthbench.suites.metrics import ALL_METRICS
from depthbench.suites.names import lookup
from depthbench.suites.protocols import PROTOCOLS, Prepared, Protocol

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PICTURE_HEIGHT = 240
WORST = 2
"""Pictures kept of the images that a file sees worst, beside those spread over the data set."""
_AHEAD_PER_WORKER = 2

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

Picture = tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]


@dataclass(frozen=True)
class Evaluation:
    """Per-image metrics of one file on one data set, and a few pictures.

    ``metrics``: name: one value per image of ``images``, nan for an image without a pixel that counts. ``groups``: the group of
    each image (a camera), empty when the data set has none. ``skipped``: a line for each broken image that was left out.
    ``rgb``: (S, 3, h, w) uint8, ``depth`` and ``prediction``: (S, h, w) float16 in metres, at most 240 high, of the S images
    whose places in ``images`` are ``pictured``, rising: some spread over the data set, and the ``WORST`` by their RMSE.
    """

    dataset: str
    split: str
    dataset_digest: str
    protocol: str
    size: tuple[int, int] | None
    images: list[str]
    metrics: dict[str, list[float]]
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float16]
    prediction: NDArray[np.float16]
    pictured: list[int]
    groups: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of images that were scored."""
        return sum(not math.isnan(value) for value in self.metrics["rmse_m"])

    def summary(self, group: str | None = None) -> dict[str, float]:
        """``n`` and the mean of each metric over the images that have a value, of one group or of all; nan where none has."""
        chosen = [i for i in range(len(self.images)) if group is None or self.groups[i] == group]
        known = {
            name: [values[i] for i in chosen if not math.isnan(values[i])] for name, values in self.metrics.items()
        }
        means = {name: float(np.mean(values)) if values else math.nan for name, values in known.items()}
        return {"n": len(known["rmse_m"]), **means}

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON-ready values; nan becomes None."""
        metrics = {name: [None if math.isnan(v) else v for v in values] for name, values in self.metrics.items()}
        names = ("dataset", "split", "dataset_digest", "protocol", "size", "images", "groups", "skipped")
        return {"n": self.n, **{name: getattr(self, name) for name in names}, "metrics": metrics}


def evaluate_onnx(
    path: Path,
    dataset: DepthDataset,
    protocol: str,
    *,
    size: tuple[int, int] | None = None,
    limit: int | None = None,
    samples: int = 4,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Run an ONNX file over a data set and score every image; see :func:`evaluate_many`."""
    [result] = evaluate_many(
        [(path, size)], dataset, protocol, limit=limit, samples=samples, threads=threads, progress=progress
    )
    return result


def evaluate_many(
    files: Sequence[tuple[Path, tuple[int, int] | None]],
    dataset: DepthDataset,
    protocol: str,
    *,
    limit: int | None = None,
    samples: int = 4,
    threads: int = 1,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Run ONNX files over a data set and score every image; each image is read, and its ground truth laid out, once for all.

    A file takes float32 rgb (1, 3, H, W) in [0, 1] and gives float32 depth in metres. Its input size is used; the one given
    beside it is for a file that leaves it open (None: the protocol's), and must agree with one that does not. ``samples``:
    number of pictures kept beside the worst. ``threads``: of ONNX Runtime; ``workers``: threads that read images ahead, a
    core each if left out. Raises ``ValueError`` for a file that cannot be loaded or run, an unknown protocol, or when no image
    has valid ground truth.
    """
    rules = lookup("protocol", protocol, PROTOCOLS)
    networks = [_Network.open(path, threads, size) for path, size in files]
    count = len(dataset) if limit is None else min(limit, len(dataset))
    pictured = set(np.linspace(0, count - 1, min(samples, count)).round().astype(int).tolist())
    sizes = {network.size for network in networks}
    for i, (prepared, inputs) in enumerate(_prepare_ahead(dataset, count, rules, sizes, workers or default_workers())):
        for network in networks:
            prediction = network.run(inputs[network.size])
            try:
                network.scores.append(prepared.score(prediction))
            except ValueError as error:
                raise ValueError(f"{network.path}: {dataset.label(i)}: {error}") from None
            network.picture(i, prepared, prediction, always=i in pictured)
        if progress is not None:
            progress(i + 1, count)
    if networks and all(math.isnan(scores["rmse_m"]) for scores in networks[0].scores):
        raise ValueError(f"{dataset.name} {dataset.split}: no image has valid ground truth under protocol {protocol}")
    return [network.evaluation(dataset, count, protocol) for network in networks]


@dataclass
class _Network:
    """A file at work, and what it has made so far."""

    path: Path
    session: InferenceSession
    size: tuple[int, int] | None
    scores: list[dict[str, float]] = field(default_factory=list)
    pictures: dict[int, Picture] = field(default_factory=dict)
    worst: dict[int, float] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, threads: int, size: tuple[int, int] | None) -> _Network:
        session = open_session(path, threads)
        return cls(path, session, _input_size(session, path, size))

    def run(self, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        """The depth map of an input (1, 3, H, W): as many dimensions as the network gives, all but the last two of size 1."""
        try:
            output: NDArray[np.float32] = self.session.run(None, {self.session.get_inputs()[0].name: rgb})[0]
        except Exception as error:  # onnxruntime's exceptions have no other common class
            raise ValueError(f"{self.path}: ONNX Runtime cannot run it ({_one_line(error)})") from None
        if output.size != output.shape[-1] * output.shape[-2]:
            raise ValueError(f"{self.path}: expected one depth map, its first output is {output.shape}")
        return output

    def picture(self, i: int, prepared: Prepared, prediction: NDArray[np.float32], *, always: bool) -> None:
        """Keep the picture of image ``i``, just scored, if ``always`` or while it is among the worst so far."""
        if not always:
            error = self.scores[i]["rmse_m"]
            if math.isnan(error) or (len(self.worst) == WORST and error <= min(self.worst.values())):
                return
            self.worst[i] = error
            if len(self.worst) > WORST:
                better = min(self.worst, key=self.worst.__getitem__)
                del self.worst[better], self.pictures[better]
        shape = next((depth.shape for _, depth, _ in self.pictures.values()), None)
        self.pictures[i] = _picture(prepared, prediction, shape)

    def evaluation(self, dataset: DepthDataset, count: int, protocol: str) -> Evaluation:
        pictured = sorted(self.pictures)
        rgb, depth, prediction = zip(*(self.pictures[i] for i in pictured), strict=True)
        return Evaluation(
            dataset=dataset.name,
            split=dataset.split,
            dataset_digest=dataset.digest,
            protocol=protocol,
            size=self.size,
            images=[dataset.label(i) for i in range(count)],
            metrics={name: [scores[name] for scores in self.scores] for name in ALL_METRICS},
            rgb=np.stack(rgb),
            depth=np.stack(depth),
            prediction=np.stack(prediction),
            pictured=pictured,
            groups=list(dataset.groups[:count]),
            skipped=list(dataset.skipped),
        )


def open_session(path: Path, threads: int = 1) -> InferenceSession:
    """An ONNX Runtime session on the CPU; ``ValueError`` names a file that is missing or cannot be loaded.

    A file in INT8 for TensorRT is taken as written (:func:`depthbench.compression.graph.take_as_written`).
    """
    from depthbench.compression.executed import open_quietly

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return open_quietly(path, threads)


def _input_size(session: InferenceSession, path: Path, size: tuple[int, int] | None) -> tuple[int, int] | None:
    entry = session.get_inputs()[0]
    shape = entry.shape
    if len(session.get_inputs()) != 1 or entry.type != "tensor(float)" or len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"{path}: expected one float32 input (1, 3, H, W), it has {entry.name} {entry.type} {shape}")
    if not all(isinstance(side, int) for side in shape[2:]):
        return size
    if size is not None and size != (shape[2], shape[3]):
        raise ValueError(f"{path}: its input is {shape[2]}x{shape[3]}, not {size[0]}x{size[1]}")
    return shape[2], shape[3]


Inputs = dict[tuple[int, int] | None, NDArray[np.float32]]


def _prepare_ahead(
    dataset: DepthDataset, count: int, protocol: Protocol, sizes: set[tuple[int, int] | None], workers: int
) -> Iterator[tuple[Prepared, Inputs]]:
    """The images in order, each with the networks' inputs by size; read and resized by other threads while networks run."""

    def prepare(index: int) -> tuple[Prepared, Inputs]:
        one, *others = sizes
        prepared = protocol.prepare(dataset[index], one)
        _ = prepared.truth  # laid out here, not by the thread that runs the networks
        natural = protocol.input_size(*prepared.depth.shape)
        return prepared, {one: prepared.input, **{size: prepared.resized(size or natural) for size in others}}

    if count:
        yield prepare(0)  # alone: the first image may make a data set prepare all of them
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[tuple[Prepared, Inputs]]] = deque()
    try:
        for i in range(1, count):
            waiting.append(pool.submit(prepare, i))
            if len(waiting) > _AHEAD_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _picture(prepared: Prepared, prediction: NDArray[np.float32], shape: tuple[int, ...] | None) -> Picture:
    """(3, h, w), (h, w), (h, w): every so-many-th pixel, all pictures alike in ``shape``, whatever the network's input."""
    height, width = prepared.depth.shape
    if shape is None:
        step = max(1, math.ceil(height / PICTURE_HEIGHT))
        shape = (height // step, width // step)
    rows = np.arange(shape[0])[:, None] * height // shape[0]
    columns = np.arange(shape[1]) * width // shape[1]
    rgb = (prepared.rgb[:, rows, columns] * 255).round().astype(np.uint8)
    restored = prepared.restore(prediction)
    return rgb, prepared.depth[rows, columns].astype(np.float16), restored[rows, columns].astype(np.float16)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
