"""A run behind the face service's protocol, in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from denature.core.errors import RunError, needs
from denature.extract.victims.rekognition import Rekognition
from denature.recipes.nose.settings import VALUES

PATIENCE_S = 30
"""Seconds that a server has to finish what it accepted."""


def check_packages() -> None:
    """Whether a server can be started here, before hours go into what it is to serve.

    Raises:
        MissingExtra: it cannot.
    """
    with needs("serve", "The face service"):
        import orjson  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401


@contextmanager
def serving(run: Path, log: Path, *, device: str) -> Iterator[Rekognition]:
    """Serve a run as `denature serve` does; who asks knows the wire and nothing else.

    Raises:
        RunError: the server did not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "denature", "serve", f"face-service={run}", "--port", "0",
         "--log", str(log), "--device", device],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.match(r"(http://[^/]+)/v2/models/", line)
        if address is None:
            raise RunError(f"The server of {run} did not start; it said: {line.strip()!r}.")
        yield Rekognition(endpoint_url=address[1], values=VALUES)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
