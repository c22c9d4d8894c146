"""A service with the Open Inference Protocol v2, such as KServe, Triton and MLServer.

Tensors are binary where the server supports them, else JSON. Replies are bounded in size, and
parsed by `protocol`.
"""

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Self, final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from denature.answers.kinds import ANSWER_KINDS, AnswerKind
from denature.core.errors import ConfigError, needs
from denature.extract.config import RequestConfig
from denature.extract.victims.base import AskFailed, VictimInfo, printable, retry_after
from denature.extract.victims.protocol import (
    LENGTH,
    MOST_CLASSES,
    NUMBER_BYTES,
    Address,
    RemoteSignature,
    read_reply,
    read_signature,
    request,
    table,
)

with needs("steal", "Querying a server"):
    import aiohttp
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
    from tenacity.wait import wait_random_exponential

LARGEST_REPLY = 1 << 26
"""Bytes of a reply at most, whatever the model's description implies."""

LARGEST_ERROR = 1 << 20
"""Bytes of a reply of another status than 200 at most."""

NOT_BILLED = (401, 403, 404, 429)
"""Statuses of requests that were rejected before any computation."""


@final
class OpenInference:
    """See `denature.extract.victims.find.find` for the arguments."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        output: str | None,
        kind: AnswerKind | None,
        top: int,
        key: str | None,
        pace: RequestConfig,
    ) -> None:
        _check_url(url)
        self._url, named, self._version = Address.of(url)
        if model is not None and named not in (None, model):
            raise ConfigError(f"The URL names the model {named}, and --model {model}; name one.")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigError("The key has characters that no header can hold.")
        self._key = key
        self._model, self._output, self._kind, self._top = model or named, output, kind, top
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._pace = pace
        self._session: aiohttp.ClientSession | None = None
        self._signature: RemoteSignature | None = None
        self._binary = False

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._pace.timeout_s),
            connector=aiohttp.TCPConnector(limit=self._pace.concurrency),
            headers={**self._headers, "Accept-Encoding": "identity"},
            auto_decompress=False,  # a small reply must not unpack to a large one
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()
        self._session = None

    async def about(self) -> VictimInfo:
        model = await self._named()
        server = table(await self._look("GET", "/v2"), "the server's description")
        extensions = server.get("extensions")
        self._binary = isinstance(extensions, list) and "binary_tensor_data" in extensions
        described = await self._look("GET", self._path)
        self._signature = signature = read_signature(described, self._output, kind=self._kind)
        if self._top and not (isinstance(extensions, list) and "classification" in extensions):
            raise ConfigError(f"{self._url} cannot return the largest values only; leave out top.")
        kind = self._kind
        if kind is None and signature.output in ANSWER_KINDS:
            kind = next(name for name in ANSWER_KINDS if name == signature.output)
        channels, height, width = signature.shape
        if height != width:
            raise ConfigError(
                f"{model} takes images of {height} x {width} pixels; wanted are square ones."
            )
        return VictimInfo(
            target=f"{self._url}{self._path}",
            options={"output": signature.output} | ({"top": str(self._top)} if self._top else {}),
            kind=kind,
            classes=signature.classes,
            names=signature.names,
            unread=signature.unread,
            channels=None if channels < 0 else channels,
            image_size=None if height < 0 else height,
        )

    @property
    def _path(self) -> str:
        """Path of the model, once its name is known."""
        version = "" if self._version is None else f"/versions/{self._version}"
        return f"/v2/models/{self._model}{version}"

    async def _named(self) -> str:
        """The model's name; if none was given, the name of the only model."""
        if self._model is not None:
            for name in (self._model, self._version or "1"):
                if not _is_name(name):
                    raise ConfigError(f"A model, or its version, cannot be called {name!r}.")
            return self._model
        listed = await self._look("POST", "/v2/repository/index")
        entries = listed if isinstance(listed, list) else []
        models = [entry for entry in entries if isinstance(entry, dict)]
        names = [model["name"] for model in models if _is_name(model.get("name"))]
        if len(names) != 1:
            served = printable(", ".join(names[:20])) or "no model that it lists"
            raise ConfigError(f"{self._url} serves {served}; choose one with --model.")
        [self._model] = names
        return str(self._model)

    async def _look(self, method: str, path: str) -> Any:
        """Metadata of a server, which costs no query, with retries where they can help."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, AskFailed) and error.again),
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        ):
            with attempt:
                body, _ = await self._fetch(
                    method, path, json={} if method == "POST" else None, limit=1 << 20
                )
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            raise ConfigError(
                f"{self._url}{path} did not answer with JSON; is it an Open Inference server?"
            ) from None

    async def _fetch(
        self, method: str, path: str, *, limit: int, **sent: Any
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send one request, and return the body and the headers of its reply.

        Raises:
            AskFailed: no reply, or a status other than 200.
        """
        assert self._session is not None
        url = self._url + path
        try:
            async with self._session.request(
                method, url, allow_redirects=False, **sent
            ) as response:
                most = limit if response.status == 200 else min(limit, LARGEST_ERROR)
                body = await _read(response, most)
        except aiohttp.ClientConnectorError as error:
            raise AskFailed(
                f"{self._url} cannot be reached: {_line(error)}.", again=True, billed=False
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AskFailed(
                f"The connection to {self._url} was lost: {_line(error)}.", again=True, billed=True
            ) from None
        except ValueError as error:  # a reply arrived, but it is no answer
            raise AskFailed(f"{url}: {error}.", again=False, billed=True) from None
        if response.status == 200:
            return body, response.headers
        message = _message(body)
        if self._key is not None:
            message = message.replace(self._key, "...")
        raise AskFailed(
            f"{url} answered {response.status}: {message}",
            again=response.status == 429 or response.status >= 500,
            billed=response.status not in NOT_BILLED,
            wait_s=retry_after(response.headers.get("Retry-After")),
        )

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        if self._signature is None:
            await self.about()
        signature = self._signature
        assert signature is not None
        make = partial(request, images, signature, id=id, binary=self._binary, top=self._top)
        # JSON of many numbers is slow to write, so a thread keeps the event loop free.
        body, headers = make() if self._binary else await asyncio.to_thread(make)
        size = len(images) * (signature.classes or MOST_CLASSES) * NUMBER_BYTES + (1 << 16)
        path = f"{self._path}/infer"
        reply, reply_headers = await self._fetch(
            "POST", path, limit=min(size, LARGEST_REPLY), data=body, headers=headers
        )
        try:
            return read_reply(reply, reply_headers.get(LENGTH), signature, count=len(images))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise AskFailed(
                f"{self._url}{path} sent an invalid reply: {_line(error)[:300]}.",
                again=False,
                billed=True,
            ) from None


def _is_name(name: object) -> bool:
    """Whether a name is valid in a path."""
    return isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}", name, re.ASCII) is not None


def _check_url(url: str) -> None:
    """Reject a URL that is no address, or holds secrets that would be stored.

    Raises:
        ConfigError: the URL is invalid, or has a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        good = bool(host) and bool((host or "").encode("idna"))
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good:
        raise ConfigError(
            f"{url!r} is no URL of a server; wanted is a form such as http://host:8000."
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"Passwords and parameters of the URL of {parts.hostname} would be stored on disk; "
            "leave them out, and give a key by DENATURE_KEY or --key-file."
        )


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body of a reply.

    Raises:
        ValueError: the body is compressed without a request for it, or exceeds `limit` bytes.
    """
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise ValueError(f"the reply is compressed as {encoding[:32]!r}, without a request for it")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > limit:
            raise ValueError(f"the reply has more than {limit:,} bytes")
    return bytes(body)


def _message(body: bytes) -> str:
    """A server's error message in printable form."""
    try:
        message = str(msgspec.json.decode(body)["error"])
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, RecursionError):
        message = body.decode("utf-8", "replace")
    return printable(message)[:300] or "no message"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
