"""The Token-Sharing Transformer for metric monocular depth: configuration, layers, model, losses, literal reference."""

from depthbench.tst.config import VARIANTS, TSTConfig
from depthbench.tst.model import TST, build_tst

__all__ = ["TST", "VARIANTS", "TSTConfig", "build_tst"]
