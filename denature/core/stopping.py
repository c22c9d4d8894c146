"""Clean stops between two steps: at a deadline, on a signal or on request."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from denature.core.errors import ConfigError


class Stopper:
    """Decides when work should stop; the code that works checks `reason` between steps."""

    def __init__(
        self, *, seconds: float | None = None, wish: Callable[[], bool] | None = None
    ) -> None:
        self._wish = wish
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """The reason to stop now; None while there is none."""
        if self._signal:
            return self._signal
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "the time limit"
        if self._wish is not None and self._wish():
            return "a stop request"
        return None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, at least 0.01; None without a deadline."""
        return None if self._deadline is None else max(0.01, self._deadline - time.monotonic())

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Treat SIGINT and SIGTERM as requests to stop soon; a second SIGINT stops at once."""

        def note(number: int, frame: FrameType | None) -> None:
            if self._signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = signal.Signals(number).name

        with handled(note):
            yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM; in the main thread only, as signals are."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(duration: str) -> float:
    """Seconds of a duration such as `90`, `90s`, `9m` or `1.5h`.

    Raises:
        ConfigError: the text is no duration, or not above 0.
    """
    number, unit = (duration[:-1], duration[-1]) if duration[-1:] in UNITS else (duration, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"A duration is {duration!r}; wanted is a time above 0, such as 90s, 9m or 1.5h."
        )
    return seconds
