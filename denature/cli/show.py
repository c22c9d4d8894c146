"""Progress and tables in readable form: bars in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from denature.cli.terminal import print
from denature.core.progress import Meter, Task, short_seconds
from denature.core.text import printable
from denature.report.tables import numbers

if TYPE_CHECKING:
    from rich.progress import Task as RichTask

    from denature.cli.options import OutputOptions
    from denature.report.results import Outcome

FIRST_LINE_S = 2.5
"""Time until the first progress line of a task, where output is no terminal."""

LINE_EVERY_S = 5.0
"""Least time between two progress lines."""

LINE_AFTER_S = 10.0
"""Time without a line after which one is written although no task advanced."""

TICK_S = 0.5


@final
class Display:
    """Shows tasks on standard error, so that standard output holds the result alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars: Progress | None = None
        self._lines = _Lines(self.say)

    def say(self, line: str) -> None:
        line = printable(line)
        self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        """A progress bar, or lines; a nested task is shown below the outer one while it lasts."""
        meter = Meter(printable(name), total, unit)
        if not self.console.is_terminal:
            with self._lines.opened(meter) as task:
                yield task
            return
        outermost = self._bars is None
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                _Clock(),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=self.console,
                transient=True,
            )
            self._bars.start()
        bars = self._bars
        bar = bars.add_task(meter.name, total=total or None, note="", meter=meter)
        try:
            yield _Bar(bars, bar, meter)
        finally:
            bars.remove_task(bar)
            if outermost:
                bars.stop()
                self._bars = None


@final
class _Clock(ProgressColumn):
    """Rate, elapsed and remaining time, which move while nothing advances, too."""

    max_refresh = 0.5

    def render(self, task: "RichTask") -> Text:
        meter: Meter = task.fields["meter"]
        return Text(meter.clock, style="progress.remaining")


@final
class _Bar:
    def __init__(self, bars: Progress, bar: TaskID, meter: Meter) -> None:
        self._bars, self._bar, self._meter = bars, bar, meter

    def advance(self, amount: float, note: str = "") -> None:
        self._meter.advance(amount, printable(note))
        self._bars.update(self._bar, advance=amount, note=self._meter.note)

    def grow(self, amount: float) -> None:
        self._meter.grow(amount)
        self._bars.update(self._bar, total=self._meter.total or None)


@final
class _Lines:
    """One line for all open tasks: the outermost one, with the innermost one as its note.

    The first line comes within three seconds of the start, further ones at most every five seconds
    where a task advances, and every ten where none does, so that a log shows that work goes on. A
    finished outermost task has a last line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._open, self._lock = say, list[Meter](), RLock()
        self._next = self._latest = 0.0

    @contextmanager
    def opened(self, meter: Meter) -> Iterator[Task]:
        with self._lock:
            outermost = not self._open
            self._open.append(meter)
        ended = Event()
        if outermost:
            self._next = self._latest = max(self._next, time.monotonic() + FIRST_LINE_S)
            Thread(target=self._watch, args=(ended,), name="progress", daemon=True).start()
        try:
            yield _Line(self, meter)
        finally:
            ended.set()
            with self._lock:
                self._open.remove(meter)
                if outermost and meter.finished:
                    self._write(meter.line)

    def advanced(self) -> None:
        """Write a line if it is time; that of a finished task is written when it ends."""
        with self._lock:
            if self._open and time.monotonic() >= self._next and not self._open[0].finished:
                self._write_open()

    def _watch(self, ended: Event) -> None:
        while not ended.wait(TICK_S):
            with self._lock:
                if self._open and time.monotonic() >= self._latest:
                    self._write_open()

    def _write_open(self) -> None:
        outer, inner = self._open[0], self._open[-1]
        part = f"; {inner.name}: {inner.note or inner.count}" if inner is not outer else ""
        self._write(outer.line + part)

    def _write(self, line: str) -> None:
        now = time.monotonic()
        self._next, self._latest = now + LINE_EVERY_S, now + LINE_AFTER_S
        self._say(line)


@final
class _Line:
    def __init__(self, lines: _Lines, meter: Meter) -> None:
        self._lines, self._meter = lines, meter

    def advance(self, amount: float, note: str = "") -> None:
        self._meter.advance(amount, printable(note))
        if amount:
            self._lines.advanced()

    def grow(self, amount: float) -> None:
        self._meter.grow(amount)


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Print a table whose first line is its header."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, number in zip(lines[0], numbers(lines), strict=True):
        table.add_column(printable(name), justify="right" if number else "left", overflow="fold")
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
    took = "" if outcome.seconds is None else f"{short_seconds(outcome.seconds)}. "
    print(f"{took}Look at {outcome.report}")
