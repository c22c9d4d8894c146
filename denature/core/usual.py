"""The display of progress where a caller names none: in a notebook, in a terminal, else silence."""

import sys
from importlib import import_module

from denature.core.progress import SILENT, Progress

TERMINAL = "denature.cli.show"
"""Module of the terminal's display, by name: the library does without the command line."""


def usual() -> Progress:
    """A display for the place where Python runs now."""
    if in_notebook():
        from denature.core.notebook import NotebookDisplay

        return NotebookDisplay()
    if sys.stderr is not None and sys.stderr.isatty():
        display: Progress = import_module(TERMINAL).Display()
        return display
    return SILENT


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
