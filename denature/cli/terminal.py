"""The border to the terminal: `print` for all commands, which shows control characters.

Names of files and classes, and messages of servers, may hold escape sequences of terminals.
"""

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TextIO

from denature.core.text import printable

QUIET_S = 2.0
"""Seconds after which the import of torch is mentioned: a cold disk takes many."""


@contextmanager
def waiting_for_torch(*, quiet: bool = False) -> Iterator[None]:
    """Say that torch is being imported, where this takes long."""

    def say() -> None:
        spec = getattr(sys.modules.get("torch"), "__spec__", None)
        if getattr(spec, "_initializing", False):  # as importlib marks a module on its way
            print("Loading torch; the first time takes longest.", file=sys.stderr, flush=True)

    timer = Timer(QUIET_S, say)
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def print(*values: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Print values with their line breaks and tabs; other control characters become visible."""
    builtins.print(*(printable(str(value), keep="\n\t") for value in values), file=file,
                   flush=flush)  # fmt: skip
