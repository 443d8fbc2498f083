"""What is common to the tests of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from depthbench.suites.cli.app import invoke


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str, Path], list[str]]:
    """Run a command line in a folder; it ends with code 2 and nothing on stdout. The lines on stderr."""

    def run(command: str, folder: Path) -> list[str]:
        monkeypatch.chdir(folder)
        code = invoke(command.split())
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        return err.strip().splitlines()

    return run
