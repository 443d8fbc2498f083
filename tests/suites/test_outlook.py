"""What a plan takes: shared work counted once, what is cached, durations of earlier work; large suites planned cheaply."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites import models as models_module
from depthbench.suites import plan as plan_module
from depthbench.suites.cli.app import invoke
from depthbench.suites.outlook import Piece, outlook
from depthbench.suites.plan import Data, Job, make_plan
from depthbench.suites.results import write_json
from depthbench.suites.runner import artefact_spec
from depthbench.suites.running.shared_evaluation import evaluation_key
from depthbench.suites.running.trained import trained_key
from depthbench.suites.schema import parse_suite
from depthbench.suites.source import DataSource
from depthbench.suites.stages import Artefact, ArtefactSpec
from depthbench.suites.storage.store import META, Store
from depthbench.suites.targets import BUILT_IN

ROOMS = Data("rooms", "test", 8, "native", "d")
SOURCE = DataSource("rooms", "native")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))


def look(text: str, **data: Data) -> tuple[list[Job], dict[str, ArtefactSpec], list[Piece]]:
    jobs = make_plan(parse_suite(f"name: t\n{text}", "t.yaml"), {"rooms": ROOMS, **data})
    specs = {job.id: artefact_spec(job, SOURCE, "c") for job in jobs if job.skip is None}
    return jobs, specs, outlook(jobs, specs)


def entry(kind: str, key: str, meta: dict[str, Any], seconds: float | None) -> None:
    """An entry of the store that took so long."""
    stored = {"meta": meta, "files": {}} | ({} if seconds is None else {"seconds": seconds})
    write_json(Store(kind).root / key / META, stored)


def summary(pieces: list[Piece]) -> list[tuple[str, str, int]]:
    return [(piece.stage, piece.what, len(piece.cells)) for piece in pieces]


def test_work_that_cells_share_is_counted_once() -> None:
    more = {"indoor-open": Data("indoor-open", "test", 4, "native", "e")}
    _, _, pieces = look(
        "recipes:\n  own: {steps: [{prune: {macs_ratio: 0.6}}], precision: {cpu: fp32, board: fp16}}\n"
        "matrix:\n"
        "  - {models: [tst-t], recipes: [fp32, prune30, own], targets: [desktop-cpu, desktop-cpu-all]}\n"
        "  - {models: [tst-t], recipes: [own, fp16], targets: [jetson-nano, jetson-tx2], data: [rooms, indoor-open]}\n",
        **more,
    )
    assert summary(pieces) == [
        ("compression", "tst-t own", 6),
        ("file", "tst-t fp32 224x224 fp32", 2),
        ("file", "tst-t prune30 224x224 fp32", 2),
        ("file", "tst-t own 224x224 fp32", 2),
        ("file", "tst-t own 224x224 fp16", 4),
        ("file", "tst-t fp16 224x224 fp16", 4),
        ("accuracy", "tst-t fp32 224x224 fp32 on rooms", 2),
        ("accuracy", "tst-t prune30 224x224 fp32 on rooms", 2),
        ("accuracy", "tst-t own 224x224 fp32 on rooms", 2),
        ("accuracy", "tst-t own 224x224 fp16 on rooms", 2),
        ("accuracy", "tst-t own 224x224 fp16 on indoor-open", 2),
        ("accuracy", "tst-t fp16 224x224 fp16 on rooms", 2),
        ("accuracy", "tst-t fp16 224x224 fp16 on indoor-open", 2),
        *(
            ("latency", f"tst-t {recipe} 224x224 fp32 on {target}", 1)
            for recipe in ("fp32", "prune30", "own")
            for target in ("desktop-cpu", "desktop-cpu-all")
        ),
    ]
    assert not any(piece.cached for piece in pieces)
    assert {piece.seconds for piece in pieces if piece.stage != "latency"} == {None}
    assert all(piece.seconds for piece in pieces if piece.stage == "latency")


def test_skipped_and_recorded_cells_need_nothing() -> None:
    text = "matrix: [{models: [tst-t], recipes: [fp32, fp16], targets: [desktop-cpu]}]\n"
    jobs, specs, pieces = look(text)
    assert [job.skip is None for job in jobs] == [True, False]
    assert {cell for piece in pieces for cell in piece.cells} == {jobs[0].id}
    assert outlook(jobs, specs, frozenset({jobs[0].id})) == []


TRAINS = (
    "train: {samples: 100, seeds: [0, 1], recipe: {mixture: {rooms: 1}}}\n"
    "matrix: [{models: [{name: a, model: tst-t}], recipes: [fp32, int8], targets: [desktop-cpu]}]\n"
)


def test_what_the_store_holds_is_cached_and_says_how_long_the_rest_takes() -> None:
    jobs, specs, pieces = look(TRAINS)
    assert Counter(piece.stage for piece in pieces) == {"training": 2, "file": 4, "accuracy": 4, "latency": 4}
    spec = specs[jobs[0].id]
    assert spec.model.name == "a-seed0"
    assert spec.precision == "fp32"
    entry("trained", trained_key(spec.model), {"samples": 100, "seconds": 30.0}, None)
    entry("artefacts", spec.key, {"sha256": "s", "lineage": [{"stage": "weights"}, {"stage": "onnx"}]}, 2.0)
    entry("artefacts", "of-another-suite", {"sha256": "t", "lineage": [{"stage": "weights"}, {"stage": "int8"}]}, 9.0)
    made = Artefact(spec.key, Path("model.onnx"), "s", spec.size, "fp32", [], {})
    entry("evaluations", evaluation_key(made, ROOMS), {"n": 4}, 2.0)

    found = {(piece.stage, piece.what): piece for piece in outlook(jobs, specs)}
    assert [key for key, piece in found.items() if piece.cached] == [
        ("training", "a-seed0"),
        ("file", "a-seed0 fp32 224x224 fp32"),
        ("accuracy", "a-seed0 fp32 224x224 fp32 on rooms"),
    ]
    assert {piece.seconds for piece in found.values() if piece.cached} == {0.0}
    assert found["training", "a-seed1"].seconds == pytest.approx(30.0)
    assert found["file", "a-seed1 fp32 224x224 fp32"].seconds == 2.0
    assert found["file", "a-seed1 int8 224x224 int8"].seconds == 9.0
    assert found["accuracy", "a-seed1 int8 224x224 int8 on rooms"].seconds == pytest.approx(8 * 2.0 / 4)


def test_the_store_notes_how_long_an_entry_took() -> None:
    Store("artefacts").make("another", lambda _: {"sha256": "s", "lineage": [{"stage": "onnx", "options": {}}]})
    _, _, pieces = look("matrix: [{models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}]\n")
    assert pieces[0].stage == "file"
    assert pieces[0].seconds is not None


def test_damaged_entries_say_nothing() -> None:
    jobs, specs, _ = look("matrix: [{models: [tst-t], recipes: [fp32], targets: [desktop-cpu]}]\n")
    place = Store("artefacts").root / specs[jobs[0].id].key / META
    place.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"meta": 3, "seconds": "x"}'):
        place.write_text(text)
        file, accuracy, _ = outlook(jobs, specs)
        assert file.cached
        assert accuracy.seconds is None


MODELS = "[tst-t, tst-s, tst-b, fastdepth, fastdepth-pruned, mobilevit-xxs, mobilevit-xs, mobilevit-s]"
RECIPES = "[fp16, fp32, int8, int8-trt, prune30, prune30-int8, prune50, prune50-int8, int8-full, own]"
TARGETS = (
    "[jetson-nano, jetson-tx2, jetson-xavier-nx, jetson-agx-xavier, jetson-orin-nano, jetson-orin-nano-super, jetson-orin-nx, "
    "jetson-agx-orin, desktop-cpu, desktop-cpu-all]"
)
SIZES = ", ".join(f"{32 * side}x{32 * side + 32}" for side in range(2, 15))
LARGE = (
    "name: large\nrecipes:\n  own: {steps: [{prune: {macs_ratio: 0.6}}], precision: {cpu: fp32, board: fp16}}\n"
    f"matrix:\n  - {{models: {MODELS}, recipes: {RECIPES}, sizes: [{SIZES}], targets: {TARGETS}}}\n"
)


def test_a_large_plan_looks_everything_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def function(*arguments: Any) -> Any:
            counts[name] += 1
            return real(*arguments)

        monkeypatch.setattr(module, name, function)

    for module, name in ((models_module, "file_sha256"), (plan_module, "file_sha256"), (plan_module, "version")):
        counted(module, name)
    counted(plan_module, "recipe_identity")
    plan_module._shipped_sha256.cache_clear()
    probed: Counter[str] = Counter()

    def probing(name: str) -> Callable[[], None]:
        return lambda: probed.update([name])

    table = {name: replace(target, probe=probing(name)) for name, target in BUILT_IN.items()}
    monkeypatch.setattr("depthbench.suites.cells.TARGETS", table)
    suite = parse_suite(LARGE, "large.yaml")
    counts.clear()
    tracemalloc.start()
    jobs = make_plan(suite, ROOMS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(jobs) == 8 * 10 * 13 * 10
    assert len({job.id for job in jobs}) == len(jobs)
    assert set(probed.values()) == {1}
    assert len(probed) == 10
    assert counts["file_sha256"] <= 8 + 2 * 8  # each model's weights, and its shipped children, once
    assert counts["recipe_identity"] <= 8 * 10 * 4  # once for each model, recipe and precision, not for each cell
    assert counts["version"] <= 5
    assert peak < 100e6


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.yaml").write_text(f"name: t\ndata: {{limit: 8}}\n{TRAINS}")
    assert invoke(["plan", str(tmp_path / "t.yaml"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [cell["model"] for cell in plan["cells"]] == ["a-seed0", "a-seed0", "a-seed1", "a-seed1"]
    assert plan["cells"][0]["cached"] == []
    assert {(row["stage"], row["pieces"], row["cached"], row["unknown"]) for row in plan["work"]} == {
        ("training", 2, 0, 2),
        ("file", 4, 0, 4),
        ("accuracy", 4, 0, 4),
        ("latency", 4, 0, 0),
    }
    assert plan["unknown_pieces"] == 10
    assert plan["unavailable"] == []
    assert invoke(["plan", "smoke"]) == 0
    printed = capsys.readouterr().out
    assert "tst-t/fp32/224x224/desktop-cpu/rooms" in printed
    assert "skipped, 2 cells: jetson-nano: no fast INT8" in printed
    assert "10 cells, 2 of them skipped" in printed
    assert invoke(["plan", "smoke", "--run", str(tmp_path / "nix")]) == 2
    assert "no run here" in capsys.readouterr().err
