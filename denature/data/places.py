"""The folder of files that can be made again."""

import os
from pathlib import Path


def cache_root() -> Path:
    """The cache folder: $DENATURE_CACHE, else the default of the platform."""
    if explicit := os.environ.get("DENATURE_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "denature"
