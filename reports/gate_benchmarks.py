"""Two files of pytest-benchmark, judged with the gate's statistics.

The two were taken one after the other, so that nothing pairs their rounds. What stands in for the A/A arm is a benchmark of
something that the product cannot change (``extra_info["control"]`` is true): how far it moved is how far the machine did,
and may only widen the threshold. Nothing can recur either: a benchmark fails only when its whole interval is beyond the
threshold, and is ambiguous when its median alone is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, log
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.reports import stats
from depthbench.reports.gate import Check, Limit, State
from depthbench.reports.gate_latency import CONTROL_FACTOR
from depthbench.reports.gate_output import GateReport
from depthbench.suites.results import read_json

DEFAULT = Limit(0.10, "two sessions on one machine, minutes apart, differ by several per cent")


def judge_files(before: Path, after: Path, limits: Mapping[str, Limit]) -> GateReport:
    """Judge every benchmark of two files; ``limits`` by the benchmark's name, ``default`` for the others.

    ``ValueError``, one line, for a file that is none of pytest-benchmark's.
    """
    base, head = _read(before), _read(after)
    machine = _other_machine(base, head)
    old, new = _benchmarks(before, base), _benchmarks(after, head)
    controls = [name for name in old if name in new and old[name].get("extra_info", {}).get("control")]
    drift = max((abs(log(_median(new[name]) / _median(old[name]))) for name in controls), default=0.0)
    checks = []
    for name in dict.fromkeys([*old, *new]):
        limit = limits.get(name) or limits.get("default") or DEFAULT
        if name not in new or name not in old:
            side = "base" if name in old else "head"
            checks.append(Check(name, "time", "ambiguous", f"only the {side} has it", reason=limit.reason))
        elif name in controls:
            moved = _median(new[name]) / _median(old[name]) - 1
            checks.append(Check(name, "time", "pass", f"control: {moved:+.1%}", change=moved))
        else:
            checks.append(_judge(name, old[name], new[name], limit, drift, machine))
    notes = [] if controls else ["no control benchmark: how far the machine itself moved is not known"]
    return GateReport(str(before), str(after), checks, notes, finished=head.get("datetime", ""))


def _judge(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], limit: Limit, drift: float, machine: str | None
) -> Check:
    before, after = _median(old) * 1e3, _median(new) * 1e3
    raw = [one["stats"].get("data") or [] for one in (new, old)]
    low, high = (end - 1 for end in stats.median_ratio_interval(*raw))  # nan when too few are stored
    known = not np.isnan(low)
    change, threshold = after / before - 1, max(limit.tolerance, expm1(CONTROL_FACTOR * drift))
    sure = f", 95 % interval {low:+.1%} to {high:+.1%}" if known else ""
    state: State = "ambiguous"
    why = ""
    if change <= limit.tolerance:
        state = "pass"
    elif machine is not None:
        why = f": {machine}"
    elif expm1(drift) > limit.tolerance:
        state, why = "contaminated", f": the control moved by {expm1(drift):.1%} too"
    elif not known:
        why = f": fewer than {stats.MIN_FOR_INTERVAL} raw times are stored"
    elif low > threshold:
        state, why = "fail", f": slower by more than {threshold:.1%}"
    else:
        why = f": beyond {limit.tolerance:.0%}, but not sure"
    return Check(
        name,
        "time",
        state,
        f"time: {before:.4g} → {after:.4g} ms ({change:+.1%}{sure}){why}",
        base=f"{before:.4g} ms",
        head=f"{after:.4g} ms",
        change=change,
        interval=(low, high) if known else None,
        tolerance=limit.tolerance,
        reason=limit.reason,
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("benchmarks"), list):
        raise ValueError(f"{path}: not a file of pytest-benchmark (it has no 'benchmarks')")
    return value


def _benchmarks(path: Path, value: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = {}
    for one in value["benchmarks"]:
        if not isinstance(one.get("stats"), dict) or not one["stats"].get("median"):
            raise ValueError(f"{path}: benchmark {one.get('name')} has no median")
        found[one["fullname"].partition("::")[2]] = one
    return found


def _median(one: Mapping[str, Any]) -> float:
    return float(one["stats"]["median"])


def _other_machine(base: Mapping[str, Any], head: Mapping[str, Any]) -> str | None:
    """Why times of the two files cannot be compared, or None."""
    old, new = base.get("machine_info") or {}, head.get("machine_info") or {}
    brands = [(info.get("cpu") or {}).get("brand_raw") for info in (old, new)]
    if brands[0] != brands[1]:
        return f"another processor ({brands[0]} against {brands[1]})"
    runtimes = [(info.get("libraries") or {}).get("onnxruntime") for info in (old, new)]
    if runtimes[0] != runtimes[1]:
        return f"onnxruntime {runtimes[0]} against {runtimes[1]}"
    return None
