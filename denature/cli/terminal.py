"""The border to the terminal: `print` for all commands, which shows control characters.

Names of files and classes, and messages of servers, may hold escape sequences of terminals.
"""

import builtins
from typing import TextIO

from denature.core.text import printable


def print(*values: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Print values with their line breaks and tabs; other control characters become visible."""
    builtins.print(*(printable(str(value), keep="\n\t") for value in values), file=file,
                   flush=flush)  # fmt: skip
