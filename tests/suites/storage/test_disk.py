"""A full disk is told from other faults, in one line."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from depthbench.suites.cli.app import invoke
from depthbench.suites.storage import caches, disk
from depthbench.suites.storage.disk import FullDiskError, reserve, writable, writable_file, writing_to

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def line(folder: Path) -> str:
    return (
        f"{folder}: no space left on its disk; what was finished is kept: make room (depthbench cache gc) and run the same "
        "command again to go on"
    )


def library(path: Path) -> None:
    """A library that hides why it failed."""
    try:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))
    except OSError:
        raise ValueError("of a library") from None


def test_whatever_a_full_disk_causes_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(FullDiskError) as caught, writing_to(tmp_path):
        raise NO_SPACE
    assert str(caught.value) == line(tmp_path)
    with pytest.raises(FullDiskError) as caught, writing_to(tmp_path):
        raise RuntimeError("the exporter failed") from NO_SPACE
    assert str(caught.value) == line(tmp_path)
    with pytest.raises(FullDiskError) as caught, writing_to(tmp_path):
        library(tmp_path / "below" / "file")
    assert str(caught.value) == line(tmp_path / "below")


def test_it_is_said_once_with_the_innermost_folder_and_may_be_sent(tmp_path: Path) -> None:
    with pytest.raises(FullDiskError) as caught, writing_to(tmp_path), writing_to(tmp_path / "in"):
        raise NO_SPACE
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is FullDiskError
    assert str(again) == line(tmp_path / "in")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError) as caught, writing_to(tmp_path / "not" / "there"):
        raise error
    assert caught.value is error


def test_an_error_without_a_reason_on_a_disk_with_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=100, total=10**9))
    with pytest.raises(FullDiskError), writing_to(tmp_path):
        raise RuntimeError("could not serialize")
    with pytest.raises(KeyboardInterrupt), writing_to(tmp_path):
        raise KeyboardInterrupt


@pytest.mark.parametrize("error", [ValueError("of the user's input"), OSError(errno.EROFS, "Read-only file system")])
def test_what_says_itself_what_is_wrong_is_not_put_down_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=0, total=1))
    with pytest.raises(type(error)) as caught, writing_to(tmp_path):
        raise error
    assert caught.value is error


def test_what_has_no_size_is_not_full() -> None:
    with pytest.raises(RuntimeError, match=r"^could not serialize$"), writing_to(Path("/proc/depthbench")):
        raise RuntimeError("could not serialize")


def test_what_can_be_written_and_what_cannot(tmp_path: Path) -> None:
    assert writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert writable_file(tmp_path / "c" / "d.json") == tmp_path / "c" / "d.json"
    assert list((tmp_path / "c").iterdir()) == []
    (tmp_path / "file").write_text("")
    for path, fault in (
        (tmp_path / "file" / "below", "cannot be written (Not a directory)"),
        (Path("/proc/depthbench"), "cannot be written (No such file or directory)"),
    ):
        for check in (writable, writable_file):
            with pytest.raises(ValueError, match=re.escape(f"{path / 'x'}: {fault}")):
                check(path / "x")
    with pytest.raises(ValueError, match=r"file: not a folder$"):
        writable(tmp_path / "file")
    with pytest.raises(ValueError, match=r"a: is a folder, not a file$"):
        writable_file(tmp_path / "a")


def test_a_command_ends_with_the_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise FullDiskError(line(Path("/there")))

    monkeypatch.setattr(caches, "contents", full)
    assert invoke(["cache", "ls"]) == 2
    assert capsys.readouterr().err == f"depthbench: {line(Path('/there'))}\n"


def test_room_is_reserved_before_a_file_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20
    reserve(path)
    assert path.stat().st_blocks * 512 >= 1 << 20

    from depthbench.suites.data import open_dataset
    from depthbench.suites.training.data import decoded

    for i in range(2):
        Image.fromarray(np.full((48, 64, 3), 9, np.uint8)).save(tmp_path / f"{i}.jpg")
        Image.fromarray(np.full((48, 64), 2000, np.uint16)).save(tmp_path / f"{i}.png")
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))

    def full(*_: int) -> None:
        raise NO_SPACE

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FullDiskError) as caught:
        decoded(open_dataset("folder", "test", root=tmp_path))
    assert str(caught.value) == line(tmp_path / "cache" / "decoded")
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []
