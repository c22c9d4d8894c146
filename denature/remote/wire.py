"""HTTP to a service that is not trusted: a deadline, bounds, and no texts that hold a secret."""

import datetime
import math
import ssl
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Self, final

import aiohttp

from denature.core.text import line_of
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.remote.redaction import server_text

LONGEST_ERROR = 1 << 16
"""Bytes that are read of a reply with another status than 200."""


class Response(NamedTuple):
    """A reply with any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def wait_s(self) -> float | None:
        """Seconds of the Retry-After header."""
        return retry_after(self.headers.get("Retry-After"))


@final
class Wire:
    """Connections to one service; a context that is entered before requests.

    Args:
        address: name of the service in errors.
        pace: the deadline of a request, from its connection to the last byte, and connections.
        tls: trusted certificates; the system's by default.
        proxies: whether proxies of the environment are used.
    """

    def __init__(
        self,
        address: str,
        pace: RequestConfig,
        *,
        tls: ssl.SSLContext | None = None,
        proxies: bool = False,
    ) -> None:
        self._address, self._pace, self._tls, self._proxies = address, pace, tls, proxies
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._pace.timeout_s),
            connector=aiohttp.TCPConnector(
                limit=self._pace.concurrency, ssl=True if self._tls is None else self._tls
            ),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,  # a small reply must not unpack to a large one
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._proxies,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()
        self._session = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: bytes | None = None,
        limit: int,
        secrets: Sequence[str],
    ) -> Response:
        """Send one request and read its reply, of `limit` bytes at most where its status is 200.

        Args:
            method: of HTTP.
            url: of the service.
            headers: of the request.
            data: its body.
            limit: bytes of an answer.
            secrets: what the request holds and no text may repeat.

        Raises:
            AskFailed: no reply before the deadline, a lost connection, or a reply that is too
                large or compressed.
        """
        assert self._session is not None
        try:
            async with self._session.request(
                method, url, headers=headers, data=data, allow_redirects=False
            ) as response:
                body = await _read(response, limit)
        except aiohttp.ClientConnectorError as error:
            # aiohttp names its default of TLS for http:// as well.
            said = server_text(line_of(error).replace(" ssl:default", ""), secrets)
            raise AskFailed(
                f"{self._address} cannot be reached: {said}. Does the server run there?",
                again=True,
                billed=False,
            ) from None
        except TimeoutError:
            raise AskFailed(
                f"{self._address} sent no whole reply within {self._pace.timeout_s:g} s.",
                again=True,
                billed=True,
            ) from None
        except aiohttp.ClientError as error:
            said = server_text(line_of(error), secrets)
            raise AskFailed(
                f"The connection to {self._address} was lost: {said}.", again=True, billed=True
            ) from None
        except ValueError as error:  # a reply arrived, but it is no answer
            said = server_text(str(error), secrets)
            raise AskFailed(f"{self._address}: {said}.", again=False, billed=True) from None
        return Response(response.status, response.headers, body)


async def _read(response: Any, limit: int) -> bytes:
    """The body of a reply; of an error its beginning.

    Raises:
        ValueError: the body is compressed without a request for it, or exceeds `limit` bytes.
    """
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise ValueError(f"the reply is compressed as {encoding!r}, without a request for it")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if response.status != 200 and len(body) >= LONGEST_ERROR:
            response.close()
            return bytes(body[:LONGEST_ERROR])
        if len(body) > limit:
            raise ValueError(f"the reply has more than {limit:,} bytes")
    return bytes(body)


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None for anything else."""
    if header is None:
        return None
    if header.isascii() and header.strip().isdigit():
        return float(header) if len(header) < 12 else math.inf
    try:
        until = parsedate_to_datetime(header)
        until = until if until.tzinfo is not None else until.replace(tzinfo=datetime.UTC)
        return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
