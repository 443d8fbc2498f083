"""The boards that can be reached over SSH: ``~/.config/depthbench/boards.yaml``, or the file that ``$DEPTHBENCH_BOARDS`` names.

.. code-block:: yaml

    nano-in-the-lab:
      host: 192.168.1.17
      user: jetson
      key: ~/.ssh/id_ed25519
      board: jetson-nano
      power_mode: 0
      lock_clocks: true

A suite may hold the same below ``boards``. Every value is checked before it is used, and none ever reaches a shell unquoted:
see :mod:`depthbench.suites.targets.transport`. There is no key for a password: only keys and agents log in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from depthbench.suites.names import lookup
from depthbench.suites.suitefile.reading import Fault, Node, SuiteError, read_yaml

NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"


def _free_name(value: str) -> str:
    from depthbench.suites.targets import BUILT_IN

    if not re.fullmatch(NAME, value):
        raise ValueError(f"{value!r} is not a board's name (small letters, digits and hyphens)")
    if value in BUILT_IN:
        raise ValueError("this is the name of a target already; choose another one")
    return value


def _known_board(value: str) -> str:
    from depthbench.suites.targets import JETSONS

    lookup("board", value, JETSONS)
    return value


class BoardEntry(BaseModel):
    """How one board is reached, and what may be changed on it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}$", description="name or address")
    port: int = Field(default=22, ge=1, le=65535, description="of its SSH server")
    user: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$", description="as ssh itself chooses when left out"
    )
    key: str | None = Field(
        default=None,
        pattern=r'^(/|~/)[^\x00-\x1f"]+$',
        description="a private key file on this machine, from / or ~; as ssh itself chooses when left out",
    )
    known_hosts: str | None = Field(
        default=None, pattern=r"^(/|~/)[^\x00-\x1f\s]+$", description="a file from / or ~, instead of ssh's own files"
    )
    board: Annotated[str, AfterValidator(_known_board)] = Field(description="which Jetson it is, for its limits")
    power_mode: int | None = Field(default=None, ge=0, le=99, description="nvpmodel -m; left as it is when left out")
    lock_clocks: bool = Field(default=False, description="jetson_clocks while measuring; restored afterwards")
    folder: str = Field(
        default=".cache/depthbench",
        pattern=r"^[A-Za-z0-9_./-]*[A-Za-z0-9_]$",
        description="work folder on the board, from the user's home when not absolute",
    )
    build_limit_s: int = Field(default=1800, ge=1, description="longest time for building one engine")
    step_limit_s: int = Field(
        default=300, ge=1, description="longest time for one timing or one check, beside its length"
    )
    workspace_mb: int = Field(default=1024, ge=16, description="memory that TensorRT may use while building")
    engine_builds: int | None = Field(
        default=None, ge=1, le=9, description="how often each engine is built; as the profile says (3) when left out"
    )

    @property
    def conditions(self) -> dict[str, Any]:
        """What of an entry can change a latency: not how the board is reached."""
        return self.model_dump(include={"board", "power_mode", "lock_clocks", "workspace_mb", "engine_builds"})


BoardName = Annotated[str, AfterValidator(_free_name), WithJsonSchema({"type": "string", "pattern": NAME})]
Boards = dict[BoardName, BoardEntry]
"""Boards by name, as a file or a suite holds them."""

_BOARDS: TypeAdapter[Boards] = TypeAdapter(Boards, config=ConfigDict(strict=True))


def boards_path() -> Path:
    """Where the user's boards stand: ``$DEPTHBENCH_BOARDS``, else ``boards.yaml`` in the configuration folder."""
    value = os.environ.get("DEPTHBENCH_BOARDS")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(value).expanduser() if value else config / "depthbench" / "boards.yaml"


def load_boards(path: Path | None = None) -> Mapping[str, BoardEntry]:
    """The boards of the file by name, none when there is no file; ``ValueError`` with one line a fault."""
    path = path or boards_path()
    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        return {}
    return parse_boards(*read_yaml(text, str(path), "not a mapping of names to boards"))


def parse_boards(tree: Node, faults: list[Fault]) -> Mapping[str, BoardEntry]:
    """Boards from a file's tree; ``faults``: those that reading it found. :class:`SuiteError` with all of them."""
    try:
        boards = _BOARDS.validate_python(tree.data())
    except ValidationError as error:
        from depthbench.suites.suitefile.faults import typed_faults

        refused = {fault.place for fault in faults}  # null stands in their places
        found = [fault for fault in typed_faults(error, tree, BoardEntry) if fault.place not in refused]
        raise SuiteError([*faults, *found]) from None
    if faults:
        raise SuiteError(faults)
    return boards
