from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthbench.reports import damage, effects, pictures, plots, strips, theme
from depthbench.reports.load import Run, load_run
from depthbench.reports.naming import NAMED, member_names
from depthbench.reports.pareto import fronts
from depthbench.reports.payoff import FLAGGED, Notes, brief
from depthbench.suites.results import Record


def test_front_says_measured_or_predicted_and_names_its_members(run: Run) -> None:
    for front in fronts(run.cells)[:2]:
        ax = plots.draw_front(front)
        kind = {"cpu": "measured", "jetson-nano": "predicted"}[front.target]
        assert ax.get_title(loc="left") == f"{front.target}: {kind} latency"
        assert ax.get_xlabel() == f"{kind} latency [ms], batch 1"
        assert ax.get_ylabel() == "RMSE [m] on rooms (native)"
        written = {text.get_text() for text in ax.texts if text.get_gid() != FLAGGED}
        names = member_names(front, Notes(front.cells, brief))
        stars = {"jetson-nano": 4}.get(front.target, 0)  # two, and what each is
        if len(names) > NAMED:
            numbers = {str(i) for i in range(1, len(names) + 1)}
            assert {f"{i}  {name}" for i, name in enumerate(names, start=1)} <= written
            assert len(written & numbers) >= 0.9 * len(names)
            assert len(written) - len(names) - len(written & numbers) == stars
        else:
            assert len(written - set(names)) == stars
            assert len(written & set(names)) >= 0.9 * len(names)


@pytest.mark.parametrize("target", ["cpu", "jetson-xavier-nx", "jetson-orin-nano-super"])
@pytest.mark.parametrize("look", [theme.LIGHT, theme.DARK], ids=lambda look: look.name)
def test_no_text_overlaps_another(two_sizes: Run, look: theme.Theme, target: str) -> None:
    front = next(front for front in fronts(two_sizes.cells) if front.target == target)
    assert len(front.cells) >= 30
    ax = plots.draw_front(front, theme=look)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 10
    frame = ax.get_window_extent()
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_families_differ_in_colour_and_mark_the_same_in_every_figure(run: Run) -> None:
    families = ["peer", *run.cells["family"], "another"]
    slots = {name: theme.family_slot(name, families) for name in set(families)}
    assert len(set(slots.values())) == 5
    assert slots["tst"] == theme.family_slot("tst", ["tst"])
    assert len(set(theme.MARKERS)) == len(theme.LIGHT.families) == len(theme.DARK.families)


def test_speedup_grid(run: Run) -> None:
    grid = effects.speedup_grid(run.cells, "cpu")
    assert list(grid.columns) == ["int8", "prune30", "prune30-int8"]
    assert grid.loc["tst-b", "int8"] == pytest.approx(1 / 0.75)
    assert grid.loc["mobilevit-xxs", "int8"] == pytest.approx(0.8)
    assert np.isnan(grid.loc["fastdepth", "prune30-int8"])
    assert effects.speedup_grid(run.cells, "jetson").empty
    ax = effects.draw_speedups(run.cells, "cpu")
    assert {text.get_text() for text in ax.texts} >= {"1.33", "0.80\N{NO-BREAK SPACE}▼¹"}


def scale_names(grid: np.ndarray) -> list[str]:
    """What the colour bars of a grid of pictures are labelled."""
    return [axes.get_xlabel() for axes in grid[0, 0].figure.axes if axes.get_xlabel()]


def by_place(run: Run, records: tuple[Record, ...] | None = None) -> Run:
    """The same run with errors up to a metre, those at all distances."""
    evaluations = {
        name: {**one, "metrics": {**one["metrics"], "rmse_m_0_1m": one["metrics"]["rmse_m"]}}
        for name, one in run.evaluations.items()
    }
    return replace(run, evaluations=evaluations, records=records or run.records)


def test_damage_names_its_data(run: Run) -> None:
    ax = damage.draw_damage(by_place(run))
    assert ax.get_title(loc="left") == "RMSE added by compression [m]\non rooms (native)"
    ax.figure.canvas.draw()
    assert ax._left_title.get_window_extent().x1 <= ax.figure.bbox.x1  # the whole of it is seen
    other = tuple(replace(one, protocol="cropped") if one.model == "tst-t" else one for one in run.records)
    grid, _ = damage.damage_grid(damage.damage(by_place(run, other)))
    names = [str(name) for name in grid.index]
    assert [name for name in names if "(cropped)" in name] == [name for name in names if name.startswith("tst-t ")]
    assert "tst-b int8 rooms (native)" in {name.split("\N{NO-BREAK SPACE}")[0] for name in names}


def test_sensitivities_name_their_data(run: Run) -> None:
    scan = ({"step": "prune", "sensitivity": {"stem": [(0.25, 0.6), (0.5, 0.8)]}},)
    scanned = tuple(replace(one, compression=scan) for one in run.records)
    ax = damage.draw_sensitivities(replace(run, records=scanned), "tst-t")
    assert ax.get_ylabel() == "metric on rooms (native)"


def test_pictures_show_the_least_compressed_form_on_common_images(run: Run) -> None:
    panel = pictures.panel(run)
    assert panel is not None
    assert list(panel.predictions) == list(dict.fromkeys(run.cells["model"]))
    assert set(panel.notes.values()) == {"fp32 224×224"}
    assert panel.left_out == ()
    assert panel.rgb.shape == (3, 3, 48, 64)
    assert {prediction.shape for prediction in panel.predictions.values()} == {(3, 48, 64)}
    grid = pictures.draw_panel(panel)
    assert grid.shape == (7, 6)
    assert scale_names(grid) == [
        "depth [m], rooms (native)",
        "seen too near (−) or too far (+), with RMSE [m]",
    ]
    limits = {grid[row, column].images[0].get_clim() for row in range(1, 7) for column in (0, 2, 4)}
    assert limits == {panel.limits}
    errors = {grid[row, column].images[0].get_clim() for row in range(1, 7) for column in (1, 3, 5)}
    assert errors == {(-0.5, 0.5)}


def test_worst_cases_are_each_networks_own(run: Run) -> None:
    worst = pictures.worst_cases(run)
    assert [each.model for each in worst] == list(dict.fromkeys(run.cells["model"]))
    for each, record in zip(worst, pictures.representatives(run, pictured=True).values(), strict=True):
        samples = pictures.read_samples(run, record)
        assert each.rmse_m == max(samples.rmse(i) for i in range(len(samples.rgb)))
    grid = pictures.draw_worst(worst)
    assert grid.shape == (len(worst), 4)
    assert scale_names(grid)[0] == "depth [m], rooms (native)"
    assert [axes.texts[0].get_text() for axes in grid[:, 3]] == [f"{each.rmse_m:.2f}" for each in worst]


def test_differences_compare_the_images_that_both_have(run: Run, tmp_path: Path) -> None:
    run = load_run(shutil.copytree(run.folder.root, tmp_path / "run"))
    changed = next(record for record in run.records if record.recipe == "int8" and record.evaluation)
    path = run.folder.samples_path(changed.evaluation or "")
    with np.load(path) as file:
        kept = {name: values[::-1][:3] for name, values in file.items()}  # three of the four, in another order
    before = next(each for each in strips.differences(run) if each.model == changed.model and each.name == "int8")
    np.savez(path, **kept)
    after = next(each for each in strips.differences(run) if each.model == changed.model and each.name == "int8")
    np.testing.assert_array_equal(after.maps, before.maps[::-1][:3])


def test_cells_far_above_the_front_stand_at_the_upper_edge(run: Run) -> None:
    front = next(front for front in fronts(run.cells) if front.target == "cpu")
    far = front.cells.index[~front.cells["on_front"]][-1]
    cells = front.cells.assign(rmse_m=front.cells["rmse_m"].where(front.cells.index != far, 9.0))
    ax = plots.draw_front(replace(front, cells=cells))
    without = plots.draw_front(replace(front, cells=cells.drop(index=far)))
    assert ax.get_ylim() == without.get_ylim()  # the others fill the picture
    marks = {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}
    assert len(marks) == len(cells)
    assert marks[f"at-{cells.loc[far, 'id']}"].get_ydata() == [0.985]
    assert "⌃ 1 cell is off the picture, with an RMSE up to 9.00 m" in [text.get_text() for text in ax.texts]


def test_relative_error_ignores_invalid_depth() -> None:
    depth = np.array([[0, 2.0, 4.0]], dtype=np.float32)
    error = pictures.relative_error(np.array([[1, 3.0, 3.0]], dtype=np.float32), depth)
    np.testing.assert_allclose(error, [[np.nan, 0.5, -0.25]])


def test_a_truth_without_any_depth_is_still_drawn(run: Run) -> None:
    panel = pictures.panel(run)
    assert panel is not None
    grid = pictures.draw_panel(replace(panel, depth=np.zeros_like(panel.depth), limits=(0.0, 1.0)))
    assert grid[1, 1].texts == [] or not grid[1, 1].texts
