"""Where generated data lies: rendered images and decoded training sets, never anything that cannot be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$DEPTHBENCH_CACHE``, else ``~/.cache/depthbench``; not created here."""
    value = os.environ.get("DEPTHBENCH_CACHE")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "depthbench"
