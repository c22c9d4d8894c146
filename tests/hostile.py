"""A service over loopback that answers each request with the bytes that a test wants."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Answer = bytes | Iterator[bytes]
"""The bytes of a reply, or parts of it that are sent one by one."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hostile:
    answer: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            file = connection.makefile("rb")
            method, path, _ = file.readline().decode().split()
            lines = iter(file.readline, b"\r\n")
            pairs = (line.decode("latin-1").partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            body = file.read(int(headers.get("content-length", 0)))
            request = Request(method, path, headers, body)
            self.requests.append(request)
            answer = self.answer(request)
            for part in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(part)


@contextmanager
def hostile(answer: Callable[[Request], Answer]) -> Iterator[Hostile]:
    """A server in threads of this process, one connection for each request."""
    server = Hostile(answer)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.address = f"127.0.0.1:{listening.getsockname()[1]}"

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=server.serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def reply(
    body: Any, *, status: str = "200 OK", kind: str = "application/json", more: str = ""
) -> bytes:
    """An HTTP reply; anything but bytes is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Connection: close\r\n{more}\r\n".encode("latin-1") + data
