"""Published lightweight depth networks that the Token-Sharing Transformer is compared with."""

from depthbench.baselines.fastdepth import FASTDEPTH, FastDepth, FastDepthWidths, build_fastdepth
from depthbench.baselines.mobilevit import (
    MOBILEVIT,
    MobileViTConfig,
    MobileViTDepth,
    build_mobilevit,
    load_mobilevit_checkpoint,
)

__all__ = [
    "FASTDEPTH",
    "MOBILEVIT",
    "FastDepth",
    "FastDepthWidths",
    "MobileViTConfig",
    "MobileViTDepth",
    "build_fastdepth",
    "build_mobilevit",
    "load_mobilevit_checkpoint",
]
