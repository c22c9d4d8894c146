"""Which request may see what: callers by their keys, metrics by a token or on this machine."""

import hmac
import ipaddress
from typing import Any, final

from starlette.requests import Request

from denature.serve.keys import open_keys
from denature.serve.keys.base import Booking
from denature.serve.keys.process import StoreProcess
from denature.serve.keys.queue import ChargeQueue
from denature.serve.refusal import Refused


@final
class Access:
    """Checks and charges the callers of a server.

    Args:
        keys: file or URL of the accepted keys; None accepts every request.
        metrics_token: token that shows the metrics; None shows them on this machine alone.

    Raises:
        ConfigError: the keys cannot be used.
    """

    def __init__(self, keys: str | None, metrics_token: str | None) -> None:
        self._charges: ChargeQueue | None = None
        if keys is not None:
            open_keys(keys).close()  # so that faults surface at the start
            self._charges = ChargeQueue(StoreProcess(keys))
        self._token = metrics_token

    @property
    def has_keys(self) -> bool:
        return self._charges is not None

    def key(self, request: Request) -> str | None:
        """The key in a request's headers; None where none is needed.

        Raises:
            Refused: with 401, where one is needed and there is none.
        """
        return None if self._charges is None else _key(request)

    async def check_caller(self, request: Request, entry: dict[str, Any]) -> None:
        """Check that a request has a valid key, if the server has keys.

        Raises:
            Refused: with 401; with 503 where the keys cannot be looked up.
        """
        await self.charge(self.key(request), 0, entry)

    async def check_metrics(self, request: Request, entry: dict[str, Any]) -> None:
        """Check that a request may see the metrics.

        Raises:
            Refused: with 401 without the token, 403 from elsewhere where there is none.
        """
        if self._token is not None:
            if not hmac.compare_digest(_bearer(request).encode(), self._token.encode()):
                raise Refused(401, "The token of the metrics is needed: Authorization: Bearer ...")
        elif not _is_here(request):
            raise Refused(
                403, "Metrics are shown on the server's machine, or with --metrics-token."
            )

    async def charge(self, key: str | None, images: int, entry: dict[str, Any]) -> Booking | None:
        """Charge a key, and note its name in a log entry.

        Raises:
            Refused: with 401, 413, 429, or 503 where the keys cannot be looked up.
        """
        if self._charges is None:
            return None
        assert key is not None
        booking = await self._charges.book(key, images)
        entry["key"] = booking.key and booking.key.name
        booking.check()
        return booking

    def give_back(self, booking: Booking | None) -> None:
        """Undo a charge whose request was not answered."""
        if self._charges is not None and booking is not None:
            self._charges.give_back(booking)

    async def start(self) -> None:
        """Open the keys, before the first request."""
        if self._charges is not None:
            await self._charges.start()

    async def close(self) -> None:
        if self._charges is not None:
            await self._charges.close()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _key(request: Request) -> str:
    """The caller's key, from a bearer token or from X-API-Key."""
    key = _bearer(request) or request.headers.get("x-api-key", "")
    if not key:
        raise Refused(401, "A key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.")
    return key


def _is_here(request: Request) -> bool:
    """Whether a request comes from this machine, and not through a proxy on it."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via"))
    if request.client is None or forwarded:
        return False
    try:
        peer = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = peer.ipv4_mapped if isinstance(peer, ipaddress.IPv6Address) else None
    return (mapped or peer).is_loopback
