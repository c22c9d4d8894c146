"""Where things are kept that can be made again."""

import os
from pathlib import Path


def cache_root() -> Path:
    """The cache folder: $DENATURE_CACHE, else the platform's habit."""
    if explicit := os.environ.get("DENATURE_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "denature"
