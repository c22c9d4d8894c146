"""Progress and tables in readable form: bars in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from denature.cli.terminal import print
from denature.core.progress import Task
from denature.core.text import printable

if TYPE_CHECKING:
    from denature.cli.options import OutputOptions
    from denature.report.results import Outcome

LINE_EVERY_S = 5.0
"""Least time between two progress lines of a task, where output is no terminal."""


@final
class Display:
    """Shows tasks on standard error, so that standard output holds the result alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars: Progress | None = None

    def say(self, line: str) -> None:
        line = printable(line)
        self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        """A progress bar, or lines; a nested task is shown below the outer one while it lasts."""
        name = printable(name)
        if not self.console.is_terminal:
            yield _Lines(self, name, total, unit)
            return
        outermost = self._bars is None
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TextColumn("{task.fields[speed]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=self.console,
                transient=True,
            )
            self._bars.start()
        bars = self._bars
        bar = bars.add_task(name, total=total or None, note="", speed="")
        try:
            yield _Bar(bars, bar, unit)
        finally:
            bars.remove_task(bar)
            if outermost:
                bars.stop()
                self._bars = None


@final
class _Bar:
    def __init__(self, bars: Progress, bar: TaskID, unit: str) -> None:
        self.bars, self.bar, self.unit = bars, bar, unit
        self.started, self.done = time.monotonic(), 0.0

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount
        speed = self.done / max(time.monotonic() - self.started, 1e-3)
        shown = f"{speed:,.0f} {self.unit}/s" if self.unit == "images" else ""
        if note:
            self.bars.update(self.bar, note=printable(note))
        self.bars.update(self.bar, advance=amount, speed=shown)


@final
class _Lines:
    def __init__(self, display: Display, name: str, total: float, unit: str) -> None:
        self.display, self.name, self.total, self.unit = display, name, total, unit
        self.started = self.printed = time.monotonic()
        self.done, self.note = 0.0, ""

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        now = time.monotonic()
        finished = bool(self.total) and self.done >= self.total
        if amount and (now - self.printed >= LINE_EVERY_S or finished):
            self.printed = now
            speed = self.done / max(now - self.started, 1e-3)
            left = f", {(self.total - self.done) / speed:.0f} s left" if self.total else ""
            of = f" of {self.total:,.0f}" if self.total else ""
            note = f" ({self.note})" if self.note else ""
            took = f" in {now - self.started:.1f} s" if finished else left
            self.display.say(f"{self.name}: {self.done:,.0f}{of} {self.unit}{took}{note}")


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Print a table whose first line is its header; columns from the third on are numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(lines[0]):
        table.add_column(printable(name), justify="right" if place > 1 else "left", overflow="fold")
    for line in lines[1:]:
        table.add_row(*map(printable, line))
    width = None if sys.stdout.isatty() else 160
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    console.print(table)


def show(outcome: "Outcome", output_options: "OutputOptions") -> None:
    """Print an outcome: its tables, raised checks and verdict, or all of it as a line of JSON."""
    if output_options.json:
        print(outcome.to_json())
        return
    page = outcome.page
    if introduction := f"{page.about} {page.differs}".strip():
        print(printable(introduction))
    for table in page.tables:
        print_table(table.lines)
        print()
    for sentence in (*page.marked, *page.verdict):
        print(printable(sentence))
    took = "" if outcome.seconds is None else f"{outcome.seconds:.0f} s. "
    print(f"{took}Look at {outcome.report}")
