"""Raw connections to a server, for clients that keep to no protocol."""

import socket

from tests.served import INFER, Served

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def post(path: str = INFER, *, length: int | None = None, **headers: str) -> bytes:
    """The head of a request, whose body is sent in chunks without a length."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: x", size]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def connect(served: Served, *, source: str = "127.0.0.1") -> socket.socket:
    """A connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", served.port), 30, source_address=(source, 0))


def reply(wire: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next reply; 0 where the connection ended."""
    text = b""
    while b"\r\n\r\n" not in text:
        if not (part := wire.recv(1)):
            return 0, text
        text += part
    head = text.decode().lower().split("\r\n")
    length = next(int(line[16:]) for line in head if line.startswith("content-length: "))
    body = b""
    while len(body) < length and (part := wire.recv(length - len(body))):
        body += part
    return int(head[0].split()[1]), body


def has_ended(wire: socket.socket) -> bool:
    """Whether the server ends a connection within 30 seconds."""
    try:
        while wire.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def is_live(served: Served, source: str = "127.0.0.1") -> bool:
    with connect(served, source=source) as wire:
        wire.sendall(LIVE)
        return reply(wire)[0] == 200
