"""One HTTP connection, bounded in time, in bytes, and in what it has not read yet.

uvicorn's protocol class has no time-out for heads, no bound on their bytes, and goes on to read
requests whose predecessors are not answered yet.
"""

import asyncio
import json
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, final

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from denature.serve.connections import SLACK_S, STOP_S, Connections

HEAD = 1 << 15
"""Bytes of a request's head at most."""

UNWANTED = 1 << 24
"""Bytes of the rest of a declared body that are thrown away after a refusal, so that the client
comes to read it; more of them, or a rest of unknown length, end the connection."""

UNWANTED_S = 0.1
"""Seconds between two reads of such a rest, so that many of them cost little."""

PIECE = 1 << 10
"""Bytes that are parsed at a time where they may hold several requests."""

FEW_CHUNKS, CHUNK = 1 << 8, 64
"""A body may come in this many chunks, and in more if they have this many bytes on average."""

GONE = "gone"
"""In the state of a request: a function that says whether its client has gone."""

TOO_LARGE = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The head has more than {HEAD} bytes")

END = b"\r\n\r\n"
"""Ends each head, and each body in chunks."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    REST = auto()
    """The rest of a body whose request was refused already."""


@final
class BoundedConnection(HttpToolsProtocol):
    """See `denature.serve.connections.Connections`, which is part of the application's state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.peer = ""
        self._connections: Connections = app_state["connections"]
        limits = self._connections.limits
        self._head_s, self._body_s = limits.head_s, limits.body_s + SLACK_S
        self._held = b""
        self._phase = Phase.HEAD
        self._phase_bytes = 0
        self._chunks = self._body_bytes = self._trailer_bytes = 0
        self._moved = self._in_trailers = False
        self._wrong = (HTTPStatus.BAD_REQUEST, "This is no HTTP request")

    # The transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._own_flow = _Flow(transport)
        self.peer = self._connections.peer_of(self.client[0] if self.client is not None else "")
        if not self._connections.enter(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "All connections are at work; retry later")

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        self._connections.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.unread(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.read(self)

    def data_received(self, data: bytes) -> None:
        self._held += data
        self._feed()

    # The server's calls

    def abort(self) -> None:
        """Close at once, whatever was not sent."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Close, once a request that has arrived is answered."""
        self._connections.stop()
        if self._phase == Phase.BODY and not self.cycle.response_started:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The server stops; retry later")
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._enter(self._found())
        if self.transport.is_closing():  # what was written may be left unread
            self._connections.wait(self, self._head_s)
        elif self._held or self._phase == Phase.REST:
            self.loop.call_soon(self._feed)

    # From bytes to requests

    def _feed(self) -> None:
        """Parse what arrived, up to the end of the first request that is not answered yet."""
        data, at, self._moved = self._held, 0, False
        while at < len(data) and self._phase != Phase.ANSWER and not self.transport.is_closing():
            end = data.find(END, at + PIECE)
            end = len(data) if end < 0 else end + len(END)
            super().data_received(data[at:end])
            self._count(end - at)
            at = end
        self._held = b"" if self.transport.is_closing() else data[at:]
        self._own_flow.held = bool(self._held)
        # Until the application takes what it has; of framing alone it gets nothing to take.
        if self._held or (self._phase == Phase.BODY and self._moved):
            self.flow.pause_reading()
        elif self._phase == Phase.REST:
            self.flow.pause_reading()
            self.loop.call_later(UNWANTED_S, self._read_on)
        elif self._phase != Phase.ANSWER:
            self.flow.resume_reading()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _found(self) -> Phase:
        if self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
            return Phase.HEAD
        if self.cycle.response_complete:
            return Phase.REST
        return Phase.BODY if self.cycle.more_body else Phase.ANSWER

    def _enter(self, phase: Phase) -> None:
        if phase == self._phase:
            return
        self._phase, self._phase_bytes = phase, 0
        if phase == Phase.ANSWER:
            self._connections.work(self)
        else:
            self._connections.wait(self, self._body_s if phase == Phase.BODY else self._head_s)

    def _count(self, size: int) -> None:
        """Count bytes that were parsed, and end what has too many."""
        if (phase := self._found()) != self._phase:  # they belong to two phases
            self._enter(phase)
            return
        self._phase_bytes += size
        if self._phase == Phase.HEAD and self._phase_bytes > HEAD:
            self._refuse(*TOO_LARGE)
        elif self._phase == Phase.REST and self._phase_bytes > self._unwanted():
            self.transport.close()

    def _unwanted(self) -> int:
        """Bytes of the rest of a body that are thrown away."""
        declared = any(name == b"content-length" for name, _ in self.cycle.scope["headers"])
        return UNWANTED if declared else 0

    # The parser's calls; what they raise ends in `send_400_response`

    def on_message_begin(self) -> None:
        self._in_trailers = False
        super().on_message_begin()
        self.scope["state"][GONE] = self.transport.is_closing

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD:
            self._wrong = TOO_LARGE
            raise ValueError(TOO_LARGE)
        self._chunks = self._body_bytes = self._trailer_bytes = 0
        self._in_trailers = True
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; those behind a body are dropped, for they are no part of it."""
        if not self._in_trailers:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > HEAD:
            self._wrong = TOO_LARGE
            raise ValueError(TOO_LARGE)

    def on_body(self, body: bytes) -> None:
        self._chunks += 1
        self._body_bytes += len(body)
        if self._chunks > FEW_CHUNKS + self._body_bytes // CHUNK:
            self._wrong = (HTTPStatus.BAD_REQUEST, "The body comes in too many small chunks")
            raise ValueError(self._wrong)
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        super().on_message_complete()
        self.cycle.more_body = False

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._wrong)

    def _refuse(self, status: HTTPStatus, error: str) -> None:
        """Write a reply without asking the application, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_reply(status, error))
        self.transport.close()
        self._connections.wait(self, STOP_S)


class _Flow(FlowControl):
    """Reads nothing more while something is held that was read and not parsed."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


def _reply(status: HTTPStatus, error: str) -> bytes:
    body = json.dumps({"error": f"{error}."}).encode()
    retry = "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body
