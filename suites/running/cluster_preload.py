"""Loaded by the worker processes of a cluster that is started here (:mod:`depthbench.suites.running.local_cluster`)."""

from __future__ import annotations

import signal


def dask_setup(_: object) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
