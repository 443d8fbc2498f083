"""Reading files of data sets: images, lists, digests; nothing outside a data set's own folder is ever read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

_WHOLE_FILE = 1 << 20
_EDGE = 1 << 19
_MOST_FILES = 4096


class MissingSplit(ValueError):  # noqa: N818 - a user's mistake like any other ValueError, told apart by verify alone
    """A data set does not hold the split that was asked for."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image file as (3, H, W) uint8; ``ValueError`` names a file that is missing, truncated or no image."""
    return np.ascontiguousarray(np.moveaxis(_decode(path, "RGB"), 2, 0))  # (3, H, W)


def read_depth(path: Path, bits: int = 16) -> NDArray[np.uint16]:
    """A grey PNG of 16 (or 8) bits as (H, W) uint16 in stored units; ``ValueError`` names a file that is not one."""
    return _decode(path, None, bits).astype(np.uint16)


def _decode(path: Path, mode: str | None, bits: int = 16) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            found = image.mode
            if mode is not None or (found == "L" if bits == 8 else found.startswith("I")):
                return np.asarray(image if mode is None or found == mode else image.convert(mode))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # To Pillow a damaged PNG is a SyntaxError, one with too long a text beside the picture a ValueError.
        raise ValueError(f"{path}: cannot be decoded ({' '.join(str(error).split())})") from None
    raise ValueError(f"{path}: depth must be {_grey(bits)}, this one has mode {found}")


def _grey(bits: int) -> str:
    return f"{'an 8' if bits == 8 else f'a {bits}'}-bit grey PNG"


def check_inside(root: Path, paths: Iterable[Path]) -> None:
    """Refuse, by ``ValueError``, a path that leads outside ``root``, also by a symbolic link; it need not exist."""
    top = root.resolve()
    seen: set[Path] = set()
    for path in paths:
        if path.parent in seen and not path.is_symlink():
            continue
        place = path.resolve()
        if not place.is_relative_to(top):
            raise ValueError(f"{path}: leads outside {root}, to {place}; not read")
        if not path.is_symlink():
            seen.add(path.parent)


def listed(root: Path, name: str, source: str) -> PurePosixPath:
    """A file name that a list names, relative to some folder below ``root``.

    ``source``: the list and its line, for the message. ``ValueError`` refuses an absolute name and one with ``..``.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or "\0" in name:
        raise ValueError(f"{source}: {name!r} is not a file name")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(f"{source}: {name!r} leads outside {root}; not read")
    return path


def read_lines(root: Path, path: Path) -> Iterator[tuple[str, str]]:
    """(``file:number``, line) of each line of a text file below ``root`` that is neither empty nor a ``#`` comment."""
    check_inside(root, [path])
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}:{number}", line.strip()


def pair_list(
    root: Path, path: Path, *, separator: str | None = None, leading_slash: bool = False
) -> list[tuple[PurePosixPath, PurePosixPath]]:
    """The (rgb, depth) names of a list with one pair a line; further columns are ignored, a depth ``None`` leaves the line out.

    ``separator``: of the columns, white space when left out. ``leading_slash``: names begin with a ``/`` that means nothing.
    """
    pairs = []
    for source, line in read_lines(root, path):
        columns = [column.strip() for column in line.split(separator)]
        if len(columns) < 2:
            raise ValueError(f"{source}: expected an image and its depth, found {line[:80]!r}")
        if columns[1] == "None":
            continue
        rgb, depth = (name.removeprefix("/") if leading_slash else name for name in columns[:2])
        pairs.append((listed(root, rgb, source), listed(root, depth, source)))
    return pairs


def first_there(places: Sequence[Path]) -> Path:
    """The first of some places that exists; the first of all when none does."""
    return next((place for place in places if place.exists()), places[0])


def files_digest(root: Path, paths: Iterable[Path], extra: str = "") -> str:
    """Fingerprint of files: their names below ``root``, sizes and content.

    A file up to 1 MiB counts whole, a larger one by its first and last 512 KiB: images and depth maps are small, so this
    is a full content digest for them, and stays cheap for anything else. Of more than 4096 files all names and sizes count,
    and the content of 4096, the same ones every time. A file that is edited in a part that does not count, its size kept, has
    its old fingerprint.
    """
    ordered = list(paths)
    with_content = set(fixed_subset(len(ordered), _MOST_FILES))
    total = hashlib.sha256(extra.encode())
    for index, path in enumerate(ordered):
        try:
            size = path.stat().st_size
            total.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
            if index in with_content:
                total.update(hashlib.sha256(_content(path, size)).digest())
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
    return total.hexdigest()


def _content(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            return file.read(_WHOLE_FILE)
        first = file.read(_EDGE)
        file.seek(-_EDGE, os.SEEK_END)
        return first + file.read()


def fixed_subset(count: int, size: int) -> list[int]:
    """``size`` of ``range(count)``, the same ones every time, in ascending order."""
    return sorted(np.random.default_rng(0).permutation(count)[:size].tolist())
