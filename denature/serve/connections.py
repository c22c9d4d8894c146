"""All connections of a server process: how many there are, of whom, and for how long they wait."""

import asyncio
import ipaddress
import math
import resource
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol, final

from denature.serve.config import ServerLimits
from denature.serve.inflight import InFlight
from denature.serve.refusal import Refused

SLACK_S = 5.0
"""Seconds for the application to answer that a body took too long, before its connection ends."""

STOP_S = 3.0
"""Seconds for heads, and for answers to be read, while the server stops."""

OTHER_FILES = 100
"""Files of a process that are no connections, at most."""


PROXIES = "proxies"
"""The peer that is bounded only with all others."""


class Connection(Protocol):
    """A connection, as far as it is counted here."""

    peer: str
    """See `Connections.peer_of`."""

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

    A connection *waits* from its beginning, and from the end of each reply, until the next request
    is complete. It is *unread* while its client leaves more than a buffer of replies
    unread. Where too many connections are open, in all or of one peer, the one that has waited
    longest makes room: so half-open ones cannot lock others out, however many there are.

    Args:
        limits: bounds in all and for one peer.
        in_flight: counts the bytes that are unread.
        proxies: addresses or networks whose connections are bounded in all only.
    """

    def __init__(
        self, limits: ServerLimits, in_flight: InFlight, proxies: Sequence[str] = ()
    ) -> None:
        self._most = max(1, min(limits.max_connections, _most_files() - OTHER_FILES))
        self.limits = limits
        self._most_of_peer = limits.max_peer_connections
        self._in_flight = in_flight
        self._proxies = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._peers: dict[str, _Peer] = {}
        self._all: set[Connection] = set()
        self._waiting: dict[Connection, float] = {}
        self._unread: dict[Connection, tuple[float, int]] = {}
        self._stops = False
        self._now = asyncio.get_running_loop().time

    def enter(self, connection: Connection) -> bool:
        """Count a new connection; False if there is no room, since all others are at work."""
        peer = self._peers.get(connection.peer)
        crowd: Iterable[Connection] | None = None
        if peer and peer.count >= self._most_of_peer and connection.peer != PROXIES:
            crowd = peer.waiting
        elif len(self._all) >= self._most:
            crowd = self._waiting
        if crowd is not None:
            if (longest := next(iter(crowd), None)) is None:
                return False
            self._end(longest)
        self._peers.setdefault(connection.peer, _Peer()).count += 1
        self._all.add(connection)
        self.wait(connection, self.limits.head_s)
        return True

    def leave(self, connection: Connection) -> None:
        """Count a connection no more, if it was counted."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        self.work(connection)
        self.read(connection)
        peer = self._peers[connection.peer]
        peer.count -= 1
        if not peer.count:
            del self._peers[connection.peer]

    def wait(self, connection: Connection, seconds: float) -> None:
        """The connection waits for something from now on, for some seconds at most."""
        if connection in self._all:
            self.work(connection)
            self._waiting[connection] = self._now() + seconds
            self._peers[connection.peer].waiting[connection] = None

    def work(self, connection: Connection) -> None:
        """The connection has a whole request, which is to be answered."""
        if self._waiting.pop(connection, None) is not None:
            del self._peers[connection.peer].waiting[connection]

    def unread(self, connection: Connection, size: int) -> None:
        """The client leaves this many bytes unread; too many of one peer end the connection."""
        if connection not in self._all:
            return
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
        """Wait no longer than a moment, since the server stops."""
        if not self._stops:
            self._stops = True
            soon = self._now() + STOP_S
            self._waiting = {each: min(until, soon) for each, until in self._waiting.items()}

    async def watch(self) -> None:
        """End connections that wait, or are left unread, for too long."""
        every_s = min(1.0, self.limits.head_s / 4, self.limits.unread_s / 4)
        while True:
            await asyncio.sleep(every_s)
            now, unread_s = self._now(), STOP_S if self._stops else self.limits.unread_s
            late = [
                connection
                for connection, until in self._waiting.items()
                if now > until and connection not in self._unread
            ]
            late += [c for c, (since, _) in self._unread.items() if now - since > unread_s]
            for connection in late:
                self._end(connection)

    def _end(self, connection: Connection) -> None:
        self.leave(connection)
        connection.abort()

    def peer_of(self, host: str) -> str:
        """What counts as one peer: a network, or `PROXIES`."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return PROXIES
        trusted = any(address in proxy for proxy in self._proxies)
        return PROXIES if trusted else network_of(host)


@lru_cache(maxsize=1024)
def network_of(host: str) -> str:
    """What one client can have all of: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    if address.version == 4:
        return str(address)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def raise_file_limit(limits: ServerLimits) -> None:
    """Let this process open as many files as its connections need, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))


def _most_files() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
