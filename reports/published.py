"""Published latencies of networks on Jetson boards, shown beside our own as hollow marks, each with its source.

An error is placed on a front only where it is of the same kind of data; elsewhere the latency alone is marked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published point. ``rmse_m`` is None where it was not published; ``data`` the data set it is of."""

    name: str
    board: str
    latency_ms: float
    how: str
    rmse_m: float | None
    data: str
    source: str


POINTS = (
    Published(
        "FastDepth pruned",
        "jetson-tx2",
        5.6,
        "FP32 TVM, MAX-N",
        0.604,
        "nyu",
        "Wofk et al. 2019, arXiv 1903.03273",
    ),
    Published(
        "TST, fastest", "jetson-tx2", 1000 / 142.6, "142.6 FPS", None, "nyu", "Lee et al. 2023, arXiv 2306.05682"
    ),
    Published("TST, fastest", "jetson-nano", 1000 / 63.4, "63.4 FPS", None, "nyu", "Lee et al. 2023, arXiv 2306.05682"),
    Published(
        "GuideDepth-S",
        "jetson-nano",
        29.7,
        "FP16 TensorRT, 240×320",
        None,
        "nyu",
        "Rudolph et al. 2022, arXiv 2203.04206",
    ),
)


def described(point: Published) -> str:
    """A published point in one line, with its source in full."""
    error = f"RMSE {point.rmse_m} m on NYU Depth v2" if point.rmse_m else "its error was not published"
    return f"{point.name}, {point.latency_ms:.3g} ms ({point.how}); {error}. {point.source}"


def published_on(board: str) -> tuple[Published, ...]:
    """The published points of a board, fastest first."""
    return tuple(sorted((point for point in POINTS if point.board == board), key=lambda point: point.latency_ms))
