"""The fit of the device model: recovery, robustness, intervals, and the calibration that ships."""

import hashlib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from depthbench.suites.results import write_json
from depthbench.suites.targets.predict_baselines import macs_only, roofline
from depthbench.suites.targets.predict_calibrate import calibrate_cpu, interval, read_calibration
from depthbench.suites.targets.predict_fit import BOARD_PRIORS, CPU_PRIORS, fit, leave_out, predicted_ms
from depthbench.suites.targets.predict_model import BOARDS, KINDS
from depthbench.suites.targets.predict_points import Point, published_points, published_tables

TABLES = published_tables()
POINTS = published_points()
FITTED = [point for point in POINTS if point.role == "fit"]
CHECKED = [point for point in POINTS if point.role == "check"]


def cpu_point(network: str, latency_ms: float) -> Point:
    return Point(
        network, network, "hybrid", "desktop-cpu", "fp32", "ONNX Runtime", "locked", latency_ms, "fit", "made up"
    )


def invented(scale: dict[str, float], noise: float = 0.0) -> tuple[list[Point], dict[str, float]]:
    """Latencies of all networks on a CPU whose parameters are the priors' values times ``scale``."""
    truth = {name: value * scale.get(name, 1.0) for name, (value, _) in CPU_PRIORS.items()}
    points = [cpu_point(network, 1.0) for network in TABLES]
    exact = predicted_ms(truth, points, TABLES) * np.exp(np.random.default_rng(0).normal(0, noise, len(points)))
    return [replace(point, latency_ms=float(value)) for point, value in zip(points, exact, strict=True)], truth


def test_parameters_are_recovered() -> None:
    points, truth = invented({"cores.dense": 2.5, "launch_us.CPU": 0.4})
    fitted = fit(points, TABLES, CPU_PRIORS)
    assert fitted["cores.dense"] == pytest.approx(truth["cores.dense"], rel=0.1)
    assert predicted_ms(fitted, points, TABLES) == pytest.approx([point.latency_ms for point in points], rel=0.05)


def test_a_wild_point_hardly_moves_the_others() -> None:
    points, _ = invented({"cores.dense": 2.5})
    wild = [replace(points[0], latency_ms=points[0].latency_ms * 20), *points[1:]]
    fitted = predicted_ms(fit(wild, TABLES, CPU_PRIORS), points[1:], TABLES)
    errors = fitted / np.array([point.latency_ms for point in points[1:]]) - 1
    assert np.median(np.abs(errors)) < 0.05


def test_a_left_out_network_is_not_seen() -> None:
    points, _ = invented({})
    changed = [replace(point, latency_ms=point.latency_ms * 3) if point.name == "vgg16" else point for point in points]
    kept = [point for point in points if point.name.startswith(("vgg", "resnet", "mnasnet"))]
    moved = [point for point in changed if point.name.startswith(("vgg", "resnet", "mnasnet"))]
    before, after = (leave_out(some, TABLES, CPU_PRIORS, lambda point: point.name) for some in (kept, moved))
    assert before["vgg16"] == after["vgg16"]
    assert before["vgg19"] != after["vgg19"]


def test_cpu_calibration_checks_its_other_half() -> None:
    points, _ = invented({"cores.pointwise": 0.5, "memory.layout": 2}, noise=0.03)
    made = calibrate_cpu(points[:14], TABLES)
    assert made.errors["other_half"] < 0.15
    assert len(made.errors["rows"]) == 14
    assert made.errors["boards"][0]["board"] == "desktop-cpu"
    low, high = made.intervals["stated"]
    assert 0.5 < low < 1 < high < 2


def test_an_interval_is_made_of_left_out_scores() -> None:
    scores = np.log(np.arange(1, 100) / 50)
    low, high = interval(scores)
    assert (low, high) == pytest.approx((10 / 50, 90 / 50))
    assert interval(np.array([0.1, -0.1])) == pytest.approx((np.exp(-0.1), np.exp(0.1))), "few scores: their extremes"


def test_every_point_has_its_facts() -> None:
    assert len(FITTED) >= 80
    assert len(CHECKED) >= 30
    for point in POINTS:
        assert point.source, point
        assert point.board in BOARDS
        assert point.precision in ("fp32", "fp16", "int8")
        assert point.clocks in ("locked", "unstated")
        assert point.group in ("classifier", "hybrid", "detector")
        assert point.latency_ms > 0
        assert TABLES[point.network].kind.size > 0
    assert {point.family for point in FITTED} >= {"resnet", "vgg", "densenet", "vit", "efficientvit", "guidedepth"}


def test_a_network_is_named_without_its_size() -> None:
    named = {point.network: point.name for point in POINTS}
    assert named["efficientvit_b1_288"] == "efficientvit_b1"
    assert named["guidedepth_s_480x640"] == "guidedepth_s"
    assert named["vit_b_16_224"] == "vit_b_16"


def test_the_shipped_calibration_follows_from_the_shipped_data() -> None:
    shipped = read_calibration()
    fitted = predicted_ms(fit(FITTED, TABLES, BOARD_PRIORS), FITTED, TABLES)
    assert predicted_ms(shipped.parameters, FITTED, TABLES) == pytest.approx(fitted, rel=0.02)
    for name, digest in shipped.provenance["data"].items():
        text = resources.files("depthbench.suites.targets").joinpath(name).read_bytes()
        assert hashlib.sha256(text).hexdigest() == digest, f"{name} changed: run depthbench calibrate again"
    assert set(shipped.seen) == set(KINDS)


def test_the_shipped_errors_on_families_left_out() -> None:
    errors = read_calibration().errors
    groups = errors["groups"]
    assert groups["classifier"]["calibrated"] <= 0.20
    assert groups["hybrid"]["calibrated"] <= 0.30
    assert groups["pooled"]["calibrated"] <= 0.22
    assert groups["hybrid"]["calibrated"] <= groups["hybrid"]["macs_only"] / 2
    assert 0.70 <= errors["coverage"] <= 0.90


def test_a_family_left_out_has_the_error_that_ships() -> None:
    kept = [point for point in FITTED if point.family != "guidedepth"]
    left = [point for point in FITTED if point.family == "guidedepth"]
    predicted = predicted_ms(fit(kept, TABLES, BOARD_PRIORS), left, TABLES)
    error = np.median(np.abs(predicted / np.array([point.latency_ms for point in left]) - 1))
    assert error == pytest.approx(read_calibration().errors["families"]["guidedepth"]["calibrated"], abs=0.02)


def test_single_layers_add_up_to_what_was_published() -> None:
    layers = [point for point in CHECKED if point.network.startswith("layers:")]
    assert len(layers) == 4
    sums = predicted_ms(read_calibration().parameters, layers, TABLES)
    assert sums == pytest.approx([point.latency_ms for point in layers], rel=0.3)


def test_simple_models_know_nothing_of_the_family_they_predict() -> None:
    changed = [replace(p, latency_ms=p.latency_ms * 9) if p.family == "vgg" else p for p in FITTED]
    vgg = [i for i, point in enumerate(FITTED) if point.family == "vgg"]
    for model in (macs_only, roofline):
        assert model(changed, TABLES)[vgg] == pytest.approx(model(FITTED, TABLES)[vgg])


def test_a_file_that_is_no_calibration(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"c\.json: not a calibration \(depthbench calibrate --out writes one\)$"):
        read_calibration(path)
    write_json(path, {**read_calibration().to_json(), "format": 2})
    with pytest.raises(ValueError, match=r"c\.json: calibration format 2 is not readable here \(this reads 1\)$"):
        read_calibration(path)
    write_json(path, read_calibration().to_json())
    assert read_calibration(path).intervals == read_calibration().intervals


def test_the_page_tells_the_errors_that_ship() -> None:
    page = (Path(__file__).parents[3] / "docs" / "prediction.md").read_text(encoding="utf-8")
    errors = read_calibration().errors
    models = ("calibrated", "macs_only", "roofline", "in_fit")
    titles = {"classifier": "classifiers", "hybrid": "depth and hybrid networks", "pooled": "both"}
    for group, title in titles.items():
        row = errors["groups"][group]
        shown = " | ".join(f"{row[model] * 100:.1f} %" for model in models)
        assert f"| {title} | {row['points']} | {shown} |" in page
    assert f"held {errors['coverage'] * 100:.0f} % of" in page
    assert f"Nano the latter is {read_calibration().parameters['unlocked.Maxwell']:.2f} times slower" in page
    assert read_calibration().provenance["points"].startswith("83 latencies")
    assert "83 published latencies of 27 networks" in page
