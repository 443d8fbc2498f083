"""A board that is not there: OpenSSH's own server on loopback, and stand-ins for the commands of a Jetson."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from onnx import TensorProto, helper

from depthbench.suites.models import file_sha256
from depthbench.suites.targets.board_results import Outcome
from depthbench.suites.targets.board_steps import BoardCell, BoardProfile, frames
from depthbench.suites.targets.boardfile import BoardEntry
from depthbench.suites.targets.jetson import measure

STANDINS = Path(__file__).parent / "standins"
MODELS = {
    "nano": ("NVIDIA Jetson Nano Developer Kit", "32", "6.1", "8201", "jetson-nano"),
    "xavier": ("NVIDIA Jetson Xavier NX Developer Kit", "35", "4.1", "8502", "jetson-xavier-nx"),
    "orin": ("NVIDIA Jetson Orin Nano Developer Kit", "36", "4.3", "100300", "jetson-orin-nano-super"),
}
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def convolution(path: Path, weight: float = 1.0, size: int = 32) -> Path:
    """A network of one convolution, (1, 3, size, size) → (1, 1, size, size)."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, (1, 3, 3, 3), np.full(27, weight, np.float32))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["rgb", "w"], ["depth"], pads=[1, 1, 1, 1])],
        "g",
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, (1, 3, size, size))],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, (1, 1, size, size))],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@dataclass
class StandIn:
    """A folder that is the board: its commands' state, its file system root, and its place for temporary files."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process on the board sees."""
        return {
            "PATH": f"{STANDINS}:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),  # the shell's start-up files are not those of whoever runs the tests
            "STANDIN": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "DEPTHBENCH_SYSROOT": str(self.folder / "root"),
        }

    @property
    def lock(self) -> Path:
        return self.folder / "tmp" / "depthbench-board.lock"

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text().strip() if path.is_file() else ""

    @property
    def calls(self) -> list[str]:
        return self.read("calls").splitlines()

    def become(self, board: str) -> None:
        """Be a Nano with JetPack 4.6, a Xavier NX with 5.1 or an Orin Nano with 6.2."""
        model, release, revision, version, _ = MODELS[board]
        for name, text in {
            "board": board,
            "version": version,
            "mode": "1\n",
            "clocks": "dynamic\n",
            "root/proc/device-tree/model": f"{model}\0",
            "root/etc/nv_tegra_release": f"# R{release} (release), REVISION: {revision}, GCID: 27863751, BOARD: t210ref,"
            " EABI: aarch64, DATE: Mon Jul 26 19:20:30 UTC 2021\n",
            "root/etc/nvpmodel.conf": "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=MAXN >\n"
            "CPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=5W >\n< PM_CONFIG DEFAULT=0 >\n",
            "root/sys/class/devfreq/57000000.gpu/cur_freq": "921600000\n",
            "root/sys/class/devfreq/57000000.gpu/max_freq": "921600000\n",
            "root/sys/class/thermal/thermal_zone0/type": "GPU-therm\n",
            "root/sys/class/thermal/thermal_zone0/temp": "36500\n",
            "root/sys/class/hwmon/hwmon1/oc1_event_cnt": "0\n",
        }.items():
            self.write(name, text)
        (self.folder / "tmp").mkdir(exist_ok=True)

    def fault(self, name: str) -> None:
        self.write("fault", name)

    def knows(self, *files: Path) -> None:
        """Have the stand-in's engines of these ONNX files give what ONNX Runtime gives."""
        for path in files:
            session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            info = session.get_inputs()[0]
            for image in frames(*info.shape[2:], 16):
                [depth] = session.run(None, {info.name: image})
                values = " ".join(f"{value:.6g}," for value in depth.ravel())[:-1]
                shape = "x".join(map(str, depth.shape))
                text = f'[\n  {{ "name" : "depth"\n  , "dimensions" : "{shape}"\n  , "values" : [ {values} ]\n  }}\n]\n'
                assert json.loads(text)
                place = f"outputs/{file_sha256(path)}"
                self.write(f"{place}/{hashlib.sha256(image.tobytes()).hexdigest()}.json", text)
                self.write(f"{place}/wrong.json", text)  # of the last frame, for every frame

    def wait_for(self, name: str, seconds: float = 30) -> None:
        """Until the board's commands have made a file."""
        end = time.monotonic() + seconds
        while not (self.folder / name).exists():
            assert time.monotonic() < end, f"{name} did not appear"
            time.sleep(0.02)

    def is_as_before(self) -> bool:
        """Lock released, power mode and clocks as they were."""
        return not self.lock.exists() and self.read("mode") == "1" and self.read("clocks") == "dynamic"

    def settles(self, seconds: float = 20) -> None:
        """The board comes back to what it was, with nothing of ours running on it."""
        end = time.monotonic() + seconds
        while not self.is_as_before():
            assert time.monotonic() < end, (self.lock.exists(), self.read("mode"), self.read("clocks"))
            time.sleep(0.05)


@dataclass
class Server:
    """A running sshd."""

    process: subprocess.Popen[bytes]
    entry: BoardEntry

    def cut(self) -> None:
        """Cut all connections as a fallen network would; the server goes on listening."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "sshd" in child.name():
                    child.kill()


@pytest.fixture
def board(tmp_path: Path) -> StandIn:
    """A stand-in for a Jetson Nano with JetPack 4.6."""
    made = StandIn(tmp_path / "board")
    made.become("nano")
    return made


@pytest.fixture
def server(board: StandIn, tmp_path: Path) -> Iterator[Server]:
    """OpenSSH's server for the stand-in board, with keys of its own."""
    if SSHD is None:
        pytest.skip("OpenSSH's server is not installed (apt-get install openssh-server)")
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    variables = " ".join(f"{name}={value}" for name, value in board.environment.items())
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSetEnv {variables}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd refuses to start as root without it
    process = subprocess.Popen([SSHD, "-D", "-E", str(folder / "log"), "-f", str(folder / "config")])
    end = time.monotonic() + 10
    while "Server listening" not in (log.read_text() if (log := folder / "log").exists() else ""):
        assert time.monotonic() < end, "sshd did not start"
        time.sleep(0.02)
    entry = BoardEntry(
        host="127.0.0.1",
        port=port,
        user=getpass.getuser(),
        key=str(folder / "user"),
        known_hosts=str(folder / "known"),
        board="jetson-nano",
        power_mode=0,
        lock_clocks=True,
        folder=str(board.folder / "work"),
    )
    yield Server(process, entry)
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()


@pytest.fixture
def networks(board: StandIn, tmp_path: Path) -> list[Path]:
    """Two networks that the stand-in's engines know."""
    files = [convolution(tmp_path / "a.onnx"), convolution(tmp_path / "b.onnx", 0.5)]
    board.knows(*files)
    return files


TINY = BoardProfile(rounds=1, seconds=1, frames=2, idle_s=1, builds=1)


@pytest.fixture
def on_board() -> Callable[..., list[Outcome]]:
    """Measure files on a board, as short as can be."""

    def run(files: list[Path], entry: BoardEntry | None, precision: str = "fp16") -> list[Outcome]:
        return measure([BoardCell(path, precision) for path in files], entry, TINY)

    return run
