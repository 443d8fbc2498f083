"""Accuracy of a deployed file: an ONNX network run by ONNX Runtime over a data set, scored under a protocol."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.data import DepthDataset
from depthbench.suites.metrics import METRICS
from depthbench.suites.names import lookup
from depthbench.suites.protocols import PROTOCOLS, Prepared, Protocol

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PICTURE_HEIGHT = 240
_AHEAD = 4

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class Evaluation:
    """Per-image metrics of one file on one data set, and a few pictures.

    ``metrics``: name: one value per image of ``images``, nan for an image without valid ground truth. ``rgb``: (S, 3, h, w)
    uint8, ``depth`` and ``prediction``: (S, h, w) float16 in metres, of S images spread over the data set, at most 240 high.
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

    @property
    def n(self) -> int:
        """Number of images that were scored."""
        return sum(not math.isnan(value) for value in self.metrics["rmse_m"])

    def summary(self) -> dict[str, float]:
        """``n`` and the mean of each metric over the images that were scored."""
        return {"n": self.n, **{name: float(np.nanmean(values)) for name, values in self.metrics.items()}}

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON-ready values; nan becomes None."""
        metrics = {name: [None if math.isnan(v) else v for v in values] for name, values in self.metrics.items()}
        about = {
            key: getattr(self, key) for key in ("dataset", "split", "dataset_digest", "protocol", "size", "images")
        }
        return {"n": self.n, **about, "metrics": metrics}


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
    """Run an ONNX file over a data set and score every image.

    The file takes float32 rgb (1, 3, H, W) in [0, 1] and gives float32 depth in metres. Its input size is used; ``size`` is for
    a file that leaves it open (then the protocol's), and must agree with one that does not. ``samples``: number of pictures
    kept. ``threads``: of ONNX Runtime. Raises ``ValueError`` for a file that cannot be loaded or run, an unknown protocol,
    or when no image has valid ground truth.
    """
    rules = lookup("protocol", protocol, PROTOCOLS)
    session = open_session(path, threads)
    size = _input_size(session, path, size)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    pictured = set(np.linspace(0, count - 1, min(samples, count)).round().astype(int).tolist())
    metrics: dict[str, list[float]] = {name: [] for name in METRICS}
    pictures: list[tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]] = []
    for i, prepared in enumerate(_prepare_ahead(dataset, count, rules, size)):
        prediction = _run(session, path, prepared.input)
        try:
            scores = prepared.score(prediction)
        except ValueError as error:
            raise ValueError(f"{path}: {dataset.label(i)}: {error}") from None
        for name in METRICS:
            metrics[name].append(scores[name])
        if i in pictured:
            shape = pictures[0][1].shape if pictures else None
            pictures.append(_picture(prepared, prediction, shape))
        if progress is not None:
            progress(i + 1, count)
    if all(math.isnan(value) for value in metrics["rmse_m"]):
        raise ValueError(f"{dataset.name} {dataset.split}: no image has valid ground truth under protocol {protocol}")
    return Evaluation(
        dataset=dataset.name,
        split=dataset.split,
        dataset_digest=dataset.digest,
        protocol=protocol,
        size=size,
        images=[dataset.label(i) for i in range(count)],
        metrics=metrics,
        rgb=np.stack([rgb for rgb, _, _ in pictures]),
        depth=np.stack([depth for _, depth, _ in pictures]),
        prediction=np.stack([prediction for _, _, prediction in pictures]),
    )


def open_session(path: Path, threads: int = 1) -> InferenceSession:
    """An ONNX Runtime session on the CPU; ``ValueError`` names a file that is missing or cannot be loaded."""
    import onnxruntime as ort

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this one
        raise ValueError(f"{path}: ONNX Runtime cannot load it ({_one_line(error)})") from None


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


def _run(session: InferenceSession, path: Path, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        output: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: rgb})[0]
    except Exception as error:  # as in open_session
        raise ValueError(f"{path}: ONNX Runtime cannot run it ({_one_line(error)})") from None
    if output.size != output.shape[-1] * output.shape[-2]:
        raise ValueError(f"{path}: expected one depth map, its first output is {output.shape}")
    return output


def _prepare_ahead(
    dataset: DepthDataset, count: int, protocol: Protocol, size: tuple[int, int] | None
) -> Iterator[Prepared]:
    """The images in order, read and resized by a second thread while the network runs."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Prepared]] = deque()
        for i in range(count):
            waiting.append(pool.submit(lambda index: protocol.prepare(dataset[index], size), i))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _picture(
    prepared: Prepared, prediction: NDArray[np.float32], shape: tuple[int, ...] | None
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
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
