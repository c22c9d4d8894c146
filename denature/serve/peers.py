"""All connections of a server process: how many there are, of whom, and for how long they wait."""

import asyncio
import ipaddress
import resource
from collections.abc import Sequence
from typing import Protocol, final

from denature.serve.config import Limits
from denature.serve.inflight import InFlight
from denature.serve.refusal import Refused

WAIT_S = 10.0
"""Seconds for the head of a request, and for the rest of a body that is not wanted."""

UNREAD_S = 60.0
"""Seconds for a client to read what it was answered."""

STOP_S = 3.0
"""Seconds for the same while the server stops."""

OTHER_FILES = 100
"""Files of a process that are no connections, at most."""


class Connection(Protocol):
    """A connection, as far as it is counted here."""

    peer: str
    """Address of the other side."""

    def abort(self) -> None:
        """Close at once, whatever was not sent; no method is called afterwards."""


@final
class _Peer:
    """The connections of one peer."""

    def __init__(self) -> None:
        self.count = 0
        self.waiting: dict[Connection, None] = {}


@final
class Connections:
    """Counts connections and ends those that wait too long.

    A connection *waits* from its beginning, and from the end of each reply, until the head of the
    next request is complete. It is *unread* while its client leaves more than a buffer of replies
    unread. Where too many connections are open, in all or of one peer, the one that has waited
    longest makes room: so half-open ones cannot lock others out, however many there are.

    Args:
        limits: bounds in all and for one peer.
        in_flight: counts the bytes that are unread.
        proxies: addresses or networks whose connections are bounded in all only.
    """

    def __init__(
        self, limits: Limits, in_flight: InFlight, proxies: Sequence[str] = ()
    ) -> None:
        self._most = min(limits.max_connections, _most_files() - OTHER_FILES)
        self._most_of_peer = limits.max_peer_connections
        self._in_flight = in_flight
        self._proxies = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._peers: dict[str, _Peer] = {}
        self._waiting: dict[Connection, float] = {}
        self._unread: dict[Connection, tuple[float, int]] = {}
        self._count = 0
        self._stops = False
        self._now = asyncio.get_running_loop().time

    def enter(self, connection: Connection) -> bool:
        """Count a new connection; False if there is no room, since all others are at work."""
        peer = self._peers.setdefault(connection.peer, _Peer())
        crowd: dict[Connection, None] | dict[Connection, float] | None = None
        if peer.count >= self._most_of_peer and not self._is_proxy(connection.peer):
            crowd = peer.waiting
        elif self._count >= self._most:
            crowd = self._waiting
        if crowd is not None:
            if (longest := next(iter(crowd), None)) is None:
                return False
            self._end(longest)
            self._peers.setdefault(connection.peer, peer)
        peer.count += 1
        self._count += 1
        self.wait(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Count a connection no more."""
        self.work(connection)
        self.read(connection)
        peer = self._peers[connection.peer]
        peer.count -= 1
        if not peer.count:
            del self._peers[connection.peer]
        self._count -= 1

    def wait(self, connection: Connection) -> None:
        """The connection waits for a request from now on."""
        self._waiting[connection] = self._now()
        self._peers[connection.peer].waiting[connection] = None

    def work(self, connection: Connection) -> None:
        """The connection has the head of a request."""
        self._waiting.pop(connection, None)
        self._peers[connection.peer].waiting.pop(connection, None)

    def unread(self, connection: Connection, size: int) -> None:
        """The client leaves this many bytes unread; too many of one peer end the connection."""
        self._unread[connection] = self._now(), 0
        try:
            self._in_flight.take(connection.peer, size)
        except Refused:
            self._end(connection)
        else:
            self._unread[connection] = self._now(), size

    def read(self, connection: Connection) -> None:
        """The client goes on reading."""
        _, size = self._unread.pop(connection, (0.0, 0))
        self._in_flight.take(connection.peer, -size)

    def stop(self) -> None:
        """Wait less, since the server stops."""
        self._stops = True

    async def watch(self) -> None:
        """End connections that wait, or are left unread, for too long."""
        while True:
            await asyncio.sleep(STOP_S / 4)
            now = self._now()
            wait_s, unread_s = (STOP_S, STOP_S) if self._stops else (WAIT_S, UNREAD_S)
            late = [c for c, since in self._waiting.items() if now - since > wait_s]
            late = [connection for connection in late if connection not in self._unread]
            late += [c for c, (since, _) in self._unread.items() if now - since > unread_s]
            for connection in late:
                self._end(connection)

    def _end(self, connection: Connection) -> None:
        self.leave(connection)
        connection.abort()

    def _is_proxy(self, peer: str) -> bool:
        if not self._proxies:
            return False
        address = ipaddress.ip_network(peer)
        return any(
            address.version == proxy.version and address.subnet_of(proxy)  # type: ignore[arg-type]
            for proxy in self._proxies
        )


def peer_of(host: str) -> str:
    """The network that counts as one peer: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None) or address
    return str(ipaddress.ip_network((mapped, 64 if mapped.version == 6 else 32), strict=False))


def raise_file_limit(limits: Limits) -> None:
    """Let this process open as many files as its connections need, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + OTHER_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _most_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
