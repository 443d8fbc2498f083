"""What can go wrong on a board and on the way to it: each fault has its name, and the board is given back as it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from depthbench.suites.targets import board_session
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.board_session import Session
from depthbench.suites.targets.jetson import probe, unavailable
from depthbench.suites.targets.transport import Ssh


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
    on_board: Any, fault: str, reason: str, server: Any, board: Any, networks: list[Path]
) -> None:
    board.fault(fault)
    for one in on_board(networks, server.entry.model_copy(update={"build_limit_s": 1})):
        assert one.latency is None
        assert one.reason is not None
        assert one.reason.startswith(reason)
    assert board.is_as_before()


def test_the_run_goes_on_with_the_next_cell(on_board: Any, server: Any, networks: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "unknown-to-the-board.onnx"
    broken.write_bytes(networks[0].read_bytes() + b"\x12\x01x")  # another producer: another digest, no known output
    first, second = on_board([broken, networks[1]], server.entry)
    assert first.reason == "the board sent no output back for this cell"
    assert second.latency is not None


def test_a_hanging_timing(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("time-hang")
    [one] = on_board(networks[:1], server.entry.model_copy(update={"step_limit_s": 1}))
    assert one.reason == "timing: trtexec was not done after 2 s"
    assert board.is_as_before()


def test_a_wrong_output_is_a_failure(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("wrong")
    [one] = on_board(networks[:1], server.entry)
    assert one.reason is not None
    assert "check: the engine's output differs from ONNX Runtime's by" in one.reason
    assert "more than the 2.0% allowed in fp16" in one.reason
    assert board.is_as_before()


def test_clocks_that_drop_are_flagged(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("clocks")
    [one] = on_board(networks[:1], server.entry)
    assert one.latency is not None
    assert one.latency.flags == ["throttled"]
    assert one.latency.details["throttled"]["gpu_mhz"] == [614, 921.6]
    assert board.is_as_before()


@pytest.mark.parametrize(
    ("place", "doing"),
    [("build", "building the engine"), ("check", "checking its output"), ("time", "timing it")],
    ids=["build", "check", "time"],
)
def test_a_cut_connection(on_board: Any, place: str, doing: str, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault(f"{place}-wait")

    def cut() -> None:
        board.wait_for(f"reached-{place}")
        board.fault("")
        server.cut()

    knife = threading.Thread(target=cut)
    knife.start()
    outcomes = on_board(networks, server.entry)
    knife.join()
    lost = [one.reason for one in outcomes if one.reason]
    assert len(lost) == 1
    assert lost[0].startswith("the connection was cut")
    assert lost[0].endswith(f", while {doing}")
    assert len([one for one in outcomes if one.latency]) == 1
    board.settles()


def test_a_connection_cut_during_the_push(
    on_board: Any, server: Any, board: Any, networks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    first, second = on_board(networks, server.entry)
    knives[0].join()
    assert first.reason is not None
    assert first.reason.endswith(", while pushing the file")
    assert second.latency is not None
    board.settles()


def test_a_full_disk(
    on_board: Any, server: Any, board: Any, networks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = Session.put

    def put(self: Session, name: str, data: bytes, timeout: float) -> None:
        full = Path(self.folder) / f"{name}.part"
        if not full.is_symlink() and name.endswith(".onnx"):
            full.symlink_to("/dev/full")
        real(self, name, data, timeout)

    monkeypatch.setattr(Session, "put", put)
    [one] = on_board(networks[:1], server.entry)
    assert one.reason is not None
    assert one.reason.startswith("the file could not be written to the board: ")
    assert one.reason.endswith("No space left on device")
    assert board.is_as_before()


def test_no_trtexec(on_board: Any, server: Any, board: Any, networks: list[Path], tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("tegrastats", "nvpmodel", "jetson_clocks", "sudo"):
        (commands / name).symlink_to(Path(__file__).parent / "standins" / name)
    config = tmp_path / "sshd" / "config"
    config.write_text(config.read_text().replace(str(Path(__file__).parent / "standins"), str(commands)))
    server.process.send_signal(signal.SIGHUP)  # sshd reads its configuration again
    words = "there is no trtexec on the board (install TensorRT from its JetPack)"
    wait_until(lambda: unavailable(server.entry) == words)
    [one] = on_board(networks[:1], server.entry)
    assert one.reason == "there is no trtexec on the board"
    assert board.is_as_before()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_second_client_waits_for_nobody(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("build-pause")
    results: list[Outcome] = []
    first = threading.Thread(target=lambda: results.extend(on_board(networks[:1], server.entry)))
    first.start()
    board.wait_for("reached-build")
    assert probe(server.entry)["lock"] == "held"
    [second] = on_board(networks[1:], server.entry)
    assert second.reason is not None
    assert second.reason.startswith("another client is using the board (process ")
    board.fault("")
    first.join()
    assert results[0].latency is not None, results[0].reason
    assert board.is_as_before()


def test_a_lock_whose_owner_died_is_taken_and_what_it_changed_is_restored(
    on_board: Any, server: Any, board: Any, networks: list[Path]
) -> None:
    board.write("mode", "0\n")
    board.write("clocks", "locked\n")
    board.lock.mkdir()
    (board.lock / "owner").write_text("999999 5 this-boot\n")
    (board.lock / "mode").write_text("1\n")
    (board.lock / "clocks").write_text("dynamic\n")
    (board.lock / "locked").write_text("")
    [one] = on_board(networks[:1], server.entry)
    assert one.latency is not None
    assert board.is_as_before()


def test_a_board_that_is_slow_to_note_a_heartbeat_keeps_the_hold(
    server: Any, board: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_session, "HEARTBEAT_S", 1)
    board.write("slow-date", "")
    transport = Ssh(server.entry)
    with Session(transport, server.entry, "slow") as session:
        time.sleep(8)  # some looks at the heartbeat, each while the next one is being noted
        assert session.alive
        assert board.lock.is_dir()
        (board.folder / "slow-date").unlink()
    transport.close()
    board.settles()


def test_kill_9_of_this_side_gives_the_board_back(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    board.fault("build-wait")
    code = (
        "import sys; from pathlib import Path\n"
        "from depthbench.suites.targets.boardfile import BoardEntry\n"
        "from depthbench.suites.targets.board_steps import BoardCell, BoardProfile\n"
        "from depthbench.suites.targets.jetson import measure\n"
        "entry = BoardEntry.model_validate_json(sys.argv[1])\n"
        "measure([BoardCell(Path(sys.argv[2]), 'fp16')], entry, BoardProfile(1, 1, 2, 1, 1))\n"
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
    [one] = on_board(networks[:1], server.entry)
    assert one.latency is not None


def test_a_power_mode_that_is_not_taken(on_board: Any, server: Any, board: Any, networks: list[Path]) -> None:
    [one] = on_board(networks[:1], server.entry.model_copy(update={"power_mode": 2}))
    assert one.reason is not None
    assert one.reason.startswith("power mode 2 was not taken: NVPM WARN: Reboot required")
    [one] = on_board(networks[:1], server.entry.model_copy(update={"power_mode": 7}))
    assert one.reason == "power mode 7 was not taken: NVPM ERROR: Error in power mode ID 7"
    assert board.is_as_before()
