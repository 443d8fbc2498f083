"""The fit of the device model to latencies: robust, all boards at once, around priors; errors with networks left out.

Residuals are ln(predicted / published) over ``SPREAD`` under a Huber loss, each weighted by 1/√(rows of the same family,
board and precision), hybrid and depth networks twice, old or foreign runtimes less; every parameter has a log-normal
prior (value, width) that stands for the GPU's architecture where no point speaks. ``scipy.optimize.least_squares``.
Nuisance factors take up what is not the board's: the runtime, and clocks that were not said to be locked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from depthbench.suites.targets.predict_model import (
    BOARDS,
    CPU,
    Board,
    Floats,
    KernelTable,
    Parameters,
    run_times,
    workload,
)
from depthbench.suites.targets.predict_points import Point

SPREAD = 0.25
HUBER = 1.0
RUNTIME_WEIGHT = {"TensorRT 3": 0.5, "TF-TRT": 0.5, "TVM": 0.6, "tkDNN": 0.2}
Priors = Mapping[str, tuple[float, float]]
Tables = Mapping[str, KernelTable]

_SHARED: Priors = {
    "cores.dense": (0.9, 0.3),  # Winograd does better than the peak counted in direct MACs, im2col worse
    "cores.pointwise": (0.7, 0.25),
    "cores.depthwise": (0.06, 0.7),
    "cores.grouped": (0.05, 0.7),
    "cores.matmul": (0.5, 0.4),
    "cores.attention": (0.15, 0.7),
    "memory.product": (0.7, 0.3),
    "memory.depthwise": (0.6, 0.3),
    "memory.elementwise": (0.7, 0.3),
    "memory.normalization": (0.5, 0.3),
    "memory.softmax": (0.5, 0.3),
    "memory.pooling": (0.5, 0.3),
    "memory.resize": (0.5, 0.3),
    "memory.layout": (0.5, 0.3),
    "memory.other": (0.4, 0.3),
    "thin.cores.channels": (8, 0.5),
    "thin.cores.terms": (24, 0.4),
    "thin.cores.positions": (16, 0.5),
    "fill": (8, 0.7),
}
BOARD_PRIORS: Priors = {
    **_SHARED,
    "tensor.dense": (0.7, 0.25),
    "tensor.pointwise": (0.45, 0.25),
    "tensor.matmul": (0.7, 0.25),
    "tensor.attention": (0.15, 0.7),
    "thin.tensor.channels": (16, 0.5),
    "thin.tensor.terms": (32, 0.4),
    "thin.tensor.positions": (32, 0.5),
    "launch_us.Maxwell": (20, 0.3),
    "launch_us.Pascal": (18, 0.4),
    "launch_us.Volta": (18, 0.3),
    "launch_us.Ampere": (3, 0.4),
    **{f"compute.{gpu}": (1, 0.15) for gpu in ("Maxwell", "Pascal", "Volta", "Ampere")},
    **{f"bandwidth.{gpu}": (1, 0.15) for gpu in ("Maxwell", "Pascal", "Volta", "Ampere")},
    **{f"board.{board}": (1, 0.05) for board in BOARDS},
    "half": (1.5, 0.15),  # FP16 over FP32 without tensor cores: 1.25 to 1.75 was measured on the Nano
    "int8": (0.8, 0.3),
    "runtime.TensorRT 3": (1.2, 0.2),
    "runtime.TF-TRT": (1.1, 0.2),
    "runtime.TVM": (1, 0.2),
    "runtime.MLPerf": (0.9, 0.15),
    "runtime.tkDNN": (1.1, 0.3),
    "unlocked.Maxwell": (1.25, 0.25),
    "unlocked.Pascal": (1.25, 0.25),
    "unlocked.Volta": (1, 0.1),
    "unlocked.Ampere": (1, 0.1),
    "host_us": (100, 0.7),
}
CPU_PRIORS: Priors = {name: (value, 1.0) for name, (value, _) in _SHARED.items() if name != "fill"} | {
    "launch_us.CPU": (8, 1.0)
}


def predicted_ms(p: Parameters, points: Sequence[Point], tables: Tables, *, clocks: str | None = None) -> Floats:
    """What the model says of points (n,), in ms, with the nuisance terms of each; ``clocks`` replaces the points' own."""
    load = workload([(tables[point.network], device(point.board), point.precision, None) for point in points])
    factors = np.array([factor(p, point.board, clocks or point.clocks, point.runtime) for point in points])
    extra = np.array([host_ms(p, point.board) if point.runtime == "torch2trt" else 0.0 for point in points])
    milliseconds: Floats = run_times(p, load) * 1e3 * factors + extra
    return milliseconds


def device(name: str) -> Board:
    """A board, or this CPU, by its name."""
    return CPU if name == CPU.board else BOARDS[name]


def factor(p: Parameters, board: str, clocks: str, runtime: str = "TensorRT") -> float:
    """By how much a run is slower than the kernels alone: board, runtime, and clocks locked, unstated or unknown.

    ``unknown`` lies half way, in the logarithm, between locked and what was published without stating them.
    """
    if board == CPU.board:
        return 1.0
    slow = p[f"unlocked.{BOARDS[board].gpu}"]
    power = {"locked": 0.0, "unknown": 0.5, "unstated": 1.0}[clocks]
    return float(p[f"board.{board}"] * p.get(f"runtime.{runtime}", 1.0) * slow**power)


def host_ms(p: Parameters, board: str) -> float:
    """The cost of one synchronous call from Python (torch2trt), in ms; it goes with the clock."""
    return float(p["host_us"]) / BOARDS[board].gpu_mhz


def fit(
    points: Sequence[Point],
    tables: Tables,
    priors: Priors,
    start: Parameters | None = None,
    *,
    spread: float = SPREAD,
) -> Parameters:
    """The parameters that fit latencies best; ``start`` is where the search begins (the priors if left out).

    ``spread``: the scatter of ln(latency) that a residual is measured by, against the widths of the priors.
    """
    from scipy.optimize import least_squares

    names = list(priors)
    values, widths = (np.array([priors[name][i] for name in names]) for i in (0, 1))
    load = workload([(tables[point.network], device(point.board), point.precision, None) for point in points])
    published = np.array([point.latency_ms for point in points])
    same = Counter((point.family, point.board, point.precision) for point in points)
    weights = np.array(
        [
            RUNTIME_WEIGHT.get(point.runtime, 1.0)
            * (2 if point.group == "hybrid" else 1)
            / same[point.family, point.board, point.precision] ** 0.5
            for point in points
        ]
    )

    def parameters(x: Floats) -> dict[str, float]:
        return dict(zip(names, (values * np.exp(widths * x)).tolist(), strict=True))

    def residuals(x: Floats) -> Floats:
        p = parameters(x)
        factors = np.array([factor(p, point.board, point.clocks, point.runtime) for point in points])
        extra = np.array([host_ms(p, point.board) if point.runtime == "torch2trt" else 0.0 for point in points])
        error = np.log((run_times(p, load) * 1e3 * factors + extra) / published) / spread
        size = np.abs(error)
        huber = np.where(size < HUBER, size, np.sqrt(np.maximum(2 * HUBER * size - HUBER**2, 0)))
        return np.concatenate([np.sqrt(weights) * huber * np.sign(error), x])

    first = np.zeros(len(names))
    if start is not None:
        first = np.log(np.array([start[name] for name in names]) / values) / widths
    return parameters(least_squares(residuals, first, max_nfev=40).x)


def leave_out(
    points: Sequence[Point],
    tables: Tables,
    priors: Priors,
    key: Callable[[Point], str],
    *,
    start: Parameters | None = None,
    spread: float = SPREAD,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Parameters]:
    """A fit without the points of each value of ``key``, by that value."""
    values = sorted({key(point) for point in points})
    fits = {}
    for i, value in enumerate(values):
        kept = [point for point in points if key(point) != value]
        fits[value] = fit(kept, tables, priors, start, spread=spread)
        if progress is not None:
            progress((i + 1) / len(values))
    return fits
