"""What is to be done on a board: the cells, and the steps in their order. The same list serves SSH and a bundle.

Each step is a verb of ``board.sh`` with its words. Engines are built and checked cell by cell; then rounds of timing, each a
random order of the cells, forwards and then backwards (A B B A), a fresh trtexec each time, so that a drift of the board
meets all alike.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbench.suites.models import file_sha256

if TYPE_CHECKING:
    from depthbench.suites.targets.boardfile import BoardEntry

PUSH_S = 600


@dataclass(frozen=True)
class BoardProfile:
    """How long a file is measured on a board: ``rounds`` × 2 runs of trtexec, ``seconds`` each.

    ``frames``: how many of its outputs are checked. ``idle_s``: how long the board's power is watched before. ``builds``:
    how often its engine is built; the rounds take the engines in turn, and there is at least one round for each.
    """

    rounds: int
    seconds: int
    frames: int = 16
    idle_s: int = 3
    builds: int = 3


PROFILES = {
    "quick": BoardProfile(3, 3),
    "standard": BoardProfile(6, 6),
    "sustained": BoardProfile(12, 25),
}

REBUILD_FRAMES = 4
"""How many outputs of an engine built again are checked."""


@dataclass(frozen=True)
class Limits:
    """Longest times of a step in seconds, and TensorRT's memory while building in MB."""

    build_s: int = 1800
    step_s: int = 300
    workspace_mb: int = 1024


def of_board(entry: BoardEntry | None, profile: BoardProfile) -> tuple[BoardProfile, Limits]:
    """A profile and limits with what the user says of the board in the place of the defaults."""
    if entry is None:
        return profile, Limits()
    builds = entry.engine_builds or profile.builds
    return replace(profile, builds=builds), Limits(entry.build_limit_s, entry.step_limit_s, entry.workspace_mb)


@dataclass(frozen=True)
class BoardCell:
    """An ONNX file in the precision that its engine is built with: ``fp32``, ``fp16`` or ``int8-trt``."""

    path: Path
    precision: str

    @cached_property
    def sha256(self) -> str:
        """Digest of the file."""
        return file_sha256(self.path)

    @property
    def key(self) -> str:
        """What the cell is called on the board: made of its digest alone, whatever its name."""
        return f"{self.sha256[:20]}-{self.precision}"

    @cached_property
    def image(self) -> tuple[str, int, int]:
        """Name, height and width of the only input; ``ValueError`` when it is not one float image of batch 1."""
        from depthbench.suites.export import read_onnx

        graph = read_onnx(self.path).graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]
        shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in inputs]
        if (
            len(inputs) != 1
            or len(shapes[0]) != 4
            or shapes[0][:2] != [1, 3]
            or inputs[0].type.tensor_type.elem_type != 1
        ):
            raise ValueError(f"{self.path.name}: a board needs one float32 input 1x3xHxW")
        name = str(inputs[0].name)
        if not re.fullmatch(r"[A-Za-z0-9_.]{1,60}", name):
            raise ValueError(
                f"{self.path.name}: trtexec cannot be given the input name {name!r}; use letters and digits"
            )
        return name, shapes[0][2], shapes[0][3]

    def fault(self) -> str | None:
        """Why a board cannot be given this file, or None."""
        try:
            _ = self.image
        except ValueError as error:
            return str(error)
        return None

    @property
    def size(self) -> str:
        """``HxW``."""
        return f"{self.image[1]}x{self.image[2]}"


@dataclass(frozen=True)
class BoardStep:
    """A verb of ``board.sh``, the key of its cell (or its first word), the other words, and how long it may take."""

    verb: str
    key: str
    words: tuple[str, ...] = ()
    limit_s: int = 60

    @property
    def line(self) -> str:
        """The step as a line of a bundle's plan."""
        return " ".join((self.verb, self.key, *self.words))


def board_steps(cells: Sequence[BoardCell], profile: BoardProfile, limits: Limits, seed: int = 0) -> list[BoardStep]:
    """All steps, a cell once however often it is given. A push is the host's; a bundle has its files already."""
    unique = list({cell.key: cell for cell in cells}.values())
    steps = [BoardStep("idle", str(profile.idle_s))]
    for cell in unique:
        steps.append(BoardStep("push", cell.key, limit_s=PUSH_S))
        for engine in range(profile.builds):
            build = (cell.precision, str(limits.build_s), str(limits.workspace_mb), str(engine))
            checked = min(profile.frames, REBUILD_FRAMES) if engine else profile.frames
            check = (cell.image[0], str(checked), cell.size, str(limits.step_s), str(engine))
            steps += [
                BoardStep("build", cell.key, build, limits.build_s + 30),
                BoardStep("check", cell.key, check, checked * limits.step_s + 30),
            ]
    order = random.Random(seed)
    longest = profile.seconds + limits.step_s
    for number in range(max(profile.rounds, profile.builds)):
        row = order.sample(unique, len(unique))
        for half, cells_in_order in enumerate((row, row[::-1])):
            for cell in cells_in_order:
                words = (str(2 * number + half), str(profile.seconds), str(longest), str(number % profile.builds))
                steps.append(BoardStep("time", cell.key, words, longest + 30))
    return steps


def frames(height: int, width: int, n: int) -> list[NDArray[np.float32]]:
    """``n`` fixed images (1, 3, H, W) in [0, 1]: smooth shapes with noise, the same on every machine."""
    rng = np.random.default_rng([height, width])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    images = []
    for _ in range(n):
        turns, shifts = rng.uniform(1, 9, (3, 2)), rng.uniform(0, 6, 3)
        waves = [np.sin(a * 6 * x + b * 6 * y + c) for (a, b), c in zip(turns, shifts, strict=True)]
        image = 0.5 + 0.35 * np.stack(waves) + rng.normal(0, 0.03, (3, height, width))  # (3, H, W)
        images.append(np.clip(image, 0, 1)[None].astype(np.float32))
    return images


def board_script() -> bytes:
    """The text of ``board.sh``."""
    return resources.files("depthbench.suites.targets").joinpath("board.sh").read_bytes()


def unpack(data: bytes, source: str) -> dict[str, dict[str, bytes]]:
    """The files that a board sends back, by cell and name; those of no cell under ``""``.

    ``ValueError`` for a result that is cut short or damaged.
    """
    files: dict[str, dict[str, bytes]] = {}
    place = 0
    while True:
        end = data.find(b"\n", place)
        line = data[place : end if end >= 0 else len(data)].decode("utf-8", "replace")
        if line == "end":
            return files
        match = re.fullmatch(r"(\d+) (?:([0-9a-f]{20}-[a-z0-9-]+)/)?([A-Za-z0-9._-]+)", line)
        if match is None or end + 1 + int(match[1]) > len(data):
            raise ValueError(f"{source}: the board's result is cut short or damaged")
        place = end + 1 + int(match[1])
        files.setdefault(match[2] or "", {})[match[3]] = data[end + 1 : place]


def facts(text: bytes) -> dict[str, Any]:
    """``key=value`` lines as values; empty ones are left out."""
    pairs = (line.partition("=") for line in text.decode("utf-8", "replace").splitlines())
    return {key: value for key, _, value in pairs if value}
