"""Published latencies (``points.csv``) and the kernels of the networks they were taken on (``kernels.csv``).

``points.csv``: one row a latency, batch 1, with its source. ``clocks``: ``locked`` (the vendor's own benchmarks, or a
stated mode with locked clocks) or ``unstated``; ``role``: ``fit``, or ``check`` for rows that the fit never sees;
``group``: classifier, hybrid (depth networks and networks with attention and convolutions) or detector.
``kernels.csv``: a row per distinct kernel of :func:`depthbench.suites.graphs.fusion.fuse`, with its count.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np

from depthbench.suites.targets.predict_model import KINDS, KernelTable


@dataclass(frozen=True)
class Point:
    """One measured or published latency in ms, batch 1; see the module for ``group``, ``clocks`` and ``role``."""

    network: str
    family: str
    group: str
    board: str
    precision: str
    runtime: str
    clocks: str
    latency_ms: float
    role: str
    source: str

    @property
    def name(self) -> str:
        """The network without its input size."""
        return re.sub(r"_\d+(x\d+)?$", "", self.network)


def packaged(name: str) -> str:
    """The text of a file that ships beside this module."""
    return resources.files("depthbench.suites.targets").joinpath(name).read_text(encoding="utf-8")


def published_points() -> list[Point]:
    """The published latencies that ship with the package."""
    return [
        Point(
            **{
                field: float(row[field]) if field == "latency_ms" else row[field]  # type: ignore[arg-type]
                for field in Point.__dataclass_fields__
            }
        )
        for row in csv.DictReader(packaged("points.csv").splitlines())
    ]


def published_tables() -> Mapping[str, KernelTable]:
    """The kernels of every network among the published points, by its name."""
    rows: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(packaged("kernels.csv").splitlines()):
        rows[row["network"]].append(row)
    return {network: _table(found) for network, found in rows.items()}


def _table(rows: Iterable[Mapping[str, str]]) -> KernelTable:
    rows = list(rows)

    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([float(row[name]) for row in rows])

    return KernelTable(
        kind=np.array([KINDS.index(row["kind"]) for row in rows], dtype=np.int64),
        macs=column("macs"),
        elements=column("elements"),
        int8_elements=np.zeros(len(rows)),
        channels=np.maximum(column("channels"), 1),
        terms=np.maximum(column("terms"), 1),
        positions=np.maximum(column("positions"), 1),
        count=column("count"),
        quantized=np.zeros(len(rows), dtype=np.bool_),
        implicit=True,
    )
