"""Looking at every file of a data set: what is there, its depth range, its share of valid pixels, and what is broken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from depthbench.suites.data import SPLITS, dataset_info, open_files
from depthbench.suites.data.base import FileDataset
from depthbench.suites.data.files import MissingSplit
from depthbench.suites.data.loading import Progress, outcomes
from depthbench.suites.names import unknown


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    ``pairs``: images with a depth map, all of which were read. ``sizes``: "HxW": how many. ``depth_min_m``, ``depth_max_m``: of
    the valid pixels, nan without any. ``valid_share``: of all pixels, those with ground truth. ``groups``: name: how many.
    ``broken``: one line each.
    """

    split: str
    layout: str
    pairs: int
    sizes: dict[str, int]
    depth_min_m: float
    depth_max_m: float
    valid_share: float
    groups: dict[str, int]
    broken: list[str]


@dataclass(frozen=True)
class DataReport:
    """What was found below a folder.

    ``absent``: the splits that are not there or empty, and why. ``unpaired``: files without a partner, below the folder, which
    no split has.
    """

    name: str
    root: Path
    splits: list[SplitReport]
    absent: dict[str, str]
    unpaired: list[str]

    @property
    def broken(self) -> list[str]:
        """One line for each broken image of all splits."""
        return [line for split in self.splits for line in split.broken]


def verify(
    name: str,
    root: Path,
    split: str | None = None,
    *,
    limit: int | None = None,
    depth_scale: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Read every image of a split, or of the training and the test split, of data set ``name`` below ``root``.

    A broken image is a line of the report. ``ValueError`` when no split is there, and for a folder or a list that cannot be
    used.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    found, absent = {}, {}
    wanted: Sequence[str] = ("train", "test") if split is None else (split,)
    for part in wanted:
        try:
            found[part] = open_files(name, part, root=root, limit=limit, depth_scale=depth_scale)
            found[part].check(existence=False)
        except MissingSplit as error:
            absent[part] = str(error)
    if not found:
        raise ValueError(absent[wanted[-1]])
    total, done = sum(len(dataset) for dataset in found.values()), 0
    reports = []
    for part, dataset in found.items():
        sizes: Counter[str] = Counter()
        low, high, valid, pixels, broken = math.inf, 0.0, 0, 0, []
        for outcome in outcomes(dataset, workers):
            if isinstance(outcome, ValueError):
                broken.append(str(outcome))
            else:
                depths = outcome.depth[outcome.depth > 0]
                low, high = min(low, float(depths.min())), max(high, float(depths.max()))
                valid, pixels = valid + depths.size, pixels + outcome.depth.size
                sizes["{}x{}".format(*outcome.depth.shape[1:])] += 1
            done += 1
            if progress is not None:
                progress(done, total)
        reports.append(
            SplitReport(
                split=part,
                layout=dataset.layout,
                pairs=len(dataset),
                sizes=dict(sizes),
                depth_min_m=low if valid else math.nan,
                depth_max_m=high if valid else math.nan,
                valid_share=valid / pixels if pixels else math.nan,
                groups=dict(Counter(dataset.groups)),
                broken=broken,
            )
        )
    return DataReport(name, root, reports, absent, _unpaired(name, root, found))


def _unpaired(name: str, root: Path, found: Mapping[str, FileDataset]) -> list[str]:
    find = dataset_info(name).unpaired
    if find is None:
        return []
    pairs = [split for split, dataset in found.items() if len(dataset.items[0].files) == 2]  # not in one large file
    alone = sorted({path for split in pairs for path in find(split, root)})
    return [path.relative_to(root).as_posix() for path in alone]
