"""What a training tells while it runs: a line of its log, a progress bar, TensorBoard."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthbench.suites.results import write_atomic

LOG = "log.jsonl"


@dataclass(frozen=True)
class Status:
    """Where a training stands; one line of its log.

    ``held_back``: the last checkpoint was not written, because the mean loss was rising; a kill goes back to the one before.
    """

    samples: int
    total: int
    loss: float
    lr: float
    gradient_norm: float
    size: str
    images_per_s: float
    seconds: float
    held_back: bool = False


Report = Callable[[Status], None]


def append(folder: Path, status: Status) -> None:
    """Add a line to ``folder/log.jsonl``."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(status)) + "\n")


def trim(folder: Path, samples: int) -> None:
    """Drop what was logged after ``samples``, a torn last line included."""
    path = folder / LOG
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["samples"] <= samples]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not the log of a training; use another folder or delete it") from None
    write_atomic(path, "".join(kept).encode())


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """Progress on standard error with loss, images per second and the time left; gives the ``report`` to pass on.

    A bar on a terminal, elsewhere a line for every tenth of the samples and whenever ``held_back`` changes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        told, held_back = -1, False

        def tell(status: Status) -> None:
            nonlocal told, held_back
            tenth = 10 * status.samples // status.total
            if tenth > told or status.held_back != held_back:
                told, held_back = tenth, status.held_back
                console.print(f"{title}: {status.samples}/{status.total} samples, {_numbers(status)}")

        yield tell
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} samples"),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, numbers="")

        def report(status: Status) -> None:
            bar.update(task, completed=status.samples, total=status.total, numbers=_numbers(status))

        yield report


def _numbers(status: Status) -> str:
    held_back = "  loss rising, no checkpoint" if status.held_back else ""
    return f"loss {status.loss:.4f}  {status.images_per_s:.1f} images/s at {status.size}{held_back}"


@contextmanager
def tensorboard(folder: Path) -> Iterator[Report]:
    """Writes ``folder/tensorboard`` when TensorBoard is installed (the extra ``tensorboard``), else nothing.

    A training that goes on from its checkpoint replaces the curve from there on.
    """
    if importlib.util.find_spec("tensorboard") is None:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = None

    def report(status: Status) -> None:
        nonlocal writer
        if writer is None:
            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=status.samples)
        for name in ("loss", "lr", "gradient_norm", "images_per_s"):
            writer.add_scalar(name, getattr(status, name), status.samples)

    try:
        yield report
    finally:
        if writer is not None:
            writer.close()
