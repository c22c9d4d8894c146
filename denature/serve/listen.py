"""A server on its socket, in one process or several."""

import json
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from denature.core.errors import ConfigError, MissingExtra
from denature.core.parent import end_with_parent
from denature.core.schema import encode
from denature.core.stopping import handled
from denature.serve.config import Serving

if TYPE_CHECKING:
    from starlette.applications import Starlette

BACKLOG = 2048
"""Connections that may wait to be accepted."""

GRACE_S = 30
"""Seconds for the answers to accepted requests after a stop signal."""


def listen(
    serving: Serving,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    announce: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; accepted requests are answered first.

    Args:
        serving: settings of the server.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        workers: processes, each with all models.
        announce: called with the address once the models are loaded.

    Raises:
        ConfigError: the address is taken, or a defense cannot be split over several workers.
        MissingExtra: the server's packages are not installed.
    """
    try:
        import uvicorn
        from uvicorn.supervisors import Multiprocess

        from denature.serve.app import ENVIRONMENT, create_app
        from denature.serve.connection import BoundedConnection
        from denature.serve.connections import raise_file_limit
        from denature.serve.log import LOGGING
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "serve", "Serving a model") from None

    if workers > 1:
        _check_apart(serving)
    raise_file_limit(serving.limits)
    logging.captureWarnings(True)  # what is printed would wait for its reader
    with _bound(host, port) as listener:
        app = create_app(serving)  # before the announcement, so that errors surface here
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            app if workers == 1 else "denature.serve.listen:in_worker",
            factory=workers > 1,
            workers=workers,
            http=BoundedConnection,
            ws="none",
            timeout_keep_alive=math.ceil(serving.limits.head_s),
            proxy_headers=bool(serving.behind_proxy),
            forwarded_allow_ips=list(serving.behind_proxy),
            backlog=BACKLOG,
            log_config=LOGGING,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        if workers == 1:
            server = uvicorn.Server(config)
            main = threading.current_thread() is threading.main_thread()
            # As uvicorn does, also before it runs and when it raises the signals again at its end:
            # a stop by a signal is a success at any time.
            with handled(server.handle_exit) if main else nullcontext():
                announce(url)
                server.run(sockets=[listener])
        else:
            del app
            os.environ[ENVIRONMENT] = json.dumps(encode(serving))
            supervisor = Multiprocess(config, sockets=[listener])  # handles signals from here on
            announce(url)
            supervisor.run()


def in_worker() -> "Starlette":
    """The application of a worker process, which frees the port when the server is killed."""
    end_with_parent()
    from denature.serve.app import from_environment

    return from_environment()


def _check_apart(serving: Serving) -> None:
    """Check that the defenses of several workers need to know nothing of each other."""
    if serving.defense.defense_seed is not None:
        raise ConfigError(
            "With a defense seed all workers would add the same random numbers; leave "
            "--defense-seed or --workers out."
        )
    for served in serving.models:
        if served.chain.remembers:
            raise ConfigError(
                f"The defense {served.defense} of {served.name} remembers the answers that it "
                "gave, and several workers would each remember others; leave --workers out."
            )


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)  # so that a client can connect once the address is announced
        except OSError as error:
            raise ConfigError(
                f"The server cannot listen at {host}:{port}: {error.strerror or error}. Take "
                "another --port."
            ) from None
        yield listener
