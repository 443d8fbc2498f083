"""Latencies measured by the user: records of a board's run, and this CPU measured in moments."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from depthbench.suites.models import file_sha256
from depthbench.suites.results import Latency, Lineage, Record, write_json
from depthbench.suites.storage.store import Store
from depthbench.suites.targets.predict_calibrate import calibrate_boards, calibrate_cpu, read_calibration
from depthbench.suites.targets.predict_measured import cpu_points, record_points
from depthbench.suites.targets.predicted import boards, cpu_calibration, predict


def network(path: Path, channels: int, side: int = 32) -> Path:
    """Two 3×3 convolutions with random weights, the second depthwise."""
    import numpy as np

    rng = np.random.default_rng(channels)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (channels, 3, 3, 3)), ("d", (channels, 1, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["rgb", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "d"], ["depth"], name="second", pads=[1, 1, 1, 1], group=channels),
    ]
    x = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, (1, 3, side, side))
    y = helper.make_tensor_value_info("depth", TensorProto.FLOAT, (1, channels, side, side))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def stored(key: str, channels: int) -> str:
    """A network in the artefact store; its digest."""

    def build(folder: Path) -> dict[str, str]:
        return {"sha256": file_sha256(network(folder / "model.onnx", channels))}

    return str(Store("artefacts").make(key, build).meta["sha256"])


def record(
    run: Path, name: str, digest: str, latency: Latency | None, target: str = "jetson-nano", **more: object
) -> None:
    value = Record(
        id=name,
        status="ok",
        model=name,
        family="mine",
        recipe="fp16",
        size=(32, 32),
        target=target,
        target_kind="board",
        dataset="rooms",
        protocol="native",
        precision="fp16",
        latency=latency,
        lineage=[Lineage("onnx", "0"), Lineage("fp16", digest)],
        **more,  # type: ignore[arg-type]
    )
    write_json(run / "records" / f"{name}.json", value.to_json())


def test_measured_records_become_points(tmp_path: Path) -> None:
    digest = stored("one", 8)
    record(tmp_path, "a", digest, Latency("measured", samples_ms=[2.0, 3.0, 9.0]))
    record(tmp_path, "b", digest, Latency("measured", samples_ms=[4.0]), "jetson", environment={"board": "jetson-tx2"})
    record(tmp_path, "noisy", digest, Latency("measured", samples_ms=[5.0], flags=["noisy"]))
    record(tmp_path, "guess", digest, Latency("predicted", latency_ms=1.0, interval_ms=(0.5, 2.0)))
    record(tmp_path, "here", digest, Latency("measured", samples_ms=[1.0]), "desktop-cpu")
    record(tmp_path, "skipped", digest, None)
    points, tables = record_points(tmp_path)
    assert [(p.network, p.board, p.precision, p.latency_ms, p.clocks) for p in points] == [
        ("a@fp16_32x32", "jetson-nano", "fp16", 3.0, "locked"),
        ("b@fp16_32x32", "jetson-tx2", "fp16", 4.0, "locked"),
    ]
    assert tables["a@fp16_32x32"].macs.tolist() == [32 * 32 * 27 * 8, 32 * 32 * 9 * 8]


def test_measured_points_move_the_calibration(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", 48, 64)
    shipped = predict(path, "jetson-orin-nx", power_mode="maxn").latency_ms
    digest = stored("forty-eight", 48)
    for i in range(4):
        latency = Latency("measured", samples_ms=[shipped * 3])
        record(tmp_path, f"m{i}", digest, latency, "jetson-orin-nx", environment={"run": i})
    points, tables = record_points(tmp_path)
    made = calibrate_boards(points, tables)
    assert "4 of them measured by the user" in made.provenance["points"]
    moved = predict(path, "jetson-orin-nx", power_mode="maxn", calibration=made).latency_ms
    assert moved > shipped * 1.05


def test_runs_without_measured_boards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r": not a run \(it has no records folder\)$"):
        record_points(tmp_path)
    record(tmp_path, "here", "0", Latency("measured", samples_ms=[1.0]), "desktop-cpu")
    with pytest.raises(ValueError, match=r": no latency in it was measured on a board \(jetson-agx-orin, "):
        record_points(tmp_path)
    record(tmp_path, "gone", "digest-of-nothing", Latency("measured", samples_ms=[1.0]))
    with pytest.raises(ValueError, match=r": the file of gone@fp16_32x32 is no longer in the cache"):
        record_points(tmp_path)


def test_this_cpu_is_calibrated_and_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    widths = (4, 8, 16, 24, 32, 48)
    files = [(f"n{channels}", network(tmp_path / f"n{channels}.onnx", channels)) for channels in widths]
    points, tables = cpu_points(files, seconds=0.05)
    assert [point.network for point in points] == [name for name, _ in files]
    assert all(point.latency_ms > 0 for point in points)
    made = calibrate_cpu(points, tables)
    write_json(cpu_calibration(), made.to_json())
    assert read_calibration(cpu_calibration()).errors["boards"][0]["points"] == len(widths)
    small, large = (predict(path, "desktop-cpu", "fp32") for _, path in (files[0], files[-1]))
    assert small.latency_ms < large.latency_ms
    assert {row["board"] for row in boards()} > {"desktop-cpu"}
    with pytest.raises(ValueError, match=r"^5 networks are too few to calibrate desktop-cpu: give at least 6$"):
        cpu_points(files[:5])
    with pytest.raises(ValueError, match=r"^desktop-cpu has no power modes$"):
        predict(files[0][1], "desktop-cpu", "fp32", power_mode="maxn")
