"""The key of a server: from a file or from the environment, never from a command line."""

import os
from pathlib import Path

from denature.core.errors import ConfigError

KEY = "DENATURE_KEY"
"""Environment variable of a server's key: other users of a machine can read command lines."""

MOST_KEY = 64 * 1024
"""Bytes of a file with a key at most."""


def key_of(file: Path | None) -> str | None:
    """A server's key, read from a file, or from the environment where no file is given."""
    if file is None:
        return os.environ.get(KEY, "").strip() or None
    try:
        with file.open("rb") as opened:  # which may be a pipe: <(command)
            data = opened.read(MOST_KEY + 1)
        if len(data) > MOST_KEY:
            raise ConfigError(f"{file} has more than {MOST_KEY:,} bytes; wanted is a key.")
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(
            f"{file} holds bytes that are not UTF-8; wanted is a text file with the key."
        ) from None
