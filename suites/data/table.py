"""``DATASETS``: what each data set is, where it lies, who made it and under which licence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from depthbench.suites.data.base import FileDataset
from depthbench.suites.data.folder import open_folder, unpaired_in_folder
from depthbench.suites.data.indoor_open import open_indoor_open
from depthbench.suites.data.listed_pairs import open_kitti_eigen, open_nyu_bts, open_nyu_densedepth
from depthbench.suites.data.nyu_fastdepth import open_nyu_fastdepth
from depthbench.suites.data.nyu_labeled import open_nyu_labeled
from depthbench.suites.data.sequences import unpaired_side_by_side
from depthbench.suites.names import lookup

_NYU = "Silberman, Hoiem, Kohli, Fergus: Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012"
_NO_LICENCE = "none stated; for research"


@dataclass(frozen=True)
class DatasetInfo:
    """A row of ``DATASETS``.

    ``protocol``: its default protocol. ``load``: opens a split of a folder; None for ``rooms``. ``folder``: where it is looked
    for below ``$DEPTHBENCH_DATA``. ``source``: whom to cite. ``test_only``: it has a test split alone. ``unpaired``: finds the
    files of a split that have no partner, where it is their names that make pairs.
    """

    name: str
    summary: str
    protocol: str
    load: Callable[[str, Path], FileDataset] | None = None
    folder: str | None = None
    source: str = ""
    licence: str = ""
    test_only: bool = False
    unpaired: Callable[[str, Path], list[Path]] | None = None


DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            DatasetInfo(
                "rooms",
                "procedural furnished rooms, rendered here, exact depth, 240x320",
                "native",
                licence="Apache-2.0",
            ),
            DatasetInfo(
                "nyu-labeled",
                "NYU Depth v2, 1,449 labelled images: nyu_depth_v2_labeled.mat with splits.mat, or jpg + 16-bit png",
                "nyu-eigen",
                open_nyu_labeled,
                "nyu_labeled",
                _NYU,
                _NO_LICENCE,
                unpaired=unpaired_side_by_side,
            ),
            DatasetInfo(
                "nyu-fastdepth",
                "NYU Depth v2 as FastDepth keeps it: {train,val}/<scene>/*.h5",
                "nyu-fastdepth",
                open_nyu_fastdepth,
                "nyudepthv2",
                f"{_NYU}; Wofk, Ma, Yang, Karaman, Sze: FastDepth, ICRA 2019",
                _NO_LICENCE,
            ),
            DatasetInfo(
                "nyu-bts",
                "NYU Depth v2 as BTS keeps it: sync/, official_splits/test/ and file lists",
                "nyu-eigen",
                open_nyu_bts,
                "nyu_bts",
                f"{_NYU}; Lee, Han, Ko, Suh: From Big to Small, arXiv 1907.10326",
                _NO_LICENCE,
            ),
            DatasetInfo(
                "nyu-densedepth",
                "NYU Depth v2 as DenseDepth keeps it: nyu2_{train,test}.csv, 8-bit training depth",
                "nyu-eigen",
                open_nyu_densedepth,
                "nyu_densedepth",
                f"{_NYU}; Alhashim, Wonka: DenseDepth, arXiv 1812.11941",
                _NO_LICENCE,
            ),
            DatasetInfo(
                "kitti-eigen",
                "KITTI raw images and annotated depth (uint16 / 256 m), Eigen's split lists",
                "kitti-garg",
                open_kitti_eigen,
                "kitti",
                "Geiger, Lenz, Urtasun: Are we ready for Autonomous Driving?, CVPR 2012; Uhrig et al.: Sparsity Invariant "
                "CNNs, 3DV 2017",
                "CC BY-NC-SA 3.0",
            ),
            DatasetInfo(
                "indoor-open",
                "a few images each of several RGB-D cameras, for testing outside the training domain; groups: camera",
                "native",
                open_indoor_open,
                "indoor_open",
                "open RGB-D samples of RealSense, Kinect Azure, ARKit, Redwood and DIODE (Vasiljevic et al., arXiv 1908.00463)",
                "MIT or Apache-2.0, by camera",
                test_only=True,
                unpaired=unpaired_side_by_side,
            ),
            DatasetInfo(
                "folder",
                "your own images with 16-bit depth (--data-root): TUM, 7-Scenes, ScanNet, rgb/ + depth/, jpg + png",
                "native",
                open_folder,
                licence="your own",
                unpaired=unpaired_in_folder,
            ),
        )
    }
)


def dataset_info(name: str) -> DatasetInfo:
    """The entry of ``DATASETS``; ``ValueError`` lists the choices and the nearest one."""
    return lookup("data set", name, DATASETS)


def find_root(name: str) -> Path:
    """The folder of a data set below ``$DEPTHBENCH_DATA``; ``ValueError`` says why there is none."""
    info = dataset_info(name)
    if info.folder is None:
        raise ValueError(f"{info.name}: say where the images are (--data-root)")
    base = os.environ.get("DEPTHBENCH_DATA")
    if not base:
        raise ValueError(
            f"{info.name}: set DEPTHBENCH_DATA to the folder that holds {info.folder}, or give --data-root"
        )
    return Path(base) / info.folder
