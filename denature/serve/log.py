"""The access log of a server, with a line for each request, and its metrics for Prometheus."""

import datetime
import json
import sys
from pathlib import Path
from typing import IO, final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest


@final
class AccessLog:
    """One JSON object a line, without any image data.

    A line is written in one piece, so several processes can share a file.
    """

    def __init__(self, place: str | None) -> None:
        self._file: IO[str] | None = None
        if place is None:
            self._file = sys.stderr
        elif place != "off":
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(place, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, **entry: object) -> None:
        if self._file is not None:
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            self._file.write(json.dumps({"time": time, **entry}) + "\n")
            self._file.flush()


@final
class Metrics:
    """Counts since the start of this process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "denature_requests", "Inference requests.", ["model", "status"], registry=self._registry
        )
        self.images = Counter(
            "denature_images", "Images answered.", ["model"], registry=self._registry
        )
        self.seconds = Histogram(
            "denature_request_seconds",
            "From the last byte of a request to its answer.",
            ["model"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self._registry,
        )

    def render(self) -> bytes:
        return generate_latest(self._registry)
