"""Accuracy of a run's artefacts, several at a time, so that each image is read and its ground truth laid out once for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from depthbench.suites.metrics import ALL_METRICS
from depthbench.suites.plan import Data, digest, library_versions
from depthbench.suites.results import write_json
from depthbench.suites.stages import Artefact, StoredEvaluation
from depthbench.suites.store import Store

AT_ONCE = 4
"""Artefacts evaluated together: each more saves less of the reading, and has its network in memory."""


def share(artefacts: Sequence[Artefact], at_once: int = AT_ONCE) -> list[list[Artefact]]:
    """Groups of at most ``at_once``, alike in work: the artefacts by size of their input, dealt out like cards."""
    ordered = sorted(artefacts, key=lambda made: -made.size[0] * made.size[1])
    count = math.ceil(len(ordered) / at_once)
    return [ordered[i::count] for i in range(count)]


def evaluations(
    group: Sequence[Artefact], data: Data, root: Path | None, samples: int = 4
) -> tuple[dict[str, StoredEvaluation], dict[str, str]]:
    """The evaluations of ``group`` by artefact key, read from the store or made; and the reason for each that cannot be.

    An artefact that fails costs the others a second reading of the images, not their results.
    """
    from depthbench.suites.data import open_dataset
    from depthbench.suites.evaluate import Evaluation, evaluate_many

    store = Store("evaluations")
    keys = {made.key: _key(made, data, samples) for made in group}
    missing = [made for made in group if store.get(keys[made.key]) is None]
    results: dict[str, Evaluation] = {}
    failures: dict[str, str] = {}
    attempts = [missing] if missing else []
    while attempts:
        several = attempts.pop()
        images = open_dataset(data.name, data.split, root=root, limit=data.n)
        try:
            made_now = evaluate_many(
                [(made.path, made.size) for made in several], images, data.protocol, samples=samples
            )
        except ValueError as error:
            if len(several) > 1:
                attempts += [[made] for made in several]
            else:
                failures[several[0].key] = f"accuracy: ValueError: {' '.join(str(error).split())[:500]}"
            continue
        results |= {made.key: result for made, result in zip(several, made_now, strict=True)}
    stored = {}
    for made in group:
        if made.key in failures:
            continue
        entry = store.make(keys[made.key], lambda folder, key=made.key: _write(results[key], folder))  # type: ignore[misc]
        stored[made.key] = StoredEvaluation(keys[made.key], entry.folder / "metrics.json", entry.folder / "samples.npz")
    return stored, failures


def _key(made: Artefact, data: Data, samples: int) -> str:
    """Digest of everything that decides an evaluation."""
    return digest(
        {
            "artefact": made.sha256,
            "data": asdict(data),
            "samples": samples,
            "metrics": ALL_METRICS,
            "versions": library_versions(),
        }
    )


def _write(result: Any, folder: Path) -> dict[str, Any]:
    write_json(folder / "metrics.json", result.to_json())
    np.savez(folder / "samples.npz", rgb=result.rgb, depth=result.depth, prediction=result.prediction)
    return {"n": result.n}
