"""Data sets under one folder, in any spelling of their names."""

from pathlib import Path

from denature.core.errors import ConfigError
from denature.data.readers.archives import PACKED


def data_at(root: Path | None, name: str) -> str:
    """Path of a data set under `root`, in any layout; without a root the name, to be downloaded.

    Data that lie in no folder, such as digits, keep their name.

    Raises:
        ConfigError: `root` holds no such data set.
    """
    if root is None or name not in PACKED:
        return name
    candidates = dict.fromkeys((name, name.replace("-", "_"), name.replace("-", ""), *PACKED[name]))
    for candidate in candidates:
        if (root / candidate).exists():
            return str(root / candidate)
    raise ConfigError(
        f"--data-root {root} holds no {name}; looked for were {', '.join(candidates)}. "
        "Put the data there, or leave --data-root out to download it."
    )
