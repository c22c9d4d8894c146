"""The display of progress where a caller names none: in a notebook, or on standard error."""

import sys
from importlib import import_module

from denature.core.progress import SILENT, Progress

TERMINAL = "denature.cli.show"
"""Module of the display on standard error, by name: the library does without the command line."""


def usual() -> Progress:
    """A display for the place where Python runs now: bars, or lines where there is no terminal.

    A script without standard error, such as one of pythonw, is silent; and so is an installation
    without rich, since training needs torch, numpy and pyarrow alone.
    """
    if in_notebook():
        from denature.core.notebook import NotebookDisplay

        return NotebookDisplay()
    if sys.stderr is None:
        return SILENT
    try:
        display: Progress = import_module(TERMINAL).Display()
    except ImportError:
        return SILENT
    return display


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
