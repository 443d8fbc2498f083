"""NNCF's files, completed so that ONNX Runtime executes them, and its accuracy-aware mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from depthbench.compression import nncf_ptq
from depthbench.compression.executed import executed, outputs, sqnr_db
from depthbench.compression.graph import initial_values, read_model
from depthbench.compression.nncf_ptq import quantize_nncf

Images = list[NDArray[np.float32]]
Exported = Callable[[str, int], Path]


@pytest.mark.parametrize("name", ["tokens", "unfold"])
def test_nine_tenths_of_what_is_multiplied_is_in_int8(
    name: str,
    exported: Exported,
    calibration: Images,
    unseen: Images,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, out = exported(name, 17), tmp_path / "nncf.onnx"
    report = quantize_nncf(source, out, calibration)
    assert capfd.readouterr() == ("", "")
    assert report["int8_macs_share"] == round(executed(out).int8_share, 4) >= 0.9
    assert sqnr_db(outputs(source, unseen), outputs(out, unseen)) > 8
    graph = read_model(out).graph
    values = initial_values(graph)
    assert "FakeQuantize" not in {node.op_type for node in graph.node}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":  # what works on activations
            assert values[node.input[1]].size == values[node.input[2]].size == 1
            assert values[node.input[2]].dtype == np.uint8


@pytest.mark.parametrize("keywords", [{"symmetric": True, "bias_correction": "none"}, {"transformer": True}])
def test_options(keywords: dict[str, object], exported: Exported, calibration: Images, tmp_path: Path) -> None:
    source = exported("dense", 17)
    report = quantize_nncf(source, tmp_path / "a.onnx", calibration, **keywords)  # type: ignore[arg-type]
    assert report["int8_macs_share"] >= 0.9
    assert report["sqnr_db"] > 15


def test_accuracy_aware(
    exported: Exported, calibration: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = exported("dense", 17), tmp_path / "aware.onnx"
    exact = outputs(source, calibration)

    def score(model: Path | ort.InferenceSession, places: Sequence[int] | None = None) -> Mapping[str, float]:
        chosen = range(len(calibration)) if places is None else places
        if isinstance(model, Path):
            shown = outputs(model, [calibration[i] for i in chosen])
        else:
            shown = np.concatenate([model.run(None, {"rgb": calibration[i]})[0] for i in chosen])
        return {"delta1": float(1 - np.abs(shown - exact[list(chosen)]).mean())}

    report = quantize_nncf(source, out, calibration, tolerance=0.5, score=score)
    assert report["delta1_loss"] <= report["tolerance"] == 0.5
    monkeypatch.setattr(nncf_ptq, "MAX_RESTORED", 2)
    monkeypatch.setattr(nncf_ptq, "RANKING_IMAGES", 1)
    with pytest.raises(
        ValueError, match=r"^tolerance: 1e-07 cannot be reached: with 2 operators at most taken back to"
    ):
        quantize_nncf(source, tmp_path / "never.onnx", calibration, tolerance=1e-7, score=score)
    assert not (tmp_path / "never.onnx").exists()
