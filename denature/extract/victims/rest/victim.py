"""A victim behind an HTTP API."""

import asyncio
import hashlib
import json
from typing import Any, NamedTuple, Self, final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from denature.core.errors import ConfigError
from denature.core.schema import encode
from denature.core.untrusted import check_cost
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.rest.body import Body, body_of, check_template
from denature.extract.victims.rest.reading import ReplyReader
from denature.extract.victims.rest.spec import RestSpec, filled, secrets_of
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.remote.redaction import server_text
from denature.remote.wire import Response, Wire

LARGEST_REPLY = 1 << 26
"""Bytes of a reply at most."""

SHOWN = 200
"""Characters of a reply that errors show."""


class Exchange(NamedTuple):
    """A request as it was sent, and its reply, without secrets."""

    method: str
    url: str
    headers: dict[str, str]
    body: Body
    response: Response


@final
class RestVictim:
    """See `RestSpec`.

    Raises:
        ConfigError: a variable of the environment, the body's template or a path is missing or
            wrong.
    """

    def __init__(self, spec: RestSpec, *, pace: RequestConfig) -> None:
        values = secrets_of(spec)
        self._secrets = tuple(values.values())
        self._spec, self._url = spec, filled(spec.url, values)
        parts = urlsplit(self._url)
        if not parts.hostname or parts.username is not None:
            raise ConfigError(f"{spec.url!r} is no URL of a server, or holds a password.")
        self._headers = {name: filled(text, values) for name, text in spec.headers.items()}
        for name, text in self._headers.items():
            if not (name.isascii() and text.isascii() and (name + text).isprintable()):
                raise ConfigError(f"The header {name!r} has characters that no header can hold.")
        check_template(spec.request)
        self._reader = ReplyReader(spec.reply)
        self._wire = Wire(spec.url, pace)

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._wire.__aexit__(*error)

    async def about(self) -> VictimInfo:
        spec = self._spec
        # What changes answers is a part of the identity; prices and retries are not.
        fields = {k: v for k, v in encode(spec).items() if k not in ("retry", "price_per_1000")}
        text = json.dumps(fields, sort_keys=True)
        return VictimInfo(
            target=spec.url,
            options={"description": hashlib.sha256(text.encode()).hexdigest()[:16]},
            kind=spec.reply.shown,
            classes=len(spec.reply.classes) or None,
            names=spec.reply.classes,
            channels=spec.image.takes,
            image_size=spec.image.size,
            most=spec.request.batch,
        )

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        response = (await self.exchange(images)).response
        if response.status != 200:
            raise AskFailed(
                f"{self._spec.url} answered {response.status}: {self.excerpt(response.body)}",
                again=response.status in self._spec.retry.statuses,
                billed=response.status not in self._spec.retry.free,
                wait_s=response.wait_s,
                status=response.status,
            )
        try:
            return self.read(response.body, count=len(images))
        except ValueError as error:
            raise AskFailed(
                f"The description does not fit the reply of {self._spec.url}: {error}. It was: "
                f"{self.excerpt(response.body)}",
                again=False,
                billed=True,
            ) from None

    async def exchange(self, images: np.ndarray) -> Exchange:
        """Send one request, and return it with its reply of any status."""
        spec = self._spec
        body = await asyncio.to_thread(body_of, images, spec.image, spec.request)
        headers = {**self._headers, "Content-Type": body.type}
        response = await self._wire.send(
            spec.method,
            self._url,
            headers=headers,
            data=body.content,
            limit=LARGEST_REPLY,
            secrets=self._secrets,
        )
        return Exchange(spec.method, spec.url, {**spec.headers, "Content-Type": body.type}, body,
                        response)  # fmt: skip

    def read(self, reply: bytes, *, count: int) -> np.ndarray:
        """The answers in a reply.

        Raises:
            ValueError: it is no JSON, or has other values than the description says; without
                secrets.
        """
        try:
            check_cost(reply)
            plain: Any = msgspec.json.decode(reply)
            return self._reader.read(plain, count=count)
        except (msgspec.DecodeError, RecursionError) as error:
            said = f"no JSON ({error})"
        except ValueError as error:
            said = str(error)
        raise ValueError(server_text(said, self._secrets))

    def excerpt(self, reply: bytes) -> str:
        """The beginning of a reply, without secrets."""
        text = reply.decode("utf-8", "replace")
        return server_text(text, self._secrets, most=SHOWN) or "nothing"
