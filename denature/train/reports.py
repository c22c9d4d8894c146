"""Progress across processes: what workers send while they train, and what the sender counts.

Imports nothing heavy, so that the process of a mailbox on a cluster starts at once.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

from denature.core.progress import Task

EVERY_S = 0.25
"""Least time between two reports of a worker."""


class Report(NamedTuple):
    """What changed since a worker's last report."""

    batch: int
    """Place of the batch among those that were sent."""
    begins: bool
    """Whether the worker begins with the batch, perhaps again after the death of another one."""
    done: float
    """Images that were trained."""
    more: float
    """Images that there are to do more, below 0 where less; see `Task.grow`."""


@final
class Reporter:
    """The task of a worker's batch; what it receives is sent as reports.

    Args:
        batch: place of the batch among those that were sent.
        send: sends a report at once, or returns False.
    """

    def __init__(self, batch: int, send: Callable[[Report], bool]) -> None:
        self._batch, self._send = batch, send
        self._begins, self._done, self._more = True, 0.0, 0.0
        self._last = time.monotonic()

    def advance(self, amount: float, note: str = "") -> None:
        self._done += amount
        if time.monotonic() - self._last >= EVERY_S:
            self.flush()

    def grow(self, amount: float) -> None:
        self._more += amount

    def flush(self) -> None:
        """Send what was not sent; what cannot be sent now is kept for the next report."""
        self._last = time.monotonic()
        if self._send(Report(self._batch, self._begins, self._done, self._more)):
            self._begins, self._done, self._more = False, 0.0, 0.0


@final
class Received:
    """Counts reports into one task; a batch that begins again loses what was counted for it.

    Args:
        task: has the images of all batches in it.
        since: the first batch that counts; reports of earlier ones, which were stopped, may come.
    """

    def __init__(self, task: Task, *, since: int = 0) -> None:
        self._task, self._since = task, since
        self._counted: dict[int, tuple[float, float]] = {}

    def count(self, report: Report) -> None:
        if report.batch < self._since:
            return
        done, more = self._counted.get(report.batch, (0.0, 0.0))
        if report.begins:
            # What was done stays done, and is to be done again from the last saved state on.
            self._task.grow(done - more)
            done, more = 0.0, 0.0
        self._task.grow(report.more)
        self._task.advance(report.done)
        self._counted[report.batch] = done + report.done, more + report.more


@final
class Mailbox:
    """On a cluster: reports until the sender takes them."""

    def __init__(self) -> None:
        self._reports: list[Report] = []

    def put(self, report: Report) -> None:
        self._reports.append(report)

    def take(self) -> list[Report]:
        taken, self._reports = self._reports, []
        return taken


def post(mailbox: Any, report: Report) -> bool:
    """Send a report to a mailbox of the cluster, without waiting for it."""
    mailbox.put.remote(report)
    return True
