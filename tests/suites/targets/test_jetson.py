"""Measuring on a board over a real SSH connection; the board's commands are stand-ins with real formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.targets.board_steps import BoardCell, BoardProfile
from depthbench.suites.targets.jetson import measure, probe, unavailable
from tests.suites.targets.conftest import MODELS


def test_probe(server: Any, board: Any) -> None:
    found = probe(server.entry)
    assert found["model"] == "NVIDIA Jetson Nano Developer Kit"
    assert found["l4t"] == "R32.6.1"
    assert found["tensorrt"] == "8201"
    assert found["power_modes"] == "0:MAXN 1:5W"
    assert (found["power_mode"], found["power_mode_id"]) == ("5W", "1")
    assert (found["gpu_hz"], found["temperature.GPU-therm"]) == ("921600000", "36500")
    assert (found["root"], found["lock"]) == ("yes", "free")
    assert int(found["free_mb"]) > 0
    assert unavailable(server.entry) is None
    assert not (board.folder / "work").exists()


@pytest.mark.parametrize(
    ("kind", "version", "pool", "only", "separate"),
    [
        ("nano", "8201", "--workspace=1024", "--buildOnly", False),
        ("xavier", "8502", "--memPoolSize=workspace:1024", "--buildOnly", True),
        ("orin", "100300", "--memPoolSize=workspace:1024", "--skipInference", True),
    ],
)
def test_measured_with_the_flags_of_its_tensorrt(
    on_board: Any,
    kind: str,
    version: str,
    pool: str,
    only: str,
    separate: bool,
    server: Any,
    board: Any,
    networks: list[Path],
) -> None:
    board.become(kind)
    entry = server.entry.model_copy(update={"board": MODELS[kind][-1]})
    first, second = on_board(networks, entry)
    for one in (first, second):
        assert one.reason is None
        assert one.latency is not None
        assert len(one.latency.samples_ms) == 120
        assert sorted(set(one.latency.samples_ms)) == pytest.approx([5 + i * 0.01 for i in range(7)])
        assert set(one.latency.details["blocks"]) == {0}
        build = one.latency.details["commands"]["build-0"].split()
        assert build[-3:] == ["--fp16", pool, only]
        timing = one.latency.details["commands"]["time"].split()
        assert timing[3:6] == ["--warmUp=1000", "--duration=1", "--iterations=10"]
        assert ("--separateProfileRun" in timing) is separate
        assert {"--noDataTransfers", "--useSpinWait", "--useCudaGraph"} <= set(timing)
        assert one.latency.details["output_deviation"] < 1e-5
        assert one.latency.details["energy_mj"] == pytest.approx((1750 + 99 * 40) * 5.03 / 1e3)
        assert one.latency.details["idle_power_w"] == 1.75
        assert one.latency.details["gpu_mhz"][0] == 921
        assert one.latency.flags == []
        assert set(one.latency.details["emc_mhz"]) == {2133 if kind == "orin" else 1600}
        assert one.environment["board"] == entry.board
        assert one.environment["board_facts"]["tensorrt"] == version
    order = [call.split()[1] for call in board.calls if "--exportTimes" in call]
    assert order == order[::-1]
    assert len(order) == 4
    assert board.is_as_before()
    assert [call for call in board.calls if not call.startswith("trtexec")][:2] == [
        "nvpmodel -m 0",
        f"jetson_clocks --store {board.lock}/clocks",
    ]
    assert list((board.folder / "work").iterdir()) == []


def test_another_board_than_its_entry_says(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.become("orin")
    why = "this board is not a jetson-nano: its device tree says NVIDIA Jetson Orin Nano Developer Kit"
    assert unavailable(server.entry) == why
    [one] = on_board(networks[:1], server.entry)
    assert (one.latency, one.reason) == (None, why)
    assert board.is_as_before()


def test_a_tensorrt_that_is_not_known(server: Any, board: Any) -> None:
    board.write("version", "110000")
    assert unavailable(server.entry) == "TensorRT v110000 is not supported (8.0 to 10.x)"


def test_what_was_not_put_back_is_said(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("keeps-mode")
    with pytest.warns(UserWarning, match="the board: the power mode was not put back to 1"):
        [one] = on_board(networks[:1], server.entry)
    assert one.latency is not None
    assert (board.read("mode"), board.read("clocks")) == ("0", "dynamic")


def test_work_folders_of_the_dead_go_and_nothing_else(
    on_board: Any, server: Any, board: Any, networks: list[Path]
) -> None:
    board.write("work/job-0123456789ab/board.sh", "")
    board.write("work/job-application.txt", "")
    board.write("work/job-abcdefabcdef/mine", "")
    on_board(networks[:1], server.entry)
    assert sorted(path.name for path in (board.folder / "work").iterdir()) == [
        "job-abcdefabcdef",
        "job-application.txt",
    ]


def test_on_the_board_itself(
    on_board: Any, board: Any, networks: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in board.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    [one] = on_board(networks[:1], None)
    assert one.reason is None
    assert one.latency is not None
    assert board.is_as_before()
    assert not any("nvpmodel -m" in call for call in board.calls)


def test_int8_is_refused_on_a_nano(on_board: Any, server: Any, networks: list[Path]) -> None:
    [one] = on_board(networks[:1], server.entry, "int8-trt")
    assert one.reason == "no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16"


def test_the_command(server: Any, board: Any, networks: list[Path], tmp_path: Path) -> None:
    """depthbench measure on a board of the user's file, against another file, in JSON."""
    boards = tmp_path / "boards.yaml"
    boards.write_text(json.dumps({"mine": server.entry.model_dump()}))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from depthbench.suites.cli import main; main()",
            "measure",
            str(networks[0]),
            "--against",
            str(networks[1]),
            "--target",
            "mine",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DEPTHBENCH_BOARDS": str(boards)},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["median_ms"] == pytest.approx(5.03)
    assert (result["clock"], result["n"], result["flags"]) == ("device", 360, [])
    assert result["ratio"] == pytest.approx(1)
    assert result["different"] is False
    assert result["ratio_ci999"] == [1, 1]  # the stand-in's engines do not differ
    assert "--noTF32" in " ".join(board.calls)
    assert board.is_as_before()


def test_an_engine_is_built_three_times_and_the_spread_is_recorded(
    server: Any, board: Any, networks: list[Path]
) -> None:
    board.write("uneven", "")
    cells = [BoardCell(path, "fp16") for path in networks]
    first, second = measure(cells, server.entry, BoardProfile(rounds=1, seconds=1, frames=5, idle_s=1))
    for one in (first, second):
        assert one.latency is not None, one.reason
        details = one.latency.details
        assert len(set(details["engine_sha256"])) == 3
        assert details["engine_of_block"] == [0, 1, 2]
        assert set(details["blocks"]) == {0, 1, 2}
        assert details["engine_medians_ms"] == pytest.approx([5.03, 5.53, 6.03])
        assert details["engine_spread"] == pytest.approx(1 / 5.03)
        assert set(details["commands"]) == {"build-0", "build-1", "build-2", "time"}
        assert details["frames_checked"] == 5
    outputs = [call for call in board.calls if "--exportOutput" in call]
    assert len(outputs) == 2 * (5 + 4 + 4)


def test_the_user_may_ask_for_fewer_builds(server: Any, board: Any, networks: list[Path]) -> None:
    entry = server.entry.model_copy(update={"engine_builds": 1})
    [one] = measure([BoardCell(networks[0], "fp16")], entry, BoardProfile(rounds=1, seconds=1, frames=2, idle_s=1))
    assert one.latency is not None
    assert one.latency.details["engine_of_block"] == [0]
    assert len([call for call in board.calls if "--saveEngine" in call]) == 1


def test_a_gpu_that_works_before_the_measurement_is_flagged(
    on_board: Any, server: Any, board: Any, networks: list[Path]
) -> None:
    board.write("running", "")
    [one] = on_board(networks[:1], server.entry)
    assert one.latency is not None
    assert one.latency.details["idle_gpu_load"] > 10
    assert "contaminated" in one.latency.flags
