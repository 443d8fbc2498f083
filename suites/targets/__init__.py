"""Targets: the devices that a network is measured on, or predicted for.

A target has a kind (which decides the precision that a recipe is deployed in, see ``Recipe.precision``), the precisions
it can run, and a ``probe`` that says why it is not available here. A target that is not there is a named skip. This
module imports nothing heavy; the code that measures is in the modules beside it.

``TARGETS`` holds the built-in targets, those of installed packages (entry points of the group ``depthbench.targets``, each a
:class:`Target` with a ``measure`` of its own), and the boards of the user's file (:mod:`.boardfile`). A suite's own boards are
added where its cells are made (:class:`depthbench.suites.cells.Lookups`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from depthbench.suites.targets.boardfile import BoardEntry


@dataclass(frozen=True)
class Target:
    """A row of the target table.

    ``refuses``: precisions that the device cannot run, each with the reason. ``opset``: of the ONNX files it is given.
    ``probe``: None when the target can be used here, else the reason why not. ``board``: how the board is reached; None for
    this machine. ``measure``: of a target from another package, called like :func:`.measuring.measure_group` without the
    target. ``of_suite``: the board stands in a suite, so that other processes cannot find it by its name.
    """

    name: str
    kind: Literal["cpu", "cuda", "board"]
    how: Literal["measured", "predicted"]
    summary: str
    probe: Callable[[], str | None]
    threads: Literal["one", "all"] | None = None
    opset: int = 17
    refuses: Mapping[str, str] = field(default_factory=dict)
    board: BoardEntry | None = None
    measure: Callable[..., Any] | None = None
    of_suite: bool = False


def _available() -> str | None:
    return None


def _cuda() -> str | None:
    from depthbench.suites.targets.desktop_cuda import unavailable

    return unavailable()


def _jetson() -> str | None:
    if not Path("/etc/nv_tegra_release").is_file():
        return "this machine is not a Jetson (there is no /etc/nv_tegra_release)"
    if shutil.which("trtexec") is None and not Path("/usr/src/tensorrt/bin/trtexec").is_file():
        return "this Jetson has no trtexec (install TensorRT from its JetPack)"
    return None


BOARD_OPSET = 13
"""The newest opset that every TensorRT from 8.2 on reads, so that one file serves all boards."""

_NO_INT8 = {"int8-trt": "no fast INT8 on this GPU (platformHasFastInt8 is false); use fp16 or prune30"}


def _board(name: str, title: str, refuses: Mapping[str, str] | None = None) -> Target:
    return Target(
        name, "board", "predicted", f"{title}, predicted", _available, opset=BOARD_OPSET, refuses=refuses or {}
    )


BUILT_IN: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target("desktop-cpu", "cpu", "measured", "ONNX Runtime on this CPU, one thread", _available, "one"),
            Target("desktop-cpu-all", "cpu", "measured", "ONNX Runtime on this CPU, all cores", _available, "all"),
            Target("desktop-cuda", "cuda", "measured", "this machine's CUDA GPU", _cuda),
            Target("jetson", "board", "measured", "the Jetson that this runs on", _jetson, opset=BOARD_OPSET),
            _board("jetson-nano", "Jetson Nano (TensorRT 8.2)", _NO_INT8),
            _board("jetson-tx2", "Jetson TX2 (TensorRT 8.2)", _NO_INT8),
            _board("jetson-xavier-nx", "Jetson Xavier NX (TensorRT 8.5)"),
            _board("jetson-agx-xavier", "Jetson AGX Xavier (TensorRT 8.5)"),
            _board("jetson-orin-nano", "Jetson Orin Nano 8GB (TensorRT 10.3)"),
            _board("jetson-orin-nano-super", "Jetson Orin Nano Super (TensorRT 10.3)"),
            _board("jetson-orin-nx", "Jetson Orin NX 16GB (TensorRT 10.3)"),
            _board("jetson-agx-orin", "Jetson AGX Orin 64GB (TensorRT 10.3)"),
        )
    }
)

JETSONS: Mapping[str, Target] = MappingProxyType(
    {name: one for name, one in BUILT_IN.items() if one.how == "predicted"}
)
"""The boards that latency can be predicted for, and that a board of a user is one of."""

LARGEST_BATCH = 256
"""The largest batch whose throughput is measured."""


class _Targets(Mapping[str, Target]):
    """The built-in targets, then what is found when somebody asks for another one."""

    def __getitem__(self, name: str) -> Target:
        return BUILT_IN[name] if name in BUILT_IN else _others()[name]

    def __iter__(self) -> Iterator[str]:
        yield from BUILT_IN
        yield from _others()

    def __len__(self) -> int:
        return len(BUILT_IN) + len(_others())


def _others() -> dict[str, Target]:
    """Targets of installed packages and the user's boards; ``ValueError`` for a fault in the boards' file."""
    # not above: it takes longer than all else here, which every measuring process imports
    from importlib.metadata import entry_points

    from depthbench.suites.targets.boardfile import load_boards

    found = {entry.name: entry.load() for entry in entry_points(group="depthbench.targets")}
    return found | {name: board_target(name, entry) for name, entry in load_boards().items()}


def board_target(name: str, entry: BoardEntry, *, of_suite: bool = False) -> Target:
    """The target that measures on a board over SSH; ``of_suite``: it stands in a suite, not in the user's file."""
    return Target(
        name,
        "board",
        "measured",
        f"{BUILT_IN[entry.board].summary.removesuffix(', predicted')} at {entry.host}",
        partial(_over_ssh, entry),
        opset=BOARD_OPSET,
        refuses=BUILT_IN[entry.board].refuses,
        board=entry,
        of_suite=of_suite,
    )


def _over_ssh(entry: BoardEntry) -> str | None:
    from depthbench.suites.targets.jetson import unavailable

    return unavailable(entry)


TARGETS: Mapping[str, Target] = _Targets()
