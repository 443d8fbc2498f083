"""Throughput by batch size in the tidy table."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthbench.reports.load import load_run
from depthbench.suites.results import Latency, Record, RunFolder, write_json

RATES = [
    {"batch": 1, "samples_ms": [10.0, 10.0, 30.0], "blocks": [0, 0, 0]},
    {"batch": 4, "samples_ms": [20.0], "blocks": [0]},
    {"batch": 8, "reason": "the graph does not allow it"},
]


def test_throughput(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name, details in (("with", {"throughput": RATES}), ("without", {})):
        latency = Latency("measured", samples_ms=[10.0] * 10, details=details)
        folder.write_record(
            Record(name, "ok", name, "f", "fp32", (32, 32), "desktop-cpu", "cpu", "rooms", "native", latency=latency)
        )
    write_json(folder.manifest, {"cells": ["with", "without"]})
    given, absent = load_run(tmp_path).cells.to_dict("records")
    assert given["throughput"] == "1: 100; 4: 200; 8: the graph does not allow it"
    assert (given["images_per_s"], given["images_per_s_batch"]) == (pytest.approx(200), 4)
    assert absent["throughput"] == ""
    assert absent["images_per_s"] != absent["images_per_s"]
