"""Accuracy of a run's artefacts, several at a time, so that each image is read and its ground truth laid out once for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from depthbench.suites.metrics import ALL_METRICS
from depthbench.suites.plan import Data, carried_out, digest, library_versions
from depthbench.suites.results import write_json
from depthbench.suites.running.execution import described
from depthbench.suites.stages import Artefact, StoredEvaluation
from depthbench.suites.storage.store import Builder, Store

if TYPE_CHECKING:
    from depthbench.suites.data import Access
    from depthbench.suites.evaluate import Evaluation

AT_ONCE = 12
"""Artefacts evaluated together: each more saves less of the reading, and has its network in memory."""

SHARES = 3
"""So many groups for each of several workers, at least: the last one is not waited for long."""

SAMPLES = 4
"""Pictures kept of each."""


class Sized(Protocol):
    """Something with the height and width of a network's input."""

    @property
    def size(self) -> tuple[int, int]: ...


Item = TypeVar("Item", bound=Sized)


def share(artefacts: Sequence[Item], at_once: int = AT_ONCE, workers: int = 1) -> list[list[Item]]:
    """Groups of at most ``at_once``, alike in work; as many for each of ``workers``, as far as there are artefacts.

    The artefacts by size of their input are dealt out forwards and backwards in turn, so that no group gets all of one form,
    where each model has its forms one after the other.
    """
    ordered = sorted(artefacts, key=lambda made: -made.size[0] * made.size[1])
    count = min(len(ordered), workers * max(math.ceil(len(ordered) / at_once / workers), SHARES if workers > 1 else 0))
    groups: list[list[Item]] = [[] for _ in range(count)]
    for turn, one in enumerate(ordered):
        row, place = divmod(turn, count)
        groups[count - 1 - place if row % 2 else place].append(one)
    return groups


def evaluations(
    group: Sequence[Artefact], data: Data, access: Access, samples: int = SAMPLES
) -> tuple[dict[str, StoredEvaluation], dict[str, str]]:
    """The evaluations of ``group`` by artefact key, read from the store or made; and the reason for each that cannot be.

    An artefact that fails costs the others more readings of the images, not their results.
    """
    keys = {made.key: evaluation_key(made, data, samples) for made in group}
    failures: dict[str, str] = {}

    def plan(missing: Sequence[str]) -> dict[str, Builder]:
        wanted = {keys[made.key]: made for made in group if keys[made.key] in missing}
        results, reasons = _evaluate(wanted, data, access, samples)
        failures.update({made.key: reasons[keys[made.key]] for made in group if keys[made.key] in reasons})
        return {key: partial(_write, result) for key, result in results.items()}

    found = Store("evaluations").make_all(list(keys.values()), plan)
    return {made.key: stored_evaluation(keys[made.key]) for made in group if keys[made.key] in found}, failures


def stored_evaluation(key: str) -> StoredEvaluation:
    """The files of an evaluation that is in the store."""
    folder = Store("evaluations").root / key
    return StoredEvaluation(key, folder / "metrics.json", folder / "samples.npz")


def _evaluate(
    wanted: dict[str, Artefact], data: Data, access: Access, samples: int
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Results and reasons by key: all together, and if that fails each half by itself, down to the file that fails."""
    from depthbench.suites.evaluate import evaluate_many

    images = access.open(data.name, data.split, data.n + data.skipped)
    if images.digest != data.digest:
        raise ValueError(
            f"{data.name} {data.split}: the images here are not those of the run; give all machines the same"
        )
    results: dict[str, Evaluation] = {}
    reasons: dict[str, str] = {}
    attempts = [list(wanted)]
    while attempts:
        several = attempts.pop()
        files = [(wanted[key].path, wanted[key].size) for key in several]
        try:
            results |= zip(several, evaluate_many(files, images, data.protocol, samples=samples), strict=True)
        except ValueError as error:
            if len(several) > 1:
                middle = len(several) // 2
                attempts += [several[:middle], several[middle:]]
            else:
                reasons[several[0]] = f"accuracy: {described(error)}"
    return results, reasons


def evaluation_key(made: Artefact, data: Data, samples: int = SAMPLES) -> str:
    """Digest of everything that decides an evaluation."""
    from depthbench.suites.evaluate import WORST

    return digest(
        {
            "artefact": made.sha256,
            "data": data.identity,
            "samples": [samples, WORST],
            "metrics": ALL_METRICS,
            **carried_out(made.precision),
            "versions": library_versions(),
        }
    )


def _write(result: Any, folder: Path) -> dict[str, Any]:
    write_json(folder / "metrics.json", result.to_json())
    np.savez(
        folder / "samples.npz",
        rgb=result.rgb,
        depth=result.depth,
        prediction=result.prediction,
        pictured=np.array(result.pictured),
    )
    return {"n": result.n}
