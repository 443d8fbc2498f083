"""The model of a device: the time of every kernel from its class, its sizes and the device's facts.

    time of a kernel = launch cost + max(arithmetic, memory)
    arithmetic = MACs × waste / (peak × share of its class × factor of the GPU generation)
    memory     = bytes / (bandwidth × share of its class × factor of the GPU generation)

Shares of the peak belong to a class and a kind of arithmetic unit (ordinary cores, tensor cores), not to a board, so a
board with few published points borrows from all others through its peaks, bandwidth and clock. Depthwise and grouped
convolutions do not use tensor cores. A product with few output channels, terms or positions does not fill a tile: its
MACs count × (1 + c₀/channels)(1 + t₀/terms)(1 + p₀/positions). A long sum takes time however many cores there are:
``fill`` clock cycles a term. Parameters are a mapping from name to value; this module needs numpy alone.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.graphs.fusion import CONVOLUTIONS, Kernel
from depthbench.suites.names import lookup, unknown

PRECISIONS = ("fp32", "fp16", "int8")
PRODUCTS = (*CONVOLUTIONS, "matmul", "attention")
MOVERS = ("elementwise", "normalization", "softmax", "pooling", "resize", "layout", "other")
KINDS = (*PRODUCTS, *MOVERS)
_WITHOUT_TENSOR_CORES = ("depthwise", "grouped")
Parameters = Mapping[str, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PowerMode:
    """A power mode by its GPU and memory clocks in MHz."""

    name: str
    gpu_mhz: float
    emc_mhz: float


@dataclass(frozen=True)
class Board:
    """Facts of one board. Peaks in TFLOPS or TOPS (2 per MAC) of the GPU, dense; ``int8_tops`` None: no fast INT8.

    ``modes``: the power modes whose clocks are known, the fastest first; peaks and bandwidth are those of the fastest.
    ``tensor_cores``: whether FP16 and INT8 peaks are of units apart from the ordinary cores.
    """

    board: str
    name: str
    gpu: str
    gpu_mhz: float
    tensor_cores: bool
    fp32_tflops: float
    fp16_tflops: float
    int8_tops: float | None
    mem_bw_gbs: float
    tensorrt: str
    modes: tuple[PowerMode, ...]
    source: str

    def mode(self, name: str) -> PowerMode:
        """A power mode by its name; ``ValueError`` lists those whose clocks are known."""
        modes = {mode.name: mode for mode in self.modes}
        return lookup(f"power mode of {self.board}", name.lower(), modes)


def _read_boards() -> Mapping[str, Board]:
    text = resources.files("depthbench.suites.targets").joinpath("boards.csv").read_text(encoding="utf-8")
    boards = (
        Board(
            board=row["board"],
            name=row["name"],
            gpu=row["gpu"],
            gpu_mhz=float(row["gpu_max_mhz"]),
            tensor_cores=int(row["tensor_cores"]) > 0,
            fp32_tflops=float(row["fp32_tflops"]),
            fp16_tflops=float(row["fp16_tflops"]),
            int8_tops=float(row["int8_tops_dense_gpu"]) if row["int8_tops_dense_gpu"] else None,
            mem_bw_gbs=float(row["mem_bw_gbs"]),
            tensorrt=row["tensorrt"],
            modes=tuple(_read_mode(entry) for entry in row["modes"].split(";")),
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )
    return MappingProxyType({board.board: board for board in boards})


def _read_mode(entry: str) -> PowerMode:
    name, clocks = entry.split("=")
    gpu, memory = map(float, clocks.split("/"))
    return PowerMode(name, gpu, memory)


BOARDS: Mapping[str, Board] = _read_boards()
GENERATIONS = tuple(dict.fromkeys(board.gpu for board in BOARDS.values()))
CPU = Board("desktop-cpu", "this CPU", "CPU", 1000.0, False, 0.1, 0.1, None, 10.0, "", (), "nominal: only shares count")
"""Stands for this machine's CPU: the peaks are nominal, and the fitted shares are relative to them."""


def check(board: str, precision: str) -> Board:
    """The board, if it can run ``precision``; ``ValueError`` otherwise."""
    found = lookup("board", board, {**BOARDS, CPU.board: CPU})
    if precision not in PRECISIONS:
        raise ValueError(unknown("precision", precision, PRECISIONS))
    if found is CPU and precision != "fp32":
        raise ValueError(f"{board} is calibrated in fp32 alone: use fp32")
    if precision == "int8" and found.int8_tops is None:
        raise ValueError(f"{board} has no fast INT8: use fp16")
    return found


@dataclass(frozen=True)
class KernelTable:
    """The kernels of one network as arrays of equal length (n,); ``kind`` indexes :data:`KINDS`, ``count`` is how often.

    ``elements`` and ``int8_elements``: numbers moved; ``quantized``: multiplied in INT8; ``implicit``: the file has no
    quantize/dequantize pairs, so that INT8 means every product.
    """

    kind: NDArray[np.int64]
    macs: Floats
    elements: Floats
    int8_elements: Floats
    channels: Floats
    terms: Floats
    positions: Floats
    count: Floats
    quantized: NDArray[np.bool_]
    implicit: bool

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> KernelTable:
        """The table of a network's fused kernels, one row each."""
        numbers = np.array(
            [
                (k.macs, k.elements, k.int8_elements, max(k.channels, 1), max(k.terms, 1), max(k.positions, 1), 1)
                for k in kernels
            ],
            dtype=np.float64,
        ).reshape(-1, 7)  # (n, 7)
        quantized = np.array([k.quantized for k in kernels], dtype=np.bool_)
        kinds = np.array([KINDS.index(k.kind) for k in kernels], dtype=np.int64)
        macs, elements, int8_elements, channels, terms, positions, count = numbers.T
        implicit = not quantized.any()
        return cls(
            kinds,
            macs,
            elements,
            int8_elements,
            channels,
            terms,
            positions,
            count,
            quantized=quantized,
            implicit=implicit,
        )


@dataclass(frozen=True)
class Workload:
    """Kernels of one or more (network, board, precision) runs laid end to end, with the device's facts at each, (n,).

    ``start``: the first kernel of each run, (runs,).
    """

    start: NDArray[np.int64]
    kind: NDArray[np.int64]
    count: Floats
    macs: Floats
    channels: Floats
    terms: Floats
    positions: Floats
    bytes: Floats
    generation: NDArray[np.int64]
    cores: Floats
    tensor: Floats
    half: NDArray[np.bool_]
    int8: NDArray[np.bool_]
    bandwidth: Floats
    clock: Floats
    slowdown: Floats


def workload(runs: Sequence[tuple[KernelTable, Board, str, PowerMode | None]]) -> Workload:
    """The kernels of runs (table, board, precision, power mode or None for the fastest) laid end to end."""
    columns = [_columns(*run) for run in runs]
    start = np.cumsum([0, *(len(run[0].kind) for run in runs)])[:-1]
    return Workload(start, **{name: np.concatenate([column[name] for column in columns]) for name in columns[0]})


def _columns(
    table: KernelTable, board: Board, precision: str, mode: PowerMode | None
) -> dict[str, NDArray[np.generic]]:
    kind, n = table.kind, len(table.kind)
    product = kind < len(PRODUCTS)
    in_int8 = product & (table.quantized | table.implicit) & (precision == "int8")
    size = 4 if precision == "fp32" else 2
    if precision == "int8":
        moved = table.elements * np.where(in_int8 & table.implicit, 1, size) + table.int8_elements
    else:
        moved = (table.elements + table.int8_elements) * size
    clock = mode.gpu_mhz / board.modes[0].gpu_mhz if mode else 1.0
    memory = mode.emc_mhz / board.modes[0].emc_mhz if mode else 1.0
    tensor = board.tensor_cores and precision != "fp32"
    without = np.isin(kind, [KINDS.index(name) for name in _WITHOUT_TENSOR_CORES])
    tensor_peak = np.where(in_int8, board.int8_tops or 0.0, board.fp16_tflops) if tensor else np.zeros(n)
    generation = (*GENERATIONS, CPU.gpu).index(board.gpu)
    return {
        "kind": kind,
        "count": table.count,
        "macs": table.macs,
        "channels": table.channels,
        "terms": table.terms,
        "positions": table.positions,
        "bytes": moved,
        "generation": np.full(n, generation),
        "cores": np.full(n, board.fp32_tflops * 1e12 / 2 * clock),
        "tensor": np.where(without, 0.0, tensor_peak * 1e12 / 2 * clock),
        "half": np.full(n, precision != "fp32"),
        "int8": in_int8,
        "bandwidth": np.full(n, board.mem_bw_gbs * 1e9 * memory),
        "clock": np.full(n, board.gpu_mhz * 1e6 * clock),
        "slowdown": np.full(n, 1 / clock),
    }


def kernel_times(p: Parameters, w: Workload) -> tuple[Floats, Floats, Floats]:
    """Seconds of every kernel (n,), once each: launch, arithmetic, memory."""
    product = w.kind < len(PRODUCTS)
    blank = [1.0] * len(MOVERS)
    ordinary = np.array([*(p[f"cores.{kind}"] for kind in PRODUCTS), *blank])[w.kind]
    tensor = np.array([*(p.get(f"tensor.{kind}", 1.0) for kind in PRODUCTS), *blank])[w.kind]
    generations = (*GENERATIONS, CPU.gpu)
    compute, bandwidth, launch = (
        np.array([p.get(f"{name}.{generation}", 1.0) for generation in generations])[w.generation]
        for name in ("compute", "bandwidth", "launch_us")
    )
    thin = product & (w.positions > 1) & (w.terms > 1)
    for kind in _WITHOUT_TENSOR_CORES:
        thin &= w.kind != KINDS.index(kind)
    on_tensor = w.tensor > 0
    waste = np.ones(len(w.kind))
    for name, size in (("channels", w.channels), ("terms", w.terms), ("positions", w.positions)):
        least = np.where(on_tensor, p.get(f"thin.tensor.{name}", 0.0), p[f"thin.cores.{name}"])
        waste = waste * (1 + least / size)
    rate = np.where(
        on_tensor,
        w.tensor * tensor * np.where(w.int8, p.get("int8", 1.0), 1.0),
        w.cores * ordinary * np.where(w.half, p.get("half", 1.0), 1.0),
    )
    arithmetic = np.where(product, w.macs * np.where(thin, waste, 1.0) / (rate * compute), 0.0)
    shares = [p["memory.depthwise"] if kind in _WITHOUT_TENSOR_CORES else p["memory.product"] for kind in PRODUCTS]
    moving = np.array([*shares, *(p[f"memory.{kind}"] for kind in MOVERS)])[w.kind]
    memory = w.bytes / (w.bandwidth * moving * bandwidth)
    fill = np.where(product, p.get("fill", 0.0) * w.terms / w.clock, 0.0)
    return launch * 1e-6 * w.slowdown + fill, arithmetic, memory


def run_times(p: Parameters, w: Workload) -> Floats:
    """Seconds of every run (runs,), of the network alone."""
    launch, arithmetic, memory = kernel_times(p, w)
    return np.add.reduceat(w.count * (launch + np.maximum(arithmetic, memory)), w.start)
