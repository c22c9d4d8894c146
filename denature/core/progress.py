"""Progress of long work: what is reported, and what a display can say of it.

The library itself prints nothing. A display implements `Progress`, and keeps a `Meter` for each of
its tasks; `denature.cli.show` has those of a terminal and of lines.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, final

from denature.core.text import counted

RECENT_S, RECENT_SHARE = 20.0, 0.25
"""Seconds over which a rate is measured at least, and their share of the elapsed time."""

FIRST_SHARE = 0.01
"""Share of the work below which the time of a first advance says nothing yet."""

AT_MOST = " at most"
"""End of a unit whose total, and so the remaining time, is a bound."""

SAMPLES = 60
"""Samples in that time."""


class Task(Protocol):
    """One piece of work with a known size."""

    def advance(self, amount: float, note: str = "") -> None:
        """Report `amount` more units as done; `note` is a short status text."""

    def grow(self, amount: float) -> None:
        """Report that there are `amount` more units to do than was said before.

        Below 0 where there are fewer: what was done by an earlier call, or turns out not to be
        needed. It counts neither as done nor for the rate.
        """


class Progress(Protocol):
    """A display of tasks; a task opened inside another is a part of the outer one."""

    def task(self, name: str, total: float, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units; 0 where their number is unknown."""

    def say(self, line: str) -> None:
        """Show one line that stays."""


class Silent:
    """Shows nothing; the default of the library."""

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        yield self

    def advance(self, amount: float, note: str = "") -> None:
        pass

    def grow(self, amount: float) -> None:
        pass

    def say(self, line: str) -> None:
        pass


SILENT = Silent()


@final
class Both:
    """A task that reports to two others, such as that of one run and that of all runs.

    Args:
        own: gets the notes too.
        other: the task that `own` is a part of.
    """

    def __init__(self, own: Task, other: Task) -> None:
        self._own, self._other = own, other

    def advance(self, amount: float, note: str = "") -> None:
        self._own.advance(amount, note)
        self._other.advance(amount)

    def grow(self, amount: float) -> None:
        self._own.grow(amount)
        self._other.grow(amount)


@final
class Relay:
    """A progress whose outermost tasks are a part of a task that is open already.

    What these tasks advance and grow, the open one does too. Tasks in other units, such as answers
    beside images of training, are shown and not counted.

    Args:
        whole: the open task; its own size contains that of the relayed ones.
        unit: the unit of `whole`.
        progress: shows the tasks themselves.
    """

    def __init__(self, whole: Task, unit: str, progress: Progress = SILENT) -> None:
        self._whole, self._unit, self._progress = whole, unit, progress
        self._open = 0

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        counts = unit == self._unit
        with self._progress.task(name, total, unit) as task:
            outermost = counts and not self._open
            self._open += counts
            try:
                yield Both(task, self._whole) if outermost else task
            finally:
                self._open -= counts

    def say(self, line: str) -> None:
        self._progress.say(line)


@final
class Meter:
    """Size, rate and remaining time of one task, for displays.

    The rate is that of the last part, since work is seldom even: the first runs of a list may be
    of a small network, and a neighbour may come and go.

    Args:
        name: of the task.
        total: units of the whole task; 0 where their number is unknown.
        unit: such as images; `images at most` where some of them may turn out not to be needed.
        clock: seconds, rising.
    """

    def __init__(
        self, name: str, total: float, unit: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.note = 0.0, ""
        self._clock, self.started = clock, clock()
        self._samples = deque([(self.started, 0.0)])

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        now, span = self._clock(), self._span
        if now - self._samples[-1][0] >= span / SAMPLES:
            self._samples.append((now, self.done))
        # The oldest one that stays is older than the span, so that rare advances have a rate too.
        # The start goes as soon as there are two others: the first advance had to warm up.
        while len(self._samples) > 2 and (
            now - self._samples[1][0] >= span or self._samples[0][0] == self.started
        ):
            self._samples.popleft()

    def grow(self, amount: float) -> None:
        self.total += amount

    @property
    def elapsed(self) -> float:
        """Seconds since the task was opened."""
        return self._clock() - self.started

    @property
    def _span(self) -> float:
        return max(RECENT_S, RECENT_SHARE * self.elapsed)

    @property
    def rate(self) -> float:
        """Units a second in the last part; 0 before the first advance."""
        since, before = self._samples[0]
        return (self.done - before) / max(self._clock() - since, 1e-3)

    @property
    def finished(self) -> bool:
        return 0 < self.total <= self.done + 1e-6 * self.total

    @property
    def left(self) -> float | None:
        """Remaining seconds; None where size or rate are unknown."""
        rate = self.rate
        short, little = self.elapsed < RECENT_S, self.done < FIRST_SHARE * self.total
        warming = self._samples[0][0] == self.started and (short or little)
        if warming or (short and little):
            return None  # the first advances take mostly the time of a warm-up
        return max(0.0, self.total - self.done) / rate if self.total > 0 and rate > 0 else None

    @property
    def count(self) -> str:
        """`1,200 of 5,000 images`."""
        of = f" of {self.total:,.0f}" if self.total > 0 else ""
        unit = self.unit.removesuffix(AT_MOST) if self.finished else self.unit
        return f"{self.done:,.0f}{of} {unit}"

    @property
    def clock(self) -> str:
        """`900 images/s, 35 s, 2.5 min left`; other work than that on images has no rate."""
        rate = self.rate if self.unit.startswith("images") and self.elapsed >= 1 else 0
        at_most = AT_MOST if self.unit.endswith(AT_MOST) else ""
        left = "" if self.left is None else f", {short_seconds(self.left)} left{at_most}"
        return (f"{rate:,.0f} images/s, " if rate >= 1 else "") + short_seconds(self.elapsed) + left

    @property
    def line(self) -> str:
        """All of it in one line."""
        if self.finished:
            return f"{self.name}: {self.count} in {self.elapsed:.1f} s{self._noted}"
        if not self.done and self.total <= 0:
            return f"{self.name}: {self.clock}{self._noted}"
        share = f", {self.done / self.total:.0%}" if self.total > 0 else ""
        return f"{self.name}: {self.count}{share}, {self.clock}{self._noted}"

    @property
    def _noted(self) -> str:
        return f" ({self.note})" if self.note else ""


def short_seconds(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`; with one decimal below ten, seconds excepted."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{seconds:.0f} s"


def format_seconds(seconds: float) -> str:
    """`about 1 second`, `about 40 seconds`, `about 12.0 minutes`, `about 3.5 hours`."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {counted(round(seconds), 'second')}"
