"""Serve a run by the face service's protocol, in a separate process."""

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
"""Seconds for the server to finish accepted requests before it is killed."""


def check_packages() -> None:
    """Check that a server can start here, before hours of training the network that it serves.

    Raises:
        MissingExtra: a package of the server is missing.
    """
    with needs("serve", "The face service"):
        import orjson  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401


@contextmanager
def serving(run: Path, log: Path, *, device: str) -> Iterator[Rekognition]:
    """Serve a run as `denature serve` does; the client sees only the wire.

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
            raise RunError(f"The server of {run} did not start; its output is {line.strip()!r}.")
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
