"""A model of a server with the Open Inference Protocol v2, such as KServe, Triton and MLServer.

Tensors are binary where the server supports them, else JSON. Replies are bounded in size, and
parsed by `protocol`.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self, final
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from denature.answers.kinds import ANSWER_KINDS, AnswerKind
from denature.core.errors import ConfigError
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.remote.other_api import OPENAPI, WAYS, described, posted_paths
from denature.remote.protocol import (
    LENGTH,
    MOST_CLASSES,
    NUMBER_BYTES,
    Address,
    read_reply,
    read_signature,
    request,
    table,
)
from denature.remote.redaction import server_text, without_secrets
from denature.remote.signature import RemoteSignature
from denature.remote.wire import Response, Wire

LARGEST_REPLY = 1 << 26
"""Bytes of a reply at most, whatever the model's description implies."""

FEW = 1 << 14
"""Numbers that are written as JSON in less than a millisecond."""

JSON = {"Content-Type": "application/json"}

NO_SUCH_PATH = (400, 404, 405, 406, 410, 415, 422, 501)
"""Statuses of a server that does not know a path of the protocol."""

NOT_BILLED = (401, 403, 404, 429)
"""Statuses of requests that were rejected before any computation."""


@final
class InferenceService:
    """One model of a server; a context that is entered before requests.

    Args:
        url: of the server, or of the model.
        model: its name; the server's only model by default.
        output: its output; the only one by default.
        kind: kind of the answers, where the caller knows it.
        top: request this many of the largest values only; 0 for all.
        key: bearer token.
        pace: timeouts and connections.

    Raises:
        ConfigError: the URL is none, or it, the model or the output holds the key.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        output: str | None,
        kind: AnswerKind | None,
        top: int = 0,
        key: str | None,
        pace: RequestConfig,
    ) -> None:
        _check_url(url)
        self.url, named, self._version = Address.of(url)
        if model is not None and named not in (None, model):
            raise ConfigError(f"The URL names the model {named}, and --model {model}; name one.")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigError("The key has characters that no header can hold.")
        self._secrets = () if key is None else (key,)
        _check_secrets(self._secrets, url, model, output)
        self._model, self._output, self._kind, self._top = model or named, output, kind, top
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._wire = Wire(self.url, pace)
        self._signature: RemoteSignature | None = None
        self._binary = False

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._wire.__aexit__(*error)

    @property
    def kind(self) -> AnswerKind | None:
        """Kind of the answers: the caller's, labels for integers, or what the output's name says.

        A gateway keeps the name `probabilities` where it shows labels.
        """
        if self._kind or self._signature is None:
            return self._kind
        if self._signature.labels:
            return "label"
        return next((kind for kind in ANSWER_KINDS if kind == self._signature.output), None)

    @property
    def model(self) -> str | None:
        """The model's name, where it was named."""
        return self._model

    @property
    def path(self) -> str:
        """Path of the model, once its name is known."""
        version = "" if self._version is None else f"/versions/{self._version}"
        return f"/v2/models/{self._model}{version}"

    async def signature(self) -> RemoteSignature:
        """Input and output of the model, as the server describes them.

        Raises:
            AskFailed: the server does not answer.
            ConfigError: it has no such model, or one that does not take images.
        """
        if self._signature is None:
            server = await self._server()
            await self._named()
            extensions = server.get("extensions")
            known = extensions if isinstance(extensions, list) else []
            self._binary = "binary_tensor_data" in known
            about = await self._look("GET", self.path)
            if self._top and "classification" not in known:
                raise ConfigError(
                    f"{self.url} cannot return the largest values only; leave out top."
                )
            self._signature = read_signature(about, self._output, kind=self._kind)
        return self._signature

    async def ready(self) -> bool:
        """Whether the server says that it can answer."""
        try:
            await self._fetch("GET", "/v2/health/ready", data=None, headers={}, limit=1 << 16)
        except AskFailed:
            return False
        return True

    async def names(self) -> list[str]:
        """Names of the models that the server lists.

        Raises:
            AskFailed: the server does not answer.
            ConfigError: it lists none, and its address names none.
        """
        try:
            listed = await self._look("POST", "/v2/repository/index")
        except AskFailed as failed:
            if failed.status not in NO_SUCH_PATH:
                raise
            raise ConfigError(
                f"{str(failed).rstrip('.')}. A server without a list of its models is named with "
                f"one of them: {self.url}/v2/models/NAME."
            ) from None
        entries = listed if isinstance(listed, list) else []
        models = [entry for entry in entries if isinstance(entry, dict)]
        return [model["name"] for model in models if _is_name(model.get("name"))]

    async def _server(self) -> dict[str, Any]:
        """The server's description of itself.

        Raises:
            ConfigError: another API answers at this URL.
        """
        try:
            return table(await self._look("GET", "/v2"), "the server's description")
        except AskFailed as failed:
            if failed.status not in NO_SUCH_PATH:
                raise
            said = str(failed)
        except ConfigError as error:
            said = str(error)
        root = "{0.scheme}://{0.netloc}".format(urlsplit(self.url))
        api = None
        with suppress(AskFailed):
            response = await self._wire.send(
                "GET", root + OPENAPI, headers=self._headers, limit=1 << 20, secrets=self._secrets
            )
            api = response.body if response.status == 200 else None
        paths = posted_paths(api, self._secrets)
        raise ConfigError(
            f"{self.url} is no Open Inference server: {said.rstrip('.?')}.{paths} {WAYS}"
        )

    async def _named(self) -> None:
        """Find the model's name; if none was given, that of the only model."""
        if self._model is not None:
            for name in (self._model, self._version or "1"):
                if not _is_name(name):
                    raise ConfigError(f"A model, or its version, cannot be called {name!r}.")
            return
        names = await self.names()
        if len(names) != 1:
            served = ", ".join(names[:20]) or "no model that it lists"
            raise ConfigError(f"{self.url} serves {served}; choose one with --model.")
        [self._model] = names

    async def _look(self, method: str, path: str) -> Any:
        """Metadata of a server, which costs no query, with retries where they can help."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, AskFailed) and error.again),
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        ):
            with attempt:
                posted = b"{}" if method == "POST" else None
                body, shown = await self._fetch(
                    method, path, data=posted, headers=JSON if posted else {}, limit=1 << 20
                )
        try:
            return without_secrets(msgspec.json.decode(body), self._secrets)
        except (msgspec.DecodeError, RecursionError):
            found = described(body, shown.get("Content-Type"), self._secrets)
            raise ConfigError(
                f"{self.url}{path} did not answer with JSON, but with {found}."
            ) from None

    async def _fetch(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None,
        headers: Mapping[str, str],
        limit: int,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send one request, and return the body and the headers of its reply.

        Raises:
            AskFailed: no reply, or a status other than 200.
        """
        response = await self._wire.send(
            method,
            self.url + path,
            headers={**self._headers, **headers},
            data=data,
            limit=limit,
            secrets=self._secrets,
        )
        if response.status == 200:
            return response.body, response.headers
        keyless = response.status == 401 and not self._secrets
        hint = " DENATURE_KEY, or a file named by --key-file, holds the key." if keyless else ""
        raise AskFailed(
            f"{self.url}{path} answered {response.status}: {self._message(response)}{hint}",
            again=response.status == 429 or response.status >= 500,
            billed=response.status not in NOT_BILLED,
            wait_s=response.wait_s,
            status=response.status,
        )

    def _message(self, response: Response) -> str:
        """A server's error message, as it may be shown."""
        try:
            message = msgspec.json.decode(response.body)["error"]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError, RecursionError):
            message = response.body.decode("utf-8", "replace")
        return server_text(str(message), self._secrets) or "no message"

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        """Send one request, without retries.

        Args:
            images: of a datatype that the model takes, and in its order of dimensions.
            id: identifier of the request, for logs on both sides.

        Returns:
            float32, batch x classes, NaN where a value is hidden; or int64, batch, for labels.

        Raises:
            AskFailed: the request got no answer.
        """
        signature = await self.signature()
        make = partial(request, images, signature, id=id, binary=self._binary, top=self._top)
        # JSON of many numbers is slow to write, so a thread keeps the event loop free.
        quick = self._binary or images.size <= FEW
        body, headers = make() if quick else await asyncio.to_thread(make)
        size = len(images) * (signature.classes or MOST_CLASSES) * NUMBER_BYTES + (1 << 16)
        path = f"{self.path}/infer"
        reply, reply_headers = await self._fetch(
            "POST", path, limit=min(size, LARGEST_REPLY), data=body, headers=headers
        )
        try:
            return read_reply(reply, reply_headers.get(LENGTH), signature, count=len(images))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            said = server_text(str(error) or type(error).__name__, self._secrets)
            raise AskFailed(
                f"{self.url}{path} sent an invalid reply: {said}.",
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


def _check_secrets(secrets: Sequence[str], *texts: str | None) -> None:
    """Reject a key within what is stored: the URL, the model's name, the output's.

    Raises:
        ConfigError: the key is there.
    """
    if any(key in unquote(text) for key in secrets for text in texts if text and len(key) > 3):
        raise ConfigError(
            "The key is a part of the URL, of --model or of --output, which are stored on disk; "
            "leave it out there."
        )
