"""The ablation table: means, ranges and paired changes worked out by hand, and what is no finding."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from depthbench.reports.ablation import ablations, csv, section, shown
from depthbench.reports.load import load_run
from depthbench.suites.results import Latency, Lineage, Record, RunFolder, write_json

IMAGES = 20
OFFSETS = np.linspace(-0.1, 0.1, IMAGES)


def record(variant: str, options: dict[str, object], seed: int, target: str, latency: Latency) -> Record:
    training = {"variant": variant, "model": "tst-t", "options": options, "seed": seed, "samples": 600}
    return Record(
        id=f"{variant}{seed}{target}",
        status="ok",
        model=f"{variant}-seed{seed}",
        family="tst",
        recipe="fp32" if target == "desktop-cpu" else "fp16",
        size=(64, 64),
        target=target,
        target_kind="cpu",
        dataset="rooms",
        protocol="native",
        profile={
            "params_m": 0.5,
            "gmacs": {"fvcore": None, "onnx": 0.02},
            "transformer": {"params_m": 0.1, "gmacs": 0.004, "attention_params_m": 0.06, "attention_gmacs": 0.0025},
        },
        latency=latency,
        evaluation=f"{variant}{seed}",
        lineage=[Lineage("weights", f"w{variant}{seed}", training)],
    )


def write(root: Path, rmse: dict[str, tuple[float, float]]) -> Path:
    """A run of variants by name with the RMSE of their two seeds; ``full`` is the one without options."""
    folder = RunFolder(root)
    records = []
    for place, (name, values) in enumerate(rmse.items()):
        options: dict[str, object] = {} if name == "full" else {name: False} if name != "grid" else {"grid": 2}
        for seed, value in enumerate(values):
            per_image = value + OFFSETS
            metrics = {"rmse_m": list(per_image), "delta1": list(1 - per_image)}
            evaluation = {"images": list(range(IMAGES)), "metrics": metrics}
            write_json(folder.evaluation_path(f"{name}{seed}"), evaluation)
            ms = 10.0 + place
            records.append(record(name, options, seed, "desktop-cpu", Latency("measured", samples_ms=[ms] * 12)))
            board = Latency("predicted", latency_ms=2 * ms, interval_ms=(ms, 3 * ms))
            records.append(record(name, options, seed, "jetson-nano", board))
    for one in records:
        folder.write_record(one)
    write_json(folder.manifest, {"schema_version": 1, "suite": {"name": "t"}, "cells": [one.id for one in records]})
    return root


def test_numbers(tmp_path: Path) -> None:
    [found] = ablations(load_run(write(tmp_path, {"grid": (0.70, 0.74), "full": (0.50, 0.52), "fusion": (0.49, 0.55)})))
    assert (found.model, found.size, found.samples) == ("tst-t", (64, 64), 600)
    assert found.targets == (("desktop-cpu", "measured"), ("jetson-nano", "predicted"))
    table = found.table.set_index("variant")
    assert list(table.index) == ["full", "grid", "fusion"]
    assert list(table["changed"]) == ["–", "grid 2", "no fusion"]
    assert list(table["seeds"]) == [2, 2, 2]
    grid = table.loc["grid"]
    assert grid["rmse_m"] == pytest.approx(0.72)
    assert (grid["rmse_m_lo"], grid["rmse_m_hi"]) == pytest.approx((0.70, 0.74))
    assert grid["delta1"] == pytest.approx(0.28)
    assert grid["rmse_change_m"] == pytest.approx(0.21)
    assert (grid["rmse_change_lo_m"], grid["rmse_change_hi_m"]) == pytest.approx((0.21, 0.21))  # alike on every image
    assert grid["agree"]
    assert not table.loc["fusion", "agree"]  # one of its seeds is better than both of the full model's
    assert math.isnan(table.loc["full", "rmse_change_m"])
    assert grid["latency_ms desktop-cpu"] == 10
    assert grid["latency_ratio jetson-nano"] == pytest.approx(20 / 22)
    assert (grid["gmacs"], grid["transformer_gmacs"], grid["transformer_params_m"]) == (0.02, 0.004, 0.1)
    assert (grid["attention_gmacs"], grid["attention_params_m"]) == (0.0025, 0.06)


def test_records_that_do_not_tell_the_attention_are_still_read(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, {"full": (0.50, 0.52), "grid": (0.30, 0.32)}))
    for old in run.records[:4]:
        known = {name: value for name, value in old.profile["transformer"].items() if "attention" not in name}
        run.folder.write_record(replace(old, profile={**old.profile, "transformer": known}))
    [found] = ablations(load_run(tmp_path))
    texts = shown(found).set_index("variant")
    assert texts["attention GMAC"].to_dict() == {"full": "–", "grid": "0.0025"}
    assert texts["attention params [1e6]"].to_dict() == {"full": "–", "grid": "0.060"}
    assert set(texts["transformer GMAC"]) == {"0.0040"}
    assert "attention_gmacs" in csv(load_run(tmp_path)).splitlines()[0]


def test_texts_say_what_is_a_finding(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, {"full": (0.50, 0.52), "fusion": (0.49, 0.55), "grid": (0.30, 0.32)}))
    texts = shown(ablations(run)[0]).set_index("variant")
    assert texts.loc["full", "RMSE [m]"] == "0.510 (0.500–0.520)"
    assert texts.loc["full", "RMSE change [m]"] == "–"
    assert texts.loc["fusion", "RMSE change [m]"] == "+0.010 (+0.010 to +0.010) ?"
    assert texts.loc["grid", "RMSE change [m]"] == "−0.200 (−0.200 to −0.200)"
    assert texts.loc["grid", "desktop-cpu [ms]"] == "12.0 (×1.20)"
    assert texts.loc["grid", "jetson-nano [ms]"] == "≈ 24.0 (×1.20)"
    [part] = section(run)
    assert part["title"] == "tst-t at 64×64, 600 training samples each"
    assert part["rows"][0][:3] == ["full", "–", "2"]


def test_without_a_full_model_nothing_is_compared(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, {"fusion": (0.49, 0.55), "grid": (0.30, 0.32)}))
    assert "rmse_change_m" not in ablations(run)[0].table
    assert set(shown(ablations(run)[0])["RMSE change [m]"]) == {"–"}


def test_csv(tmp_path: Path) -> None:
    table = pd.read_csv(io.StringIO(csv(load_run(write(tmp_path, {"full": (0.5, 0.5), "grid": (0.3, 0.3)})))))
    assert list(table["variant"]) == ["full", "grid"]
    assert list(table["height"]) == [64, 64]


def test_a_run_that_trained_nothing_has_no_ablation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    one = record("full", {}, 0, "desktop-cpu", Latency("measured", samples_ms=[1.0] * 12))
    folder.write_record(Record.from_json({**one.to_json(), "lineage": []}))
    write_json(folder.manifest, {"schema_version": 1, "suite": {"name": "t"}, "cells": [one.id]})
    assert ablations(load_run(tmp_path)) == []
    assert csv(load_run(tmp_path)) == ""
