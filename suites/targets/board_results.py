"""From the files that a board sent back to measurements, the same for SSH and for a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.results import Latency
from depthbench.suites.targets import tegrastats
from depthbench.suites.targets.board_steps import BoardCell, facts, frames
from depthbench.suites.targets.intervals import NOISY_RSE, median_rse

TOLERANCE = {"fp32": 2e-3, "fp16": 2e-2, "int8-trt": 0.1}
"""How far an engine's output may be from ONNX Runtime's: mean |difference| over mean |value|, of the worst frame."""

FOREIGN_GPU_LOAD = 10
"""GPU load in per cent before the measurement above which something else is using the board: ``contaminated``."""


@dataclass(frozen=True)
class Outcome:
    """What measuring a file came to: a latency, or the reason why there is none."""

    latency: Latency | None
    reason: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)


_MODELS = (
    ("Orin NX", "jetson-orin-nx"),
    ("Orin Nano", "jetson-orin-nano"),
    ("AGX Orin", "jetson-agx-orin"),
    ("Xavier NX", "jetson-xavier-nx"),
    ("AGX Xavier", "jetson-agx-xavier"),
    ("TX2", "jetson-tx2"),
    ("Jetson Nano", "jetson-nano"),
)
"""Signs in the name that a board's device tree gives, and the board."""


def board_of_model(model: str) -> str | None:
    """The board whose device tree gives this name, None for one that is not known."""
    return next((name for sign, name in _MODELS if sign in model), None)


def another_board(model: str, board: str) -> str | None:
    """Why a board with this name in its device tree is not ``board``, or None when it is or cannot be told."""
    named = board_of_model(model)
    if named is None or board in (named, f"{named}-super"):
        return None
    return f"this board is not a {board}: its device tree says {model.strip()}"


def outcome(
    cell: BoardCell, files: Mapping[str, Mapping[str, bytes]], reason: str | None = None, board: str | None = None
) -> Outcome:
    """The measurement of a cell from what its board sent back.

    ``board``: which Jetson the user says it is; by its own name when left out.
    """
    own = files.get(cell.key, {})
    general = files.get("", {})
    found = facts(general.get("facts", b""))
    named = board_of_model(found.get("model", ""))
    where = {"board": board or named, "board_facts": found}
    if board is not None and (why := another_board(found.get("model", ""), board)) is not None:
        return Outcome(None, why, where)
    if "failed" in own:  # empty when the board's disk had no room for it
        said = own["failed"].decode("utf-8", "replace").strip()
        reason = said or reason or "it failed without saying why (is the board's disk full?)"
    if reason is None:
        reason = _incomplete(cell, own)
    if reason is not None:
        return Outcome(None, reason, where)
    try:
        deviation = compare_outputs(cell, own)
        samples, blocks, engines = _samples(own)
    except ValueError as error:
        return Outcome(None, str(error), where)
    if not deviation <= TOLERANCE[cell.precision]:
        return Outcome(
            None,
            f"check: the engine's output differs from ONNX Runtime's by {deviation:.2%}, "
            f"more than the {TOLERANCE[cell.precision]:.1%} allowed in {cell.precision}",
            where,
        )
    flags, details = _watch(own, general, float(np.median(samples)))
    if median_rse(samples) > NOISY_RSE:
        flags = ["noisy", *flags]
    commands = {name.removesuffix(".cmd"): own[name].decode().strip() for name in sorted(own) if name.endswith(".cmd")}
    details = {
        "clock": "device",
        "blocks": blocks,
        "commands": commands,
        "engine_sha256": [own[name].decode().strip() for name in _engines(own)],
        "engine_of_block": engines,
        **_engine_spread(samples, blocks, engines),
        "output_deviation": deviation,
        "frames_checked": _count(own),
        **details,
    }
    return Outcome(Latency("measured", samples_ms=samples, flags=flags, details=details), None, where)


def _incomplete(cell: BoardCell, own: Mapping[str, bytes]) -> str | None:
    if "onnx.sha256" not in own or not _engines(own):
        return "the board sent nothing back for this cell"
    if own["onnx.sha256"].decode().strip() != cell.sha256:
        return "the board measured another file: its ONNX digest does not match"
    if not _count(own):
        return "the board sent no output back for this cell"
    if not any(name.startswith("times-") for name in own):
        return "the board sent no timing back for this cell"
    return None


def _samples(own: Mapping[str, bytes]) -> tuple[list[float], list[int], list[int]]:
    """GPU compute times in ms of every inference, the round of each, and the engine of each round."""
    samples: list[float] = []
    blocks: list[int] = []
    engines: dict[int, int] = {}
    names = [name for name in own if name.startswith("times-")]
    for name in sorted(names, key=_run):
        number, engine = _run(name)
        try:
            times = [float(entry["computeMs"]) for entry in json.loads(own[name])]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"timing: {name} cannot be read") from None
        samples += times
        blocks += [number // 2] * len(times)
        engines[number // 2] = engine
    if not samples:
        raise ValueError("timing: trtexec measured no inference")
    if sorted(engines) != list(range(len(engines))):
        raise ValueError("timing: the times of a round are missing")
    return samples, blocks, [engines[number] for number in sorted(engines)]


def _engine_spread(samples: list[float], blocks: list[int], engines: list[int]) -> dict[str, Any]:
    """Median in ms of each engine, and by how much the slowest is above the fastest: what choosing kernels anew changes."""
    by_sample = np.asarray([engines[block] for block in blocks])
    medians = [float(np.median(np.asarray(samples)[by_sample == engine])) for engine in sorted(set(engines))]
    return {"engine_medians_ms": medians, "engine_spread": max(medians) / min(medians) - 1}


def _engines(own: Mapping[str, bytes]) -> list[str]:
    return sorted(name for name in own if re.fullmatch(r"engine-\d+\.sha256", name))


def _count(own: Mapping[str, bytes], engine: int = 0) -> int:
    """How many frames the board gave an output of an engine for."""
    return sum(name.startswith(f"output-{engine}-") for name in own)


def _run(name: str) -> tuple[int, int]:
    """Number of a run and its engine, from the name of its times."""
    match = re.fullmatch(r"times-(\d+)-(\d+)\.json", name)
    if match is None:
        raise ValueError(f"timing: {name} cannot be read")
    return int(match[1]), int(match[2])


def compare_outputs(cell: BoardCell, own: Mapping[str, bytes]) -> float:
    """Relative difference of the engine's outputs from ONNX Runtime's: mean |d| / mean |value|, the worst of all
    engines and frames.

    ``ValueError`` for an output that is missing, has another shape or holds values that are not numbers, and for a file
    that ONNX Runtime refuses.
    """
    from depthbench.compression.executed import open_quietly

    session = open_quietly(cell.path)
    name, height, width = cell.image
    worst = 0.0
    for i, image in enumerate(frames(height, width, _count(own))):
        wanted = session.run(None, {name: image})[0].astype(np.float64)
        for engine in range(len(_engines(own))):
            if i < _count(own, engine):
                worst = max(worst, _deviation(own, f"output-{engine}-{i}.json", wanted))
    return worst


def _deviation(own: Mapping[str, bytes], name: str, wanted: NDArray[np.float64]) -> float:
    frame = name.removesuffix(".json").rpartition("-")[2]
    try:
        [got] = json.loads(own[name])
        values = np.asarray(got["values"], np.float64)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"check: the output of frame {frame} cannot be read") from None
    if values.size != wanted.size:
        raise ValueError(f"check: the engine gives {values.size} values, ONNX Runtime {wanted.size}")
    if not np.isfinite(values).all():
        raise ValueError(f"check: the engine's output of frame {frame} holds values that are not finite")
    return float(np.abs(values - wanted.ravel()).mean() / max(np.abs(wanted).mean(), 1e-12))


def _watch(
    own: Mapping[str, bytes], general: Mapping[str, bytes], median_ms: float
) -> tuple[list[str], dict[str, Any]]:
    """Flags and details from tegrastats and from the board's state before and after each run."""
    logs = [own[name].decode("utf-8", "replace") for name in sorted(own) if name.startswith("tegrastats-")]
    runs = [tegrastats.parse(log) for log in logs]
    samples = [sample for run in runs for sample in run]
    details: dict[str, Any] = {}
    flags = []
    states = {name: facts(own[name]) for name in sorted(own) if name.startswith(("before-", "after-"))}
    limits = [int(state["gpu_max_hz"]) for state in states.values() if state.get("gpu_max_hz", "").isdigit()]
    dropped = tegrastats.clocks_dropped(samples, max(limits, default=0) / 1e6)
    details["states"] = states
    alarms = _alarms(states)
    if dropped is not None or alarms:
        flags.append("throttled")
        details["throttled"] = {"gpu_mhz": list(dropped) if dropped else None, "over_current_events": alarms}
    if (working := tegrastats.busy(samples)) and any(sample.gpu_mhz for sample in working):
        details["gpu_mhz"] = [sample.gpu_mhz for sample in working if sample.gpu_mhz]
    if memory := [sample.emc_mhz for sample in working if sample.emc_mhz]:
        details["emc_mhz"] = memory
    if samples:
        details["peak_ram_mb"] = max(sample.ram_mb for sample in samples)
        hottest = [max(sample.temperatures.values()) for sample in samples if sample.temperatures]
        details["temperature_max_c"] = max(hottest) if hottest else None
    power = tegrastats.mean_power_mw(working)
    before = tegrastats.parse(general.get("idle.log", b"").decode("utf-8", "replace"))
    idle = tegrastats.mean_power_mw(before)
    if before:
        details["idle_gpu_load"] = sum(sample.gpu_load for sample in before) / len(before)
        if details["idle_gpu_load"] > FOREIGN_GPU_LOAD:
            flags.append("contaminated")
    if power is None:
        missing = "tegrastats shows no power rail on this board" if samples else "there is no tegrastats on the board"
        details["energy_absent"] = missing if working or not samples else "no sample fell into an inference"
    else:
        details |= {
            "power_w": power / 1e3,
            "idle_power_w": None if idle is None else idle / 1e3,
            "energy_mj": power * median_ms / 1e3,
        }
    return flags, details


def _alarms(states: Mapping[str, Mapping[str, str]]) -> int:
    """Over-current events that the board counted between the state before a run and the one after it."""
    total = 0
    for name, after in states.items():
        if name.startswith("after-"):
            before = states.get(f"before-{name.removeprefix('after-')}", {})
            counters = [key for key in after if key.startswith("over_current.") and key in before]
            total += sum(int(after[key]) - int(before[key]) for key in counters)
    return total
