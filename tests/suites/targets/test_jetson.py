"""Measuring on a board over a real SSH connection; the board's commands are stand-ins with real formats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.board_steps import BoardCell, BoardProfile
from depthbench.suites.targets.boardfile import BoardEntry
from depthbench.suites.targets.jetson import measure, probe, unavailable
from depthbench.suites.targets.transport import BoardError

TINY = BoardProfile(rounds=1, seconds=1, frames=2, idle_s=1)


def run(files: list[Path], entry: BoardEntry | None, precision: str = "fp16") -> list[Outcome]:
    return measure([BoardCell(path, precision) for path in files], entry, TINY)


def changed(entry: BoardEntry, **values: Any) -> BoardEntry:
    return entry.model_copy(update=values)


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
    kind: str, version: str, pool: str, only: str, separate: bool, server: Any, board: Any, networks: list[Path]
) -> None:
    board.become(kind)
    first, second = run(networks, server.entry)
    for one in (first, second):
        assert one.reason is None
        assert one.latency is not None
        assert len(one.latency.samples_ms) == 120
        assert sorted(set(one.latency.samples_ms)) == pytest.approx([5 + i * 0.01 for i in range(7)])
        assert set(one.latency.details["blocks"]) == {0}
        build = one.latency.details["commands"]["build"].split()
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
        assert one.environment["board"] == "jetson-nano"
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


def test_on_the_board_itself(board: Any, networks: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in board.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    [one] = run(networks[:1], None)
    assert one.reason is None
    assert one.latency is not None
    assert board.is_as_before()
    assert not any("nvpmodel -m" in call for call in board.calls)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            "operator",
            "build: trtexec failed (code 1): [TRT] ModelImporter.cpp:773: While parsing node number 7 [GridSample ->",
        ),
        ("killed", "build: trtexec was killed by signal 9 (out of memory?)"),
        ("disk", "build: trtexec failed (code 1): Error writing engine: No space left on device"),
        ("hang", "build: trtexec was not done after 1 s"),
    ],
)
def test_a_failing_build_is_a_named_failure(
    fault: str, reason: str, server: Any, board: Any, networks: list[Path]
) -> None:
    board.fault(fault)
    for one in run(networks, changed(server.entry, build_limit_s=1)):
        assert one.latency is None
        assert one.reason is not None
        assert one.reason.startswith(reason)
    assert board.is_as_before()


def test_the_run_goes_on_with_the_next_cell(server: Any, networks: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "unknown-to-the-board.onnx"
    broken.write_bytes(networks[0].read_bytes() + b"\x12\x01x")  # another producer: another digest, no known output
    first, second = run([broken, networks[1]], server.entry)
    assert first.reason == "the board sent no output back for this cell"
    assert second.latency is not None


def test_a_hanging_timing(server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("time-hang")
    [one] = run(networks[:1], changed(server.entry, step_limit_s=1))
    assert one.reason == "timing: trtexec was not done after 2 s"
    assert board.is_as_before()


def test_a_wrong_output_is_a_failure(server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("wrong")
    [one] = run(networks[:1], server.entry)
    assert one.reason is not None
    assert "check: the engine's output differs from ONNX Runtime's by" in one.reason
    assert "more than the 2.0% allowed in fp16" in one.reason


def test_clocks_that_drop_are_flagged(server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("clocks")
    [one] = run(networks[:1], server.entry)
    assert one.latency is not None
    assert one.latency.flags == ["throttled"]
    assert one.latency.details["throttled"]["gpu_mhz"] == [614, 921]


@pytest.mark.parametrize(
    ("place", "doing"), [("build", "building the engine"), ("time", "timing it")], ids=["build", "time"]
)
def test_a_cut_connection(place: str, doing: str, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault(f"{place}-wait")

    def cut() -> None:
        board.wait_for(f"reached-{place}")
        board.fault("")
        server.cut()

    knife = threading.Thread(target=cut)
    knife.start()
    outcomes = run(networks, server.entry)
    knife.join()
    lost = [one.reason for one in outcomes if one.reason]
    assert len(lost) == 1
    assert lost[0].startswith("the connection was cut")
    assert lost[0].endswith(f", while {doing}")
    assert len([one for one in outcomes if one.latency]) == 1
    board.settles()


def test_a_connection_cut_during_the_push(
    server: Any, board: Any, networks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from depthbench.suites.targets.jetson import Session

    real: Callable[..., None] = Session.put
    cuts = iter([True])
    knives = []

    def put(self: Session, name: str, data: bytes, timeout: float) -> None:
        if next(cuts, False):
            part = Path(self.folder) / f"{name}.part"

            def cut() -> None:
                wait_until(lambda: part.is_file() and part.stat().st_size > 0)
                server.cut()

            knives.append(threading.Thread(target=cut))
            knives[0].start()
            data += b"\0" * 500_000_000  # long enough to be cut in its middle
        real(self, name, data, timeout)

    monkeypatch.setattr(Session, "put", put)
    first, second = run(networks, server.entry)
    knives[0].join()
    assert first.reason is not None
    assert first.reason.endswith(", while pushing the file")
    assert second.latency is not None
    board.settles()


def test_a_full_disk(server: Any, board: Any, networks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from depthbench.suites.targets.jetson import Session

    real: Callable[..., None] = Session.put

    def put(self: Session, name: str, data: bytes, timeout: float) -> None:
        full = Path(self.folder) / f"{name}.part"
        if not full.is_symlink() and name.endswith(".onnx"):
            full.symlink_to("/dev/full")
        real(self, name, data, timeout)

    monkeypatch.setattr(Session, "put", put)
    [one] = run(networks[:1], server.entry)
    assert one.reason is not None
    assert one.reason.startswith("the file could not be written to the board: ")
    assert one.reason.endswith("No space left on device")
    assert board.is_as_before()


def test_no_trtexec(server: Any, board: Any, networks: list[Path], tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("tegrastats", "nvpmodel", "jetson_clocks", "sudo"):
        (commands / name).symlink_to(Path(__file__).parent / "standins" / name)
    config = tmp_path / "sshd" / "config"
    config.write_text(config.read_text().replace(str(Path(__file__).parent / "standins"), str(commands)))
    server.process.send_signal(signal.SIGHUP)  # sshd reads its configuration again
    wait_until(lambda: unavailable(server.entry) is not None)
    assert unavailable(server.entry) == "there is no trtexec on the board (install TensorRT from its JetPack)"
    [one] = run(networks[:1], server.entry)
    assert one.reason == "there is no trtexec on the board"
    assert board.is_as_before()


def wait_until(true: Callable[[], bool]) -> None:
    import time

    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_second_client_waits_for_nobody(server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("build-wait")
    results: list[Outcome] = []
    first = threading.Thread(target=lambda: results.extend(run(networks[:1], changed(server.entry, build_limit_s=25))))
    first.start()
    board.wait_for("reached-build")
    assert probe(server.entry)["lock"] == "held"
    [second] = run(networks[1:], server.entry)
    assert second.reason is not None
    assert second.reason.startswith("another client is using the board (process ")
    first.join()
    assert results[0].reason == "build: trtexec was not done after 25 s"
    assert board.is_as_before()


def test_a_lock_whose_owner_died_is_taken_and_what_it_changed_is_restored(
    server: Any, board: Any, networks: list[Path]
) -> None:
    board.write("mode", "0\n")
    board.write("clocks", "locked\n")
    board.lock.mkdir()
    (board.lock / "owner").write_text("999999 5 this-boot\n")
    (board.lock / "mode").write_text("1\n")
    (board.lock / "clocks").write_text("dynamic\n")
    (board.lock / "locked").write_text("")
    [one] = run(networks[:1], server.entry)
    assert one.latency is not None
    assert board.is_as_before()


def test_kill_9_of_this_side_gives_the_board_back(server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("build-wait")
    code = (
        "import sys; from pathlib import Path\n"
        "from depthbench.suites.targets.boardfile import BoardEntry\n"
        "from depthbench.suites.targets.board_steps import BoardCell, BoardProfile\n"
        "from depthbench.suites.targets.jetson import measure\n"
        "entry = BoardEntry.model_validate_json(sys.argv[1])\n"
        "measure([BoardCell(Path(sys.argv[2]), 'fp16')], entry, BoardProfile(1, 1, 2, 1))\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code, server.entry.model_dump_json(), str(networks[0])])
    board.wait_for("reached-build")
    assert board.read("mode") == "0"
    assert board.read("clocks") == "locked"
    client.kill()
    client.wait()
    # the ssh processes of the killed client live on until the pipes to them are closed by its death
    board.settles()
    board.fault("")
    [one] = run(networks[:1], server.entry)
    assert one.latency is not None


def test_a_power_mode_that_is_not_taken(server: Any, board: Any, networks: list[Path]) -> None:
    [one] = run(networks[:1], changed(server.entry, power_mode=2))
    assert one.reason is not None
    assert one.reason.startswith("power mode 2 was not taken: NVPM WARN: Reboot required")
    [one] = run(networks[:1], changed(server.entry, power_mode=7))
    assert one.reason == "power mode 7 was not taken: NVPM ERROR: Error in power mode ID 7"
    assert board.is_as_before()


def test_int8_is_refused_on_a_nano(server: Any, networks: list[Path]) -> None:
    [one] = run(networks[:1], server.entry, "int8-trt")
    assert one.reason == "no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16"


def test_a_wrong_host_key(server: Any, networks: list[Path], tmp_path: Path) -> None:
    known = tmp_path / "sshd" / "known"
    other = (tmp_path / "sshd" / "user.pub").read_text()
    known.write_text(f"[127.0.0.1]:{server.entry.port} {other}")
    words = "its host key is not the one that is known: somebody else may answer for it"
    assert unavailable(server.entry) == words
    [one] = run(networks[:1], server.entry)
    assert one.reason == words
    known.write_text("")
    assert unavailable(server.entry) == "its host key is not known here; connect once with ssh and check it"


def test_a_board_that_is_not_there(server: Any, networks: list[Path]) -> None:
    server.process.kill()
    server.process.wait()
    assert unavailable(server.entry) == "connection refused"
    [one] = run(networks[:1], server.entry)
    assert one.reason == "connection refused"
    assert unavailable(changed(server.entry, host="no-such-board.invalid")) == "no such host"


@pytest.mark.parametrize(
    "name", ["; touch pwned", "$(touch pwned)", "`touch pwned`", "a b", "a\nb", "-oProxyCommand=x"]
)
def test_a_hostile_file_name_reaches_no_shell(name: str, server: Any, board: Any, networks: list[Path]) -> None:
    hostile = networks[0].with_name(f"{name}.onnx".replace("/", ""))
    hostile.write_bytes(networks[0].read_bytes())
    [one] = run([hostile], server.entry)
    assert one.latency is not None
    assert not list(board.folder.rglob("pwned*"))
    assert not (Path.home() / "pwned").exists()


def test_a_hostile_input_name_is_refused(server: Any, tmp_path: Path) -> None:
    import onnx

    from depthbench.suites.targets.board_steps import BoardCell

    path = tmp_path / "hostile.onnx"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,32,32] rgb) => (float[1,3,32,32] depth) { depth = Relu(rgb) }'
    )
    model.graph.input[0].name = model.graph.node[0].input[0] = "x;touch pwned"
    onnx.save(model, path)
    [one] = measure([BoardCell(path, "fp16")], server.entry, TINY)
    assert one.reason == "hostile.onnx: trtexec cannot be given the input name 'x;touch pwned'; use letters and digits"


def test_a_refused_key(server: Any, tmp_path: Path) -> None:
    (tmp_path / "sshd" / "authorized").write_text("")
    with pytest.raises(BoardError, match=r"^it refuses the key$"):
        probe(server.entry)


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
    assert (result["clock"], result["n"], result["flags"]) == ("device", 240, [])
    assert result["ratio"] == pytest.approx(1)
    assert result["different"] is False
    assert "--noTF32" in " ".join(board.calls)
    assert board.is_as_before()
