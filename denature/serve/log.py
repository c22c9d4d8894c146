"""The access log of a server, with a line for each request, and its metrics for Prometheus."""

import datetime
import json
import logging
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from denature.core.errors import ConfigError

MOST_LINES = 10_000
"""Lines that may wait to be written; more are lost and counted."""

PIECE = 4096
"""Bytes written at once: a pipe takes as many in one piece, so processes can share it."""

GATHER_S = 0.02
"""Seconds between two writes."""

END_S = 2.0
"""Seconds for the last lines at the end, where their reader stalls."""

STDERR = 2


@final
class LineWriter:
    """Lines for a file, written by a thread of its own; callers neither wait nor fail.

    Args:
        descriptor: the file.
        lost: called with the number of lines that were lost, since their reader is gone or too
            slow, or the disk is full.
        owned: whether the file is closed after the last line.
    """

    def __init__(
        self,
        descriptor: int,
        lost: Callable[[int], object] = lambda lines: None,
        *,
        owned: bool = False,
    ) -> None:
        self._descriptor, self._owned = descriptor, owned
        self._lost = lost
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_LINES)
        self._torn = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        try:
            self._lines.put_nowait(f"{line}\n".encode("utf-8", "backslashreplace"))
        except queue.Full:
            self._lost(1)

    def close(self) -> None:
        """Write what waits; lines that a stalled reader leaves are lost."""
        self._ended.set()
        with suppress(queue.Full):
            self._lines.put(None, timeout=END_S)
            self._thread.join(END_S)

    def _work(self) -> None:
        piece = b""
        while (line := self._lines.get()) is not None:
            if piece and len(piece) + len(line) > PIECE:
                self._write(piece)
                piece = b""
            piece += line
            if self._lines.empty():
                self._write(piece)
                piece = b""
                self._ended.wait(GATHER_S)  # a thread that wakes for each line slows requests
        self._write(piece)
        if self._owned:
            os.close(self._descriptor)

    def _write(self, piece: bytes) -> None:
        rest = memoryview(b"\n" * self._torn + piece)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._lost(bytes(rest).count(b"\n"))
        # The next line must not continue one of which the disk took a part.
        written = len(piece) - len(rest)
        if written > 0:
            self._torn = piece[written - 1 : written] != b"\n"


@final
class AccessLog:
    """One JSON object a line, without any image data.

    A line is written in one piece, so several processes can share a file.

    Args:
        place: the file; None for standard error, "off" for none.
        lost: called with the number of lines that were lost.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, place: str | None, lost: Callable[[int], object]) -> None:
        self._writer: LineWriter | None = None
        if place is None:
            self._writer = LineWriter(STDERR, lost)
        elif place != "off":
            self._writer = LineWriter(_opened(Path(place)), lost, owned=True)

    def write(self, **entry: object) -> None:
        if self._writer is not None:
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            self._writer.put(json.dumps({"time": time, **entry}))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"The access log {path} cannot be written: {error.strerror}.") from None


@final
class StderrHandler(logging.Handler):
    """Messages of the server's own faults to standard error, whose reader may be gone or stall."""

    def __init__(self) -> None:
        super().__init__()
        self._writer = LineWriter(STDERR)

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.put(self.format(record))

    def close(self) -> None:
        self._writer.close()
        super().close()


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"()": StderrHandler}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"uvicorn": {"level": "ERROR"}},
}
"""Logging of a server's processes, for `logging.config.dictConfig`."""


@final
class Metrics:
    """Counts since the start of this process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "denature_requests",
            "Inference requests, and others that were refused.",
            ["model", "status"],
            registry=self._registry,
        )
        self.images = Counter(
            "denature_images", "Images answered.", ["model"], registry=self._registry
        )
        self.seconds = Histogram(
            "denature_request_seconds",
            "From the head of a request to its answer, with the time in which its body comes.",
            ["model"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self._registry,
        )
        self.lost_lines = Counter(
            "denature_log_lines_lost",
            "Lines of the access log that could not be written.",
            registry=self._registry,
        )

    def render(self) -> bytes:
        return generate_latest(self._registry)
