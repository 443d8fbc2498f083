"""The search for what stays in float: bounded, cached, and true about what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from depthbench.compression.executed import executed, outputs, sqnr_db
from depthbench.compression.mixed import quantize_mixed

Images = list[NDArray[np.float32]]
Exported = Callable[[str, int], Path]


class Memory:
    """Keeps values by their key, and counts how many were made."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __call__(self, key: Any, build: Callable[[], Any]) -> Any:
        if str(key) not in self.values:
            self.values[str(key)] = build()
        return self.values[str(key)]


def same(_path: Path) -> Mapping[str, float]:
    return {"delta1": 0.5}


def test_what_is_good_enough_is_left_alone(exported: Exported, calibration: Images, tmp_path: Path) -> None:
    out = tmp_path / "mixed.onnx"
    report = quantize_mixed(exported("dense", 17), out, calibration, score=same, cached=Memory(), min_sqnr_db=10)
    assert (report["trials"], report["float_nodes"], report["delta1_loss"]) == (1, [], 0)
    assert report["int8_macs_share"] == round(executed(out).int8_share, 4)


def test_the_loudest_go_back_to_float(exported: Exported, calibration: Images, tmp_path: Path) -> None:
    source, memory = exported("dense", 17), Memory()
    plain = quantize_mixed(source, tmp_path / "a.onnx", calibration, score=same, cached=memory, min_sqnr_db=10)
    wanted = plain["sqnr_db"] + 3
    keywords: dict[str, Any] = {"score": same, "cached": memory, "min_sqnr_db": wanted}
    report = quantize_mixed(source, tmp_path / "b.onnx", calibration, **keywords)
    measured = sqnr_db(outputs(source, calibration), outputs(tmp_path / "b.onnx", calibration))
    assert measured >= wanted
    assert report["sqnr_db"] == pytest.approx(measured, abs=0.01)
    assert 0 < report["int8_macs_share"] < plain["int8_macs_share"]
    assert report["float_nodes"]
    assert report["trials"] <= 64
    made = len(memory.values)
    assert quantize_mixed(source, tmp_path / "c.onnx", calibration, **keywords) == report
    assert len(memory.values) == made  # nothing is measured twice
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_tolerance_that_cannot_be_reached_keeps_what_was_measured(
    exported: Exported, calibration: Images, tmp_path: Path
) -> None:
    source, memory = exported("dense", 17), Memory()

    def blind(path: Path) -> Mapping[str, float]:
        """Every file but the float32 one is useless."""
        return {"delta1": 0.9 if path == source else 0.1}

    with pytest.raises(
        ValueError, match=r"^tolerance: delta1 within 0.01 and 20.0 dB cannot be reached in \d+ trials; "
    ):
        quantize_mixed(source, tmp_path / "out.onnx", calibration, score=blind, cached=memory, max_trials=12)
    assert 1 < len(memory.values) <= 12
    assert not (tmp_path / "out.onnx").exists()
