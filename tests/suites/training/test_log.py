"""What a training tells: its log, the progress bar, TensorBoard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from depthbench.suites.training.log import LOG, Status, append, progress_bar, tensorboard, trim

STATUS = Status(8, 16, 0.5, 0.1, 1.0, "32x32", 12.5, 3.0)


def test_progress_bar_takes_every_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    with progress_bar("tiny[/x]") as report:
        report(STATUS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tiny[/x]" in captured.err
    assert "8/16" in captured.err


def test_without_a_terminal_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("tiny") as report:
        assert capsys.readouterr().err == ""
        for samples in range(4, 404, 4):
            report(replace(STATUS, samples=samples, total=400))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{n}/400" for n in (4, *range(40, 404, 40))]
    assert lines[0] == "tiny: 4/400 samples, loss 0.5000  12.5 images/s at 32x32"


def test_a_log_is_trimmed_to_its_checkpoint(tmp_path: Path) -> None:
    for samples in (8, 16, 24):
        append(tmp_path, Status(samples, 32, 0.5, 0.1, 1.0, "32x32", 12.5, 3.0))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"samples": 32, "to')
    trim(tmp_path, 16)
    assert [json.loads(line)["samples"] for line in (tmp_path / LOG).read_text().splitlines()] == [8, 16]


def test_another_programs_log_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"level": "info"}\n')
    with pytest.raises(ValueError, match=rf"^{tmp_path / LOG}: not the log of a training; use another folder"):
        trim(tmp_path, 16)


def test_a_checkpoint_held_back_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("tiny") as report:
        for samples, held_back in ((4, False), (5, True), (6, True), (7, False)):
            report(replace(STATUS, samples=samples, total=400, held_back=held_back))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["4/400", "5/400", "7/400"]
    assert ["no checkpoint" in line for line in lines] == [False, True, False]


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for samples, loss in ((8, 0.5), (16, 0.4)):
        with tensorboard(tmp_path) as report:
            report(Status(samples, 16, loss, 0.1, 1.0, "32x32", 12.5, 3.0))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["gradient_norm", "images_per_s", "loss", "lr"]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("loss")] == [(8, 0.5), (16, 0.4)]


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with tensorboard(tmp_path) as report:
        report(STATUS)
    assert list(tmp_path.iterdir()) == []
