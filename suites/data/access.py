"""What a user says of a data set beside its name: where it lies and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthbench.suites.data.base import DepthDataset
    from depthbench.suites.data.loading import Progress


@dataclass(frozen=True)
class Access:
    """How a data set is reached.

    ``root``: its folder, in place of ``$DEPTHBENCH_DATA``'s. ``depth_scale``: stored depth units per metre, for ``folder``.
    ``skip_broken``: leave out up to so many broken images of a split.
    """

    root: Path | None = None
    depth_scale: float | None = None
    skip_broken: int = 0

    def open(self, name: str, split: str, limit: int | None = None, progress: Progress | None = None) -> DepthDataset:
        """As :func:`depthbench.suites.data.open_dataset`."""
        from depthbench.suites.data import open_dataset

        return open_dataset(
            name,
            split,
            root=self.root,
            limit=limit,
            skip_broken=self.skip_broken,
            depth_scale=self.depth_scale,
            progress=progress,
        )


USUAL = Access()
"""Of a data set of which the user says nothing."""
