"""The command line ``depthbench``. Importing it loads no torch."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point: exit code 0 done, 1 something in the run failed, 2 bad input (one line on stderr), 130 interrupted."""
    from depthbench.suites.cli.app import invoke

    sys.exit(invoke(sys.argv[1:]))
