"""Progress as bars below the cell of a notebook that runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, final

from denature.core.progress import Meter, Task
from denature.core.text import printable

SHOW_EVERY_S = 0.2
"""Least time between two updates: each is a message that the notebook's page draws."""


@final
class NotebookDisplay:
    """Shows tasks in the output of a cell; bars go when the outermost task ends."""

    def __init__(self) -> None:
        self._bars: list[_Bar] = []
        self._handle: Any = None
        self._cell: int | None = None
        self._shown = 0.0

    def say(self, line: str) -> None:
        _display(_Html(f"<div>{escape(printable(line))}</div>", line))

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        """A bar; one of a nested task stands below the outer one while it lasts."""
        bar = _Bar(self, Meter(printable(name), total, unit))
        self._bars.append(bar)
        if self._handle is None or self._cell != _cell():
            self._handle, self._cell = _display(self._html(), display_id=True), _cell()
        self.show()
        try:
            yield bar
        finally:
            self._bars.remove(bar)
            self.show(now=True)

    def show(self, *, now: bool = False) -> None:
        """Draw the bars anew, unless that was done a moment ago."""
        if self._handle is not None and (now or time.monotonic() - self._shown >= SHOW_EVERY_S):
            self._shown = time.monotonic()
            self._handle.update(self._html())

    def _html(self) -> "_Html":
        bars = list(self._bars)
        return _Html("".join(bar.html() for bar in bars), "; ".join(bar.text() for bar in bars))


def _cell() -> int | None:
    """Number of the cell that runs, in whose output bars are shown."""
    import IPython

    return getattr(IPython.get_ipython(), "execution_count", None)


def _display(shown: object, **options: bool) -> Any:
    import IPython.display

    return IPython.display.display(shown, **options)  # type: ignore[no-untyped-call]


@final
@dataclass(frozen=True, slots=True)
class _Html:
    """Output with a text for places that show no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@final
class _Bar:
    def __init__(self, display: NotebookDisplay, meter: Meter) -> None:
        self._display, self._meter = display, meter

    def advance(self, amount: float, note: str = "") -> None:
        self._meter.advance(amount, printable(note))
        self._display.show()

    def grow(self, amount: float) -> None:
        self._meter.grow(amount)
        self._display.show()

    def text(self) -> str:
        return self._meter.line

    def html(self) -> str:
        # Without a value the bar moves to and fro, as where the size is unknown.
        done, total = self._meter.done, self._meter.total
        value = f' value="{done:g}" max="{total:g}"' if total > 0 else ""
        return f"<div><progress{value}></progress> {escape(self.text())}</div>"
