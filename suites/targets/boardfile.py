"""The boards that can be reached over SSH: ``~/.config/depthbench/boards.yaml``, or the file that ``$DEPTHBENCH_BOARDS`` names.

.. code-block:: yaml

    nano-in-the-lab:
      host: 192.168.1.17
      user: jetson
      key: ~/.ssh/id_ed25519
      board: jetson-nano
      power_mode: 0
      lock_clocks: true

Every value is checked before it is used, and none ever reaches a shell unquoted: see
:mod:`depthbench.suites.targets.transport`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from depthbench.suites.names import lookup, unknown
from depthbench.suites.targets.predicted import BOARDS

NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"


def _known_board(value: str) -> str:
    lookup("board", value, BOARDS)
    return value


class BoardEntry(BaseModel):
    """How one board is reached, and what may be changed on it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}$", description="name or address")
    port: int = Field(default=22, ge=1, le=65535)
    user: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")
    key: str | None = Field(default=None, pattern=r"^[^\x00-\x1f]+$", description="a private key file on this machine")
    known_hosts: str | None = Field(
        default=None, pattern=r"^[^\x00-\x1f\s]+$", description="instead of ssh's own files"
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


def boards_path() -> Path:
    """Where the user's boards stand: ``$DEPTHBENCH_BOARDS``, else ``boards.yaml`` in the configuration folder."""
    value = os.environ.get("DEPTHBENCH_BOARDS")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(value).expanduser() if value else config / "depthbench" / "boards.yaml"


def load_boards(path: Path | None = None) -> dict[str, BoardEntry]:
    """The boards of the file by name, none when there is no file; ``ValueError`` with one line a fault."""
    path = path or boards_path()
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a mapping of names to boards")
    return parse_boards(value, str(path))


def parse_boards(value: Mapping[Any, Any], source: str) -> dict[str, BoardEntry]:
    """Boards from a mapping; ``source`` begins each line of an error."""
    import re

    from depthbench.suites.targets import BUILT_IN

    boards, faults = {}, []
    for name, entry in value.items():
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            faults.append(f"{source}: {str(name)!r} is not a board's name (small letters, digits and hyphens)")
            continue
        if name in BUILT_IN:
            faults.append(f"{source}: {name}: this is the name of a target already; choose another one")
            continue
        try:
            boards[name] = BoardEntry.model_validate(entry)
        except ValidationError as error:
            faults += [f"{source}: {name}{_line(fault)}" for fault in error.errors()]
    if faults:
        raise ValueError("\n".join(faults))
    return boards


def _line(fault: Any) -> str:
    path = "".join(f".{part}" for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{path}: {unknown('key', str(fault['loc'][-1]), BoardEntry.model_fields)}"
    if fault["type"] == "missing":
        return f"{path}: this key is required"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" + (f" (got {fault['input']!r:.80})" if fault["type"] != "value_error" else "")
