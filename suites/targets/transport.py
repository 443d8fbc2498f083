"""Commands on a board: over the system's SSH client, or on this machine when it is the board.

The SSH client is OpenSSH's own, so that keys, agents, jump hosts and host keys are those that the user's ``ssh`` has. Host
keys are verified strictly and nothing ever asks a question. The words of a command are quoted one by one for the shell that
the board's SSH server starts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from depthbench.suites.targets.boardfile import BoardEntry

SSH_FAILED = 255


class BoardError(Exception):
    """A step on a board that was not done; the text is the reason."""


class ConnectionLostError(BoardError):
    """The board cannot be reached, or the connection was cut."""


class BoardBusyError(BoardError):
    """Another client is using the board."""


class Transport(Protocol):
    """Where commands run."""

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """A long command with pipes for all three streams; what ends with its standard input."""
        ...

    def run(self, command: Sequence[str], given: bytes = b"", timeout: float | None = None) -> bytes:
        """What a command prints; :class:`BoardError` with its reason when it fails."""
        ...


def reason(stderr: bytes) -> str:
    """The last line that names a reason, else the last line."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    named = [line.removeprefix("reason: ") for line in lines if line.startswith("reason: ")]
    return (named or lines or ["no reason was given"])[-1][:400]


def _finish(done: subprocess.CompletedProcess[bytes]) -> bytes:
    if done.returncode == 43:
        raise BoardBusyError(reason(done.stderr))
    if done.returncode:
        raise BoardError(reason(done.stderr))
    return done.stdout


@dataclass(frozen=True)
class Local:
    """This machine."""

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """See :class:`Transport`; in a session of its own, so that Ctrl-C here does not reach it before it can clean up."""
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=Path.home(), start_new_session=True)

    def run(self, command: Sequence[str], given: bytes = b"", timeout: float | None = None) -> bytes:
        """See :class:`Transport`."""
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, check=False, timeout=timeout, cwd=Path.home()
            )
        except subprocess.TimeoutExpired:
            raise BoardError(f"no answer after {timeout:.0f} s") from None
        return _finish(done)


@dataclass(frozen=True)
class Ssh:
    """A board over SSH. The first command's connection is shared by those that follow while it lasts."""

    entry: BoardEntry
    sockets: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dbench-")))

    def arguments(self, command: Sequence[str], *, master: bool = False) -> list[str]:
        """The command line of the SSH client."""
        entry = self.entry
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "RequestTTY": "no",
            "ControlMaster": "yes" if master else "no",
            "ControlPath": str(self.sockets / "%C"),
            "LogLevel": "ERROR",
        }
        if entry.key is not None:
            options |= {"IdentityFile": str(Path(entry.key).expanduser()), "IdentitiesOnly": "yes"}
        if entry.known_hosts is not None:
            files = str(Path(entry.known_hosts).expanduser())
            options |= {"UserKnownHostsFile": files, "GlobalKnownHostsFile": "/dev/null"}
        user = ["-l", entry.user] if entry.user else []
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={_option(value)}")]
        return ["ssh", *flags, "-p", str(entry.port), *user, "--", entry.host, shlex.join(command)]

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """See :class:`Transport`."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.arguments(command, master=True), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )

    def run(self, command: Sequence[str], given: bytes = b"", timeout: float | None = None) -> bytes:
        """See :class:`Transport`; :class:`ConnectionLostError` when it is the connection that fails."""
        try:
            done = subprocess.run(
                self.arguments(command), input=given, capture_output=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise ConnectionLostError(f"no answer after {timeout:.0f} s") from None
        if done.returncode == SSH_FAILED or done.returncode < 0:
            raise ConnectionLostError(ssh_reason(done.stderr))
        return _finish(done)

    def close(self) -> None:
        """Forget the shared connection's socket."""
        shutil.rmtree(self.sockets, ignore_errors=True)


def _option(value: str) -> str:
    """An option's value as ssh's own parser reads it: quoted when it holds a space."""
    return f'"{value}"' if " " in value else value


def ssh_reason(stderr: bytes) -> str:
    """Why there is no connection, in words, from what the SSH client says."""
    text = " ".join(stderr.decode("utf-8", "replace").split())
    known = {
        "IDENTIFICATION HAS CHANGED": "its host key is not the one that is known: somebody else may answer for it",
        "Host key verification failed": "its host key is not known here; connect once with ssh and check it",
        "Permission denied": "it refuses the key",
        "Connection refused": "connection refused",
        "Could not resolve": "no such host",
        "Network is unreachable": "the network is unreachable",
        "No route to host": "no route to the host",
        "timed out": "no answer",
        "Operation timed out": "no answer",
    }
    for sign, words in known.items():
        if sign in text:
            return words
    return f"the connection was cut ({text[:200]})" if text else "the connection was cut"


def ssh_missing() -> str | None:
    """Why there is no SSH from here, or None."""
    return (
        None if shutil.which("ssh", path=os.environ.get("PATH")) else "there is no ssh command here (OpenSSH's client)"
    )
