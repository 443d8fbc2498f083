"""Kernels of a board for :mod:`depthbench.suites.explain`: predicted from the fused graph, or read from trtexec's files.

trtexec writes a layer profile with ``--dumpProfile --separateProfileRun --exportProfile=FILE`` and the engine's layers with
``--profilingVerbosity=detailed --exportLayerInfo=FILE``. Without the second file only times and names are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from depthbench.suites.explain import Explanation, Side, explained
from depthbench.suites.explaining.kernels import Kernel
from depthbench.suites.graphs.fusion import Kernel as Fused
from depthbench.suites.graphs.fusion import fuse
from depthbench.suites.graphs.graph import load_graph
from depthbench.suites.targets.predict_calibrate import read_calibration
from depthbench.suites.targets.predict_fit import factor
from depthbench.suites.targets.predict_model import Board, KernelTable, check, kernel_times, workload

PREDICTED = "predicted from the fused graph, not measured: conversions that TensorRT inserts itself are not in it"


def predicted_pair(
    files: tuple[Path, Path], names: tuple[str, str], board: str, precisions: tuple[str, str] | None = None
) -> Explanation:
    """The explanation of two files on a board that is not here, by the predictor's kernels; see :func:`.explain.explain`."""
    chosen = precisions or _precisions(files, board)
    sides = [
        Side(name, "predicted", tuple(predicted_kernels(path, board, precision)))
        for path, name, precision in zip(files, names, chosen, strict=True)
    ]
    found = check(board, "fp16")
    notes = [PREDICTED, f"{names[0]} in {chosen[0]}, {names[1]} in {chosen[1]}"]
    return explained(board, sides, _gains(found, chosen[0]), 1, notes=notes)


def _precisions(files: tuple[Path, Path], board: str) -> tuple[str, str]:
    int8 = check(board, "fp16").int8_tops is not None
    first, second = ("int8" if int8 and load_graph(path).quantized_nodes else "fp16" for path in files)
    return first, second


def _gains(board: Board, before: str) -> dict[str, float]:
    """Peak of a precision over that of the parent's."""
    peaks = {"fp32": board.fp32_tflops, "fp16": board.fp16_tflops, "int8": board.int8_tops or board.fp16_tflops}
    return {name: max(1.0, peak / peaks[before]) for name, peak in peaks.items()}


def predicted_kernels(path: Path, board: str, precision: str) -> list[Kernel]:
    """The kernels that a board would run, their times predicted; launch, arithmetic and memory decide the bound."""
    target = check(board, precision)
    fused = fuse(load_graph(path))
    if not fused:
        raise ValueError(f"{path}: nothing in it takes time (no operator depends on its input)")
    parameters = read_calibration().parameters
    load = workload([(KernelTable.of(fused), target, precision, None)])
    slower = factor(parameters, board, "unknown")
    launch, arithmetic, memory = (times * slower * 1e3 for times in kernel_times(parameters, load))
    kernels = []
    for i, kernel in enumerate(fused):
        work = max(arithmetic[i], memory[i])
        bound = "launch" if launch[i] > work else "arithmetic" if arithmetic[i] > memory[i] else "memory"
        ms = float(launch[i] + work)
        kernels.append(_from_fused(kernel, ms, int(load.bytes[i]), "int8" if load.int8[i] else precision, bound))
    return kernels


def _from_fused(kernel: Fused, ms: float, traffic: int, precision: str, bound: str) -> Kernel:
    kind = {"softmax": "normalization"}.get(kernel.kind, kernel.kind)
    return Kernel(
        name=kernel.name,
        op=kernel.ops[0],
        kind=kind,
        ms=ms,
        macs=kernel.macs,
        bytes=traffic,
        precision="fp16" if precision == "int8" and not kernel.macs else precision,
        channels=kernel.channels,
        executed=kernel.channels,
        useful_macs=kernel.macs,
        positions=kernel.positions,
        ideal_ms=ms,
        bound=bound,
    )


def trtexec_pair(
    profiles: tuple[Path, Path],
    layers: tuple[Path | None, Path | None],
    names: tuple[str, str],
    target: str = "trtexec",
) -> Explanation:
    """The explanation of two engines from the files that trtexec wrote of each; see the module.

    ``ValueError`` names a file that is not of trtexec.
    """
    sides = [
        Side(name, "trtexec", tuple(trtexec_kernels(profile, info)))
        for profile, info, name in zip(profiles, layers, names, strict=True)
    ]
    notes = ["times of layers by trtexec's profiler"]
    if None in layers:
        notes.append("without trtexec's layer information (--exportLayerInfo) MACs and precisions are not known")
    return explained(target, sides, {"fp16": 2.0, "int8": 4.0}, 1, notes=notes)


def trtexec_kernels(profile: Path, layers: Path | None = None) -> list[Kernel]:
    """The layers of one engine with their times (``averageMs``), and their classes, MACs and precisions where told."""
    rows = [row for row in _entries(profile, None) if isinstance(row, Mapping) and "name" in row]
    if not rows or not all(isinstance(row.get("averageMs"), (int, float)) for row in rows):
        raise ValueError(f"{profile}: not a layer profile of trtexec (--exportProfile)")
    known: dict[str, Mapping[str, Any]] = {}
    if layers is not None:
        entries = _entries(layers, "Layers")
        known = {entry["Name"]: entry for entry in entries if isinstance(entry, Mapping) and "Name" in entry}
        if entries and not known and not all(isinstance(entry, str) for entry in entries):
            raise ValueError(f"{layers}: not the layer information of trtexec (--exportLayerInfo)")
    return [_layer(str(row["name"]), float(row["averageMs"]), known.get(str(row["name"]), {})) for row in rows]


def _entries(path: Path, key: str | None) -> Sequence[Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    found = value.get(key) if key is not None and isinstance(value, Mapping) else value
    if not isinstance(found, list):
        raise ValueError(f"{path}: not a file of trtexec")
    return found


_LAYER_KINDS = (
    ("reorder", r"reformat"),
    ("quantize", r"quantize|^q$|scale"),
    ("matmul", r"gemm|matrixmultiply|matrix_multiply|matmul|fullyconnected"),
    ("dense", r"conv"),
    ("pooling", r"pool|reduce"),
    ("resize", r"resize|gridsample"),
    ("normalization", r"softmax|normaliz"),
    ("layout", r"shuffle|slice|concat|gather|copy|transpose|noop|reshape|constant|identity"),
    ("elementwise", r"pointwise|elementwise|pwn|activation|unary|kgen|myelin|foreignnode"),
)
"""Classes by the words of a layer's type, or of its name where the type is not told; the first that fits."""


def _layer(name: str, ms: float, info: Mapping[str, Any]) -> Kernel:
    words = f"{info.get('LayerType', '')}".lower() or name.lower()
    kind = next((kind for kind, pattern in _LAYER_KINDS if re.search(pattern, words)), "other")
    read, written = ([_tensor(entry) for entry in info.get(side, ())] for side in ("Inputs", "Outputs"))
    kernel = Kernel(name, str(info.get("LayerType", "")) or kind, kind, ms, 0, 0, "")
    if not read or not written:
        return replace(kernel, ideal_ms=ms)
    sizes = {"int8": 1, "fp16": 2}
    traffic = sum(prod(shape) * sizes.get(precision, 4) for precision, shape in (*read, *written))
    kernel = replace(kernel, bytes=traffic, precision=read[0][0], ideal_ms=ms)
    window, groups = info.get("Kernel"), int(info.get("Groups", 1))
    if kind != "dense" or not window or len(written[0][1]) != 4:
        return kernel
    channels, inputs = int(info.get("OutMaps", written[0][1][1])), read[0][1][1]
    macs = prod(written[0][1]) * (inputs // groups) * prod(window)
    shape = "depthwise" if groups > 1 and groups == inputs else "grouped" if groups > 1 else "dense"
    return replace(
        kernel,
        kind="pointwise" if shape == "dense" and prod(window) == 1 else shape,
        macs=macs,
        channels=channels,
        executed=channels,
        useful_macs=macs,
        positions=prod(written[0][1]) // max(channels, 1),
        window=tuple(window),
    )


def _tensor(entry: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Precision and shape of a tensor of trtexec's layer information."""
    told = str(entry.get("Format/Datatype", entry.get("Format", ""))).lower()
    precision = "int8" if "int8" in told else "fp16" if "half" in told or "fp16" in told else "fp32"
    return precision, tuple(int(side) for side in entry.get("Dimensions", ()))
