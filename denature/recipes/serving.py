"""Serve a run in a separate process, whose clients see only the wire."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from denature.core.errors import DenatureError, RunError, needs
from denature.core.parent import end_with_parent
from denature.train.config import Device

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PATIENCE_S = 30
"""Seconds for the server to finish accepted requests before it is killed."""


def check_packages(what: str) -> None:
    """Check that a server can start here, before hours of training the network that it serves.

    Args:
        what: begins the error.

    Raises:
        MissingExtra: a package of the server is missing.
    """
    with needs("serve", what):
        import orjson  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401


@contextmanager
def serving(run: Path, name: str, log: Path, *, device: Device) -> Iterator[str]:
    """Serve a run under a name as `denature serve` does, and yield the server's URL.

    Raises:
        RunError: the server did not start.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(run, name, log, device, sender), name=name)
    process.start()
    sender.close()
    try:
        yield _address(run, receiver)
    finally:
        receiver.close()
        process.terminate()
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _address(run: Path, receiver: "Connection") -> str:
    """The URL of the server in the other process, once it listens."""
    try:
        started: str | DenatureError = receiver.recv()
    except EOFError:
        raise RunError(f"The server of {run} ended before it listened.") from None
    if isinstance(started, DenatureError):
        raise RunError(f"The server of {run} did not start: {started}")
    return started


def _serve(run: Path, name: str, log: Path, device: Device, sender: "Connection") -> None:
    """In the server's process: serve the run, and send the URL or the reason of a failure."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too, and its client stops it
    from denature.serve.config import DefenseConfig, Exposure, ServedModel, Serving
    from denature.serve.listen import listen

    try:
        model = ServedModel.of(f"{name}={run}", Exposure(), DefenseConfig().defense)
        serving = Serving(models=(model.resolved(),), log=str(log), device=device)
        listen(serving, port=0, announce=sender.send)
    except DenatureError as error:
        sender.send(error)
