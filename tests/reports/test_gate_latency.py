"""The judgement on paired latency: on simulated machines, quiet on noise and loud on regressions; and each of its verdicts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from depthbench.reports.gate import Check, Limit
from depthbench.reports.gate_latency import MAX_ATTEMPTS, judge_latency, read_attempt, settled

LIMIT = Limit(0.05, "two processes of one file differ by up to 3 %")


def attempt(
    rng: np.random.Generator,
    slowdown: float,
    *,
    rounds: int = 10,
    process: float = 0.012,
    block: float = 0.015,
    drift: float = 0.04,
    load: float = 0.0,
    versions: tuple[str, str] = ("1.31.1", "1.31.1"),
) -> dict[str, Any]:
    """A measurement on a simulated machine.

    Each process has its own luck (sd ``process``), each block its noise (sd ``block``) with rare spikes, and the whole machine
    drifts (sd ``drift`` a round, a random walk). ``load``: share of blocks that another process stretches by 10 to 150 %, half
    of them unnoticed by the watch on the processors.
    """
    luck = dict(zip(("base", "control", "head"), rng.normal(0, process, 3), strict=True))
    luck["head"] += math.log1p(slowdown)
    level, found = 0.0, []
    for _ in range(2 * rounds):
        level += rng.normal(0, drift)
        noise = rng.normal(0, block, (3, 2)) + (rng.random((3, 2)) < 0.03) * rng.exponential(0.2, (3, 2))
        hit = rng.random((3, 2)) < load
        noise += hit * np.log(1 + rng.uniform(0.1, 1.5, (3, 2)))
        blocks = {arm: tuple(10 * np.exp(luck[arm] + level + noise[i])) for i, arm in enumerate(luck)}
        seen = bool(hit.any() and rng.random() < 0.5)
        found.append({**blocks, "clean": not seen, "foreign_cores": 0.8 if seen else 0.0, "own_share": 1.0})
        if sum(one["clean"] for one in found) == rounds:
            break
    return {"rounds": found, "onnxruntime": list(versions)}


def gate(rng: np.random.Generator, slowdown: float, limit: Limit = LIMIT, **machine: Any) -> Check:
    attempts: list[dict[str, Any]] = []
    while len(attempts) < MAX_ATTEMPTS:
        attempts.append(attempt(rng, slowdown, **machine))
        check = judge_latency("net", attempts, limit)
        if check is not None:
            return check
    raise AssertionError("no judgement after the last attempt")


def states(n: int, slowdown: float, seed: int, **machine: Any) -> list[str]:
    rng = np.random.default_rng(seed)
    return [gate(rng, slowdown, **machine).state for _ in range(n)]


def test_unchanged_files_do_not_fail() -> None:
    found = states(600, 0.0, 1)
    assert found.count("fail") == 0
    assert found.count("pass") >= 590


def test_ten_per_cent_is_found() -> None:
    assert states(200, 0.10, 2).count("fail") >= 190


def test_eight_per_cent_is_found() -> None:
    assert states(200, 0.08, 3).count("fail") >= 150


def test_a_faster_file_passes() -> None:
    assert set(states(100, -0.10, 4)) == {"pass"}


@pytest.mark.parametrize("load", [0.2, 0.5, 0.9])
def test_under_a_foreign_load_nothing_unchanged_fails(load: float) -> None:
    found = states(200, 0.0, 5, load=load)
    assert found.count("fail") == 0
    assert found.count("contaminated") + found.count("pass") + found.count("ambiguous") == 200


def test_a_machine_with_much_luck_widens_the_threshold() -> None:
    assert states(300, 0.0, 6, process=0.04).count("fail") <= 3
    readings = [read_attempt(attempt(np.random.default_rng(i), 0.0, process=0.04), 0.05) for i in range(50)]
    assert all(one.threshold >= 1.5 * abs(one.control) * 0.95 and one.threshold >= 0.05 - 1e-12 for one in readings)
    assert any(one.threshold > 0.06 for one in readings)


def exact(slowdown: float, control: float = 0.0, clean: bool = True, **more: Any) -> dict[str, Any]:
    """An attempt without noise to speak of."""
    row = {
        "base": (10.0, 10.01),
        "control": (10.0 * (1 + control), 10.01 * (1 + control)),
        "head": (10.0 * (1 + slowdown), 10.01 * (1 + slowdown)),
        "clean": clean,
        "foreign_cores": 0.0 if clean else 1.5,
        "own_share": 1.0,
    }
    return {"rounds": [row] * (10 if clean else 20), "onnxruntime": ["1.31.1", "1.31.1"], **more}


@pytest.mark.parametrize(
    ("attempts", "outcome"),
    [
        ([exact(0.0)], "pass"),
        ([exact(0.1)], None),
        ([exact(0.1), exact(0.1)], "fail"),
        ([exact(0.1), exact(0.0)], "ambiguous"),
        ([exact(0.0, clean=False)], "pass"),
        ([exact(0.5, clean=False)], None),
        ([exact(0.5, clean=False)] * 3, "contaminated"),
        ([exact(0.5, clean=False), exact(0.0)], "pass"),
        ([exact(0.1, control=0.08)] * 3, "contaminated"),
        ([exact(0.5, clean=False), exact(0.1), exact(0.1)], "fail"),
    ],
)
def test_verdicts(attempts: list[dict[str, Any]], outcome: str | None) -> None:
    assert settled([read_attempt(one, 0.05) for one in attempts]) == outcome
    check = judge_latency("net", attempts, LIMIT)
    assert (check.state if check else None) == outcome


def test_the_message_says_what_happened() -> None:
    check = judge_latency("net", [exact(0.1)] * 2, LIMIT, layers=["head.Conv"])
    assert check is not None
    assert check.message == (
        "latency: 10 → 11 ms (+10.0%, 95 % interval +10.0% to +10.0%; the base against itself +0.0%): "
        "slower by more than 5.0% in 2 attempts"
    )
    assert check.layers == ("head.Conv",)
    assert (check.base, check.head) == ("10 ms", "11 ms")


def test_a_contaminated_one_says_by_what() -> None:
    check = judge_latency("net", [exact(0.5, clean=False)] * 3, LIMIT)
    assert check is not None
    assert check.message.endswith("cannot be judged, other processes used 1.5 cores (0 of 20 rounds clean)")


def test_another_runtime_is_ambiguous() -> None:
    check = judge_latency("net", [exact(0.1, onnxruntime=["1.30.0", "1.31.1"])] * 2, LIMIT)
    assert check is not None
    assert check.state == "ambiguous"
    assert check.message.endswith("but onnxruntime is 1.30.0 for the base and 1.31.1 for the head")


def test_an_accepted_ratio_holds_up_to_the_tolerance() -> None:
    for slowdown, outcome in ((0.1, "accepted"), (0.14, "accepted"), (0.2, "fail")):
        check = judge_latency("net", [exact(slowdown)] * 2, LIMIT, accepted_ratio=1.1, accepted_reason="wider")
        assert check is not None
        assert check.state == outcome
