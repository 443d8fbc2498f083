"""Latency on a Jetson board that is not here: a roofline by operator class plus a launch cost per kernel.

    time of a kernel = launch cost + max(MACs / (peak × efficiency of its class), bytes / (bandwidth × efficiency))

with the kernels of :mod:`depthbench.suites.fusion`, batch 1 and the board's highest clocks. A prediction is never a
measurement: it carries its interval and is shown as predicted. Facts of the boards are in ``boards.csv``.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from depthbench.suites.fusion import CONVOLUTIONS, Kernel, fuse
from depthbench.suites.graph import load_graph
from depthbench.suites.names import lookup, unknown
from depthbench.suites.results import Latency

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Board:
    """Facts of one board. Peaks in TFLOPS or TOPS (2 per MAC) of the GPU, dense; ``int8_tops`` None: no fast INT8."""

    board: str
    name: str
    gpu: str
    fp32_tflops: float
    fp16_tflops: float
    int8_tops: float | None
    mem_bw_gbs: float
    tensorrt: str
    source: str

    def peak_macs(self, precision: str) -> float:
        """Multiply-accumulates per second at the highest clock."""
        peak = {"fp32": self.fp32_tflops, "fp16": self.fp16_tflops, "int8": self.int8_tops}[precision]
        assert peak is not None
        return peak * 1e12 / 2


@dataclass(frozen=True)
class Efficiency:
    """What a GPU generation reaches: shares of the arithmetic peak by class, shares of the bandwidth, launch cost.

    ``stream`` is for kernels that read in order, ``layout`` for those that rearrange; ``fp32`` multiplies the shares of
    the peak in FP32. Winograd convolutions make ``dense`` exceed 1 where it is counted in direct MACs.
    """

    dense: float
    pointwise: float
    depthwise: float
    grouped: float
    matmul: float
    stream: float
    layout: float
    launch_us: float
    fp32: float


# How these numbers came about. Published batch-1 TensorRT latencies of 23 networks on 8 Jetson boards, 70 rows: AlexNet,
# SqueezeNet, ResNet, DenseNet, VGG, Inception, MNASNet, MobileNetV2 (NVIDIA-AI-IOT/torch2trt benchmarks, as 1000 / its
# throughput column; TensorRT 3 and TF-TRT on the TX2), ResNet-50 in INT8 (MLPerf), ViT (Orin Nano), EfficientViT-B1 and
# -B3 (Nano, AGX Orin), EfficientFormer-L1 and GuideDepth-S (Nano). All 40 numbers were fitted at once in the logarithm:
# Huber loss (0.3) of ln(predicted / published) over 0.15, rows weighted by 1/sqrt(rows of the same family and board),
# × 2 for hybrid and depth networks, × 0.4 for TensorRT 3 and TF-TRT, × 0.5 for INT8; plus Gaussian priors around
# hand-set values (dense .75/.5/.4/.45 of peak, pointwise .6/.45/.25/.25, depthwise .15/.12/.02/.02, grouped
# .15/.12/.03/.03, matmul .4/.3/.2/.25, stream .65/.6/.65/.65, layout .4, launch 30/25/15/8 µs, fp32 1.3/1.3/1.5/1.5;
# widths .5 for shares, .25 stream, .5 layout, .4 launch, .25 fp32), and ties of width .25 (Maxwell to Pascal) and .3
# (Volta to Ampere). L-BFGS-B from the priors. Rounded to two or three digits.
EFFICIENCY: Mapping[str, Efficiency] = MappingProxyType(
    {
        "Maxwell": Efficiency(1.29, 0.53, 0.133, 0.141, 0.27, 0.48, 0.44, 43.0, 0.77),
        "Pascal": Efficiency(0.80, 0.45, 0.109, 0.114, 0.22, 0.52, 0.44, 26.0, 1.14),
        "Volta": Efficiency(0.67, 0.37, 0.0243, 0.0298, 0.43, 0.73, 0.41, 19.0, 1.5),
        "Ampere": Efficiency(0.68, 0.35, 0.0230, 0.0297, 0.70, 0.84, 0.51, 4.6, 1.5),
    }
)
# Products with few outputs or few terms do not fill a tile: MACs count × (1 + channels0 / channels)(1 + terms0 / terms).
# Fitted with the above, priors (12, 64) and, in FP32, (4, 16), width .7.
THIN = MappingProxyType({"fp32": (3.1, 136.0), "fp16": (26.6, 77.0), "int8": (26.6, 77.0)})
# published / predicted at 10 % and 90 % of the 22 rows of hybrid and depth networks (EfficientViT, EfficientFormer, ViT,
# GuideDepth), each family predicted by a fit that left all of its rows out; rows weighted by 1 / rows of family and
# board. Unweighted, 86 % of those rows and 90 % of all 70 lie inside. Median absolute error of the rows left out 27 %
# (all 70: 28 %), with all rows in the fit 10 %. Known bias: on the Nano in FP16 the 9 such rows were 1.4 to 1.9 times
# slower than predicted when left out, and 7 of them lie inside. Few rows stand behind INT8 (4, ResNet-50 alone) and
# behind the Orin Nano (4, ViT alone); none behind the Xavier NX in FP16.
INTERVAL = (0.45, 1.52)
INTERVAL_NOTE = "predicted; 80 % interval from published latencies of hybrid and depth networks left out of the fit"


@dataclass(frozen=True)
class Layer:
    """One kernel of a prediction: its first node, fused operators, time and what limits it."""

    name: str
    kind: str
    ops: str
    latency_ms: float
    bound: str


@dataclass(frozen=True)
class Prediction:
    """A predicted latency: ``interval_ms`` holds about 80 %; shares of the time by operator class add up to 1.

    ``bound``: what takes most of the time, ``"arithmetic"``, ``"memory"`` or ``"launch"``. ``top_layers``: the ten
    slowest kernels.
    """

    board: str
    precision: str
    latency_ms: float
    interval_ms: tuple[float, float]
    bound: str
    share_by_class: Mapping[str, float]
    share_by_bound: Mapping[str, float]
    kernels: int
    top_layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    kind: str = field(default="predicted")

    def to_json(self) -> dict[str, Any]:
        """The prediction as JSON-ready values."""
        return asdict(self) | {"interval_ms": list(self.interval_ms)}

    def latency(self) -> Latency:
        """The prediction as the latency of a record."""
        details = {
            "share_by_class": dict(self.share_by_class),
            "top_layers": [asdict(layer) for layer in self.top_layers],
        }
        return Latency(
            kind="predicted",
            latency_ms=self.latency_ms,
            interval_ms=self.interval_ms,
            interval_note=INTERVAL_NOTE,
            bound=self.bound,
            details=details | {"kernels": self.kernels, "notes": list(self.notes)},
        )


def _read_boards() -> Mapping[str, Board]:
    text = resources.files("depthbench.suites.targets").joinpath("boards.csv").read_text(encoding="utf-8")
    boards = (
        Board(
            board=row["board"],
            name=row["name"],
            gpu=row["gpu"],
            fp32_tflops=float(row["fp32_tflops"]),
            fp16_tflops=float(row["fp16_tflops"]),
            int8_tops=float(row["int8_tops_dense_gpu"]) if row["int8_tops_dense_gpu"] else None,
            mem_bw_gbs=float(row["mem_bw_gbs"]),
            tensorrt=row["tensorrt"],
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )
    return MappingProxyType({board.board: board for board in boards})


BOARDS: Mapping[str, Board] = _read_boards()


def check(board: str, precision: str) -> Board:
    """The board, if it can run ``precision``; ``ValueError`` otherwise."""
    found = lookup("board", board, BOARDS)
    if precision not in PRECISIONS:
        raise ValueError(unknown("precision", precision, PRECISIONS))
    if precision == "int8" and found.int8_tops is None:
        raise ValueError(f"{board} has no fast INT8: use fp16")
    return found


def predict(onnx_path: Path, board: str, precision: str = "fp16") -> Prediction:
    """The latency of an ONNX file on a board, batch 1, without copies to and from the GPU.

    ``precision`` decides the arithmetic: quantize/dequantize pairs count only for ``"int8"``, where all else runs in
    FP16; in a file without any, every convolution and matrix product is taken to be INT8.

    Raises:
        ValueError: an unknown board or precision, INT8 on a board without it, or a file that cannot be read.
    """
    target = check(board, precision)
    graph = load_graph(onnx_path)
    kernels = fuse(graph)
    notes = []
    implicit = precision == "int8" and graph.quantized_nodes == 0
    if implicit:
        notes.append("no quantize/dequantize nodes in the file: every convolution and matrix product is taken as INT8")
    if graph.uncounted():
        notes.append(f"not counted: {', '.join(graph.uncounted())}")
    if other := sorted({op for kernel in kernels if kernel.kind == "other" for op in kernel.ops}):
        notes.append(f"taken as pure data movement: {', '.join(other)}")

    seconds: defaultdict[str, float] = defaultdict(float)
    bounds: defaultdict[str, float] = defaultdict(float)
    layers = []
    for kernel in kernels:
        launch, arithmetic, memory = _times(kernel, target, precision, implicit)
        bound = "arithmetic" if arithmetic > memory else "memory"
        seconds[kernel.kind] += launch + max(arithmetic, memory)
        bounds["launch"] += launch
        bounds[bound] += max(arithmetic, memory)
        limit = "launch" if launch > max(arithmetic, memory) else bound
        taken = (launch + max(arithmetic, memory)) * 1e3
        layers.append(Layer(kernel.name, kernel.kind, "+".join(kernel.ops), taken, limit))
    total = sum(seconds.values())
    shares = {kind: value / total for kind, value in sorted(seconds.items(), key=lambda entry: -entry[1])}
    by_bound = {name: value / total for name, value in sorted(bounds.items(), key=lambda entry: -entry[1])}
    return Prediction(
        board=board,
        precision=precision,
        latency_ms=total * 1e3,
        interval_ms=(total * 1e3 * INTERVAL[0], total * 1e3 * INTERVAL[1]),
        bound=next(iter(by_bound)),
        share_by_class=shares,
        share_by_bound=by_bound,
        kernels=len(kernels),
        top_layers=tuple(sorted(layers, key=lambda layer: -layer.latency_ms)[:10]),
        notes=tuple(notes),
    )


def _times(kernel: Kernel, board: Board, precision: str, implicit: bool) -> tuple[float, float, float]:
    """Seconds of a kernel: launch, arithmetic, memory."""
    reached = EFFICIENCY[board.gpu]
    multiplies = kernel.kind in (*CONVOLUTIONS, "matmul")
    in_int8 = precision == "int8" and multiplies and (kernel.quantized or implicit)
    float_bytes = 4 if precision == "fp32" else 2
    if precision == "int8":
        traffic = kernel.elements * (1 if in_int8 and implicit else float_bytes) + kernel.int8_elements
    else:
        traffic = (kernel.elements + kernel.int8_elements) * float_bytes
    memory = traffic / (
        board.mem_bw_gbs * 1e9 * (reached.layout if kernel.kind in ("layout", "other") else reached.stream)
    )
    arithmetic = 0.0
    if multiplies:
        used = "int8" if in_int8 else "fp32" if precision == "fp32" else "fp16"
        share = getattr(reached, kernel.kind) * (reached.fp32 if used == "fp32" else 1)
        channels0, terms0 = THIN[used]
        thin = kernel.kind in ("dense", "pointwise", "matmul")
        waste = (1 + channels0 / kernel.channels) * (1 + terms0 / kernel.terms) if thin else 1
        arithmetic = kernel.macs * waste / (board.peak_macs(used) * share)
    return reached.launch_us * 1e-6, arithmetic, memory
