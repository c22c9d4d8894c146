"""Progress reports of long work; the library itself prints nothing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work with a known size."""

    def advance(self, amount: float, note: str = "") -> None:
        """Report `amount` more units as done; `note` is a short status text."""


class Progress(Protocol):
    """A display of tasks; a task opened inside another is a part of the outer one."""

    def task(self, name: str, total: float, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units."""

    def say(self, line: str) -> None:
        """Show one line that stays."""


class Silent:
    """Shows nothing; the default of the library."""

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        yield self

    def advance(self, amount: float, note: str = "") -> None:
        pass

    def say(self, line: str) -> None:
        pass


SILENT = Silent()


def format_seconds(seconds: float) -> str:
    """`40 seconds`, `12 minutes`, `3.5 hours`."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {seconds:.0f} seconds"
