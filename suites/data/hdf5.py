"""Opening HDF5 files so that a bad one is named, and nothing outside the file is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An ``h5py.File`` for reading; ``ValueError`` names a file that is missing, no HDF5, or found damaged while open."""
    import h5py

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py has no exception of its own
        raise ValueError(f"{path}: not a readable HDF5 file ({' '.join(str(error).split())})") from None


def hdf5_array(file: Any, key: str, path: Path) -> Any:
    """The array ``key`` of an open file; ``ValueError`` when it has none, or keeps it in another file."""
    import h5py

    if key not in file:
        raise ValueError(f"{path}: no array '{key}' in it (it has: {', '.join(sorted(map(str, file))) or 'nothing'})")
    if isinstance(file.get(key, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{path}: '{key}' is a link to another file; not read")
    array = file[key]
    if not isinstance(array, h5py.Dataset):
        raise ValueError(f"{path}: '{key}' is not an array")
    if array.file.filename != file.filename:  # a link within the file may lead to one that leaves it
        raise ValueError(f"{path}: '{key}' is a link to another file; not read")
    if array.external or array.is_virtual:
        raise ValueError(f"{path}: '{key}' is kept in another file; not read")
    return array
