"""Cells: one a combination, ids by content, refusals with their reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from depthbench.suites import plan
from depthbench.suites.plan import Data, Job, make_plan
from depthbench.suites.schema import MeasureSpec, Suite, load_suite, parse_suite

DATA = Data("rooms", "test", 256, "native", "digest")


def suite(models: str, recipes: str, targets: str, sizes: str = "[224x224]") -> Suite:
    return parse_suite(
        f"name: t\nmatrix: [{{models: {models}, recipes: {recipes}, targets: {targets}, sizes: {sizes}}}]", "t.yaml"
    )


def jobs(*arguments: str) -> dict[str, Job]:
    return {job.label: job for job in make_plan(suite(*arguments), DATA)}


def test_one_job_a_combination() -> None:
    found = jobs("[tst-t, fastdepth]", "[fp16, prune30]", "[jetson-nano, jetson-tx2]", "[224x224, 256x320]")
    assert len(found) == 16
    assert len({job.id for job in found.values()}) == 16
    assert found["tst-t/prune30/256x320/jetson-tx2"].precision == "fp16"


def test_precision_follows_the_kind_of_target() -> None:
    found = jobs("[tst-t]", "[prune30-int8]", "[desktop-cpu, jetson-xavier-nx]")
    assert [job.precision for job in found.values()] == ["int8", "int8-trt"]
    assert all(job.skip is None for job in found.values())


@pytest.mark.parametrize(
    ("recipe", "target", "reason"),
    [
        (
            "fp16",
            "desktop-cpu",
            "recipe fp16 is for cuda, board, not for cpu; "
            "use fp32, int8, int8-dynamic, int8-full, int8-mixed, int8-nncf, int8-weights",
        ),
        ("int8", "jetson-nano", "recipe int8 is for cpu, not for board; use fp16, int8-trt"),
        (
            "int8-trt",
            "jetson-nano",
            "jetson-nano: no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16 or prune30",
        ),
        (
            "prune30-int8",
            "jetson-tx2",
            "jetson-tx2: no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16 or prune30",
        ),
        ("fp16", "jetson", "this machine is not a Jetson (there is no /etc/nv_tegra_release)"),
    ],
)
def test_refusals(recipe: str, target: str, reason: str) -> None:
    [job] = jobs("[tst-t]", f"[{recipe}]", f"[{target}]").values()
    assert job.skip == reason


def test_ids_are_by_content() -> None:
    one = suite("[tst-t]", "[fp32]", "[desktop-cpu]")
    [job] = make_plan(one, DATA)
    [same] = make_plan(one, DATA)
    [other_data] = make_plan(one, replace(DATA, digest="other"))
    [fewer] = make_plan(one, replace(DATA, n=1))
    [longer] = make_plan(one.model_copy(update={"measure": MeasureSpec(profile="standard")}), DATA)
    assert job.id == same.id
    assert len({job.id, other_data.id, fewer.id, longer.id}) == 4


def test_ids_know_how_files_are_made_and_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one = suite("[tst-t]", "[fp16, int8-trt]", "[jetson-xavier-nx]")
    before = [job.id for job in make_plan(one, DATA)]
    monkeypatch.setattr(plan, "carried_out", lambda _: {})
    assert [job.id == old for job, old in zip(make_plan(one, DATA), before, strict=True)] == [True, False]
    monkeypatch.undo()
    monkeypatch.setattr(plan, "FORM", plan.FORM + 1)
    assert not set(before) & {job.id for job in make_plan(one, DATA)}


def test_a_cell_written_twice_is_one() -> None:
    assert len(make_plan(suite("[tst-t, tst-t]", "[fp32]", "[desktop-cpu]"), DATA)) == 1


def test_only() -> None:
    whole = load_suite("jetson")[0]
    chosen = make_plan(whole, DATA, only=["tst-s/*/224x224/jetson-nano", "fastdepth/fp32"])
    assert {job.label for job in chosen} == {
        "tst-s/fp16/224x224/jetson-nano",
        "tst-s/int8-trt/224x224/jetson-nano",
        "tst-s/prune30/224x224/jetson-nano",
        "tst-s/prune30-int8/224x224/jetson-nano",
        "fastdepth/fp32/224x224/desktop-cpu",
    }
    with pytest.raises(ValueError, match=r"^--only nix: no cell of suite jetson matches"):
        make_plan(whole, DATA, only=["nix"])


def test_the_jetson_suite_is_what_it_promises() -> None:
    cells = make_plan(load_suite("jetson")[0], DATA)
    runnable = [job for job in cells if job.skip is None]
    assert len({job.model.name for job in runnable}) >= 6
    assert len({job.target.name for job in runnable if job.target.how == "predicted"}) >= 4
    assert {job.recipe.name for job in runnable} == {"fp32", "fp16", "int8", "int8-trt", "prune30", "prune30-int8"}
    assert {job.size for job in runnable} == {(224, 224), (256, 320), (480, 640)}
    skipped = {(job.target.name, job.precision) for job in cells if job.skip}
    assert ("jetson-nano", "int8-trt") in skipped
    assert any(target == "jetson" for target, _ in skipped)
