"""A service that speaks the Open Inference Protocol v2, as KServe, Triton and MLServer do.

In binary where the server can, else in JSON. What comes back is somebody else's word: its size,
shape, type and numbers are checked before anything is made of it.
"""

import asyncio
import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Self, TypeAlias, final, get_args
from urllib.parse import urlsplit

import aiohttp
import msgspec
import numpy as np
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from denature.answers.sources import Kind
from denature.core.errors import ConfigError
from denature.extract.config import Pace
from denature.extract.victims.base import About, AskFailed, printable

LENGTH = "Inference-Header-Content-Length"

DType: TypeAlias = np.dtype[Any]

FLOATS: dict[str, DType] = {f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)}
WHOLES: dict[str, DType] = {
    f"{sign}INT{8 * size}": np.dtype(f"<{'u' if sign else 'i'}{size}")
    for sign in ("", "U")
    for size in (1, 2, 4, 8)
}
DTYPES = FLOATS | WHOLES

NUMBER_BYTES = 64
"""Of a reply a number at its longest, with a class's name beside it."""

MOST_CLASSES = 1_000_000

LARGEST_REPLY = 1 << 26
"""Bytes of a reply from which it is no answer, whatever the model says of itself."""

MOST_SIZES = 8
"""Of a tensor's shape."""

NOT_BILLED = (401, 403, 404, 429)
"""Statuses of requests that were turned away before anything was computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What a model takes and shows."""

    input: str
    datatype: str
    shape: tuple[int, int, int]
    """Channels, height, width of an image; -1 where any."""
    channels_last: bool
    output: str
    output_datatype: str
    classes: int | None


@final
class OpenInference:
    """See `denature.extract.victims.find.find` for the arguments."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        output: str | None,
        kind: Kind | None,
        top: int,
        key: str | None,
        pace: Pace,
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v2")
        _check_url(self._url)
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigError("The key has characters that no header can hold.")
        self._key = key
        self._model, self._output, self._kind, self._top = model, output, kind, top
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._pace = pace
        self._session: aiohttp.ClientSession | None = None
        self._signature: Signature | None = None
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

    async def about(self) -> About:
        model = await self._named()
        server = _table(await self._look("GET", "/v2"), "the server's description")
        extensions = server.get("extensions")
        self._binary = isinstance(extensions, list) and "binary_tensor_data" in extensions
        described = await self._look("GET", f"/v2/models/{model}")
        self._signature = found = read_signature(described, self._output)
        if self._top and not (isinstance(extensions, list) and "classification" in extensions):
            raise ConfigError(f"{self._url} does not offer the largest values only; leave out top.")
        kind = self._kind
        if kind is None and found.output in get_args(Kind):
            kind = next(it for it in get_args(Kind) if it == found.output)
        channels, height, width = found.shape
        if height != width:
            raise ConfigError(
                f"{model} takes images of {height} x {width} pixels; denature knows square ones."
            )
        return About(
            target=f"{self._url}/v2/models/{model}",
            options={"output": found.output} | ({"top": str(self._top)} if self._top else {}),
            kind=kind,
            classes=found.classes,
            channels=None if channels < 0 else channels,
            image_size=None if height < 0 else height,
        )

    async def _named(self) -> str:
        """The model's name; where none was given, the only one that there is."""
        if self._model is not None:
            if not _is_name(self._model):
                raise ConfigError(f"A model cannot be called {self._model!r}.")
            return self._model
        listed = await self._look("POST", "/v2/repository/index")
        models = [it for it in listed if isinstance(it, dict)] if isinstance(listed, list) else []
        names = [it["name"] for it in models if _is_name(it.get("name"))]
        if len(names) != 1:
            told = printable(", ".join(names[:20])) or "nothing that it lists"
            raise ConfigError(f"{self._url} serves {told}; say with --model which one is meant.")
        [self._model] = names
        return str(self._model)

    async def _look(self, method: str, path: str) -> Any:
        """Something that a server tells for nothing, asked a few times where that can help."""
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
                f"{self._url}{path} answered no JSON; is it an Open Inference server?"
            ) from None

    async def _fetch(
        self, method: str, path: str, *, limit: int, **sent: Any
    ) -> tuple[bytes, Mapping[str, str]]:
        """One request and the body of its reply, with its headers.

        Raises:
            AskFailed: there was no reply, or another than 200.
        """
        assert self._session is not None
        url = self._url + path
        try:
            async with self._session.request(
                method, url, allow_redirects=False, **sent
            ) as response:
                body = await _read(response, limit)
        except aiohttp.ClientConnectorError as error:
            raise AskFailed(
                f"{self._url} cannot be reached: {_line(error)}.", again=True, billed=False
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AskFailed(
                f"{self._url} was lost: {_line(error)}.", again=True, billed=True
            ) from None
        except ValueError as error:  # it came, and is no answer
            raise AskFailed(f"{url}: {error}.", again=False, billed=True) from None
        if response.status == 200:
            return body, response.headers
        said = _said(body)
        if self._key is not None:
            said = said.replace(self._key, "...")
        raise AskFailed(
            f"{url} answered {response.status}: {said}",
            again=response.status == 429 or response.status >= 500,
            billed=response.status not in NOT_BILLED,
            wait_s=_wait(response.headers.get("Retry-After")),
        )

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        if self._signature is None:
            await self.about()
        signature = self._signature
        assert signature is not None
        make = partial(request, images, signature, id=id, binary=self._binary, top=self._top)
        # Numbers as text take their time, and others wait for theirs meanwhile.
        body, headers = make() if self._binary else await asyncio.to_thread(make)
        size = len(images) * (signature.classes or MOST_CLASSES) * NUMBER_BYTES + (1 << 16)
        path = f"/v2/models/{self._model}/infer"
        found, about = await self._fetch(
            "POST", path, limit=min(size, LARGEST_REPLY), data=body, headers=headers
        )
        try:
            return read_reply(found, about.get(LENGTH), signature, count=len(images))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise AskFailed(
                f"{self._url}{path} answered what is no answer: {_line(error)[:300]}.",
                again=False,
                billed=True,
            ) from None


def _is_name(name: object) -> bool:
    """Whether this can stand in a path."""
    return isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}", name, re.ASCII) is not None


def _check_url(url: str) -> None:
    """Refuse what cannot be an address, or holds what would be written down.

    Raises:
        ConfigError: it is such a URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        good = bool(host) and bool((host or "").encode("idna"))
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good:
        raise ConfigError(f"{url!r} is no URL of a server; wanted is such as http://host:8000.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"Passwords and parameters of the URL of {parts.hostname} would be written down; leave "
            "them out, and name a key by DENATURE_KEY or --key-file."
        )


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """All of a reply.

    Raises:
        ValueError: it is packed, though nobody asked for that, or has more than `limit` bytes.
    """
    if (packed := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise ValueError(f"the reply is packed as {packed[:32]!r}, unasked")
    found = bytearray()
    async for part in response.content.iter_any():
        found += part
        if len(found) > limit:
            raise ValueError(f"the reply has more than {limit:,} bytes")
    return bytes(found)


def read_signature(described: object, output: str | None) -> Signature:
    """A model's metadata.

    Args:
        described: what the server said.
        output: which of several outputs.

    Raises:
        ConfigError: it does not take images, or has several outputs and none was named.
    """
    model = _table(described, "a model's description")
    inputs, outputs = _tensors(model, "inputs"), _tensors(model, "outputs")
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
        raise ConfigError(
            f"{model.get('name')} takes {len(inputs)} inputs; wanted is one, of images: "
            "batch x channels x height x width."
        )
    [taken] = inputs
    if taken["datatype"] not in ("UINT8", *FLOATS):
        raise ConfigError(f"{model.get('name')} takes {taken['datatype']}, which are no pixels.")
    named = [it for it in outputs if output in (None, it["name"])]
    if len(named) != 1:
        raise ConfigError(
            f"{model.get('name')} has the outputs {', '.join(it['name'] for it in outputs)}; say "
            "with --output which one is meant."
        )
    shape = tuple(taken["shape"][1:])
    last = shape[0] not in (1, 3) and shape[2] in (1, 3)
    [shown] = named
    size = shown["shape"][-1] if len(shown["shape"]) > 1 else 0
    known = size > 0 and shown["datatype"] != "BYTES"
    return Signature(
        input=taken["name"],
        datatype=taken["datatype"],
        shape=(shape[2], shape[0], shape[1]) if last else (shape[0], shape[1], shape[2]),
        channels_last=last,
        output=shown["name"],
        output_datatype=shown["datatype"],
        classes=size if known else None,
    )


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"A JSON object was expected as {what}; is it an Open Inference server?")
    return value


def _tensors(model: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tensors = model.get(key)
    good = isinstance(tensors, list) and all(
        isinstance(it, dict)
        and isinstance(it.get("name"), str)
        and isinstance(it.get("datatype"), str)
        and isinstance(it.get("shape"), list)
        and all(isinstance(size, int) for size in it["shape"])
        for it in tensors
    )
    if not good:
        raise ConfigError(f"{model.get('name')} does not say what its {key} are.")
    assert isinstance(tensors, list)
    return tensors


def request(
    images: np.ndarray, signature: Signature, *, id: str, binary: bool, top: int = 0
) -> tuple[bytes, dict[str, str]]:
    """The body of an inference request and its headers.

    Args:
        images: uint8, batch x channels x height x width.
        signature: what the model takes.
        id: of the request.
        binary: whether tensors go and come as bytes.
        top: largest values to ask for, through the classification extension; 0 for all.
    """
    if signature.channels_last:
        images = images.transpose(0, 2, 3, 1)
    if signature.datatype != "UINT8":
        images = images.astype(np.float32) / 255
    images = np.ascontiguousarray(images, DTYPES[signature.datatype])
    tensor: dict[str, Any] = {
        "name": signature.input,
        "shape": list(images.shape),
        "datatype": signature.datatype,
    }
    wanted: dict[str, Any] = {"name": signature.output, "parameters": {"binary_data": binary}}
    if top:
        wanted["parameters"]["classification"] = top
    head = {"id": id, "inputs": [tensor], "outputs": [wanted]}
    if not binary:
        tensor["data"] = images.reshape(-1).tolist()
        if not top:
            del wanted["parameters"]  # a server without binary tensors may know no such parameter
        return msgspec.json.encode(head), {"Content-Type": "application/json"}
    data = images.tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    text = msgspec.json.encode(head)
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(text))}
    return text + data, headers


def read_reply(body: bytes, length: str | None, signature: Signature, *, count: int) -> np.ndarray:
    """The answers in a reply, as `Victim.ask` returns them.

    Raises:
        ValueError: it is no reply to `count` images.
    """
    good = length is None or (length.isascii() and length.isdigit() and len(length) < 12)
    size = len(body) if length is None else int(length) if good else -1
    if not 0 <= size <= len(body):
        raise ValueError(f"{LENGTH} is {str(length)[:20]!r}")
    try:
        reply = msgspec.json.decode(body[:size])
    except msgspec.DecodeError as error:
        raise ValueError(f"no JSON ({error})") from None
    outputs = reply.get("outputs") if isinstance(reply, dict) else None
    found = [
        it
        for it in (outputs if isinstance(outputs, list) else [])
        if isinstance(it, dict) and it.get("name") == signature.output
    ]
    if len(found) != 1:
        raise ValueError(f"it has not the one output {signature.output}")
    [tensor] = found
    shape, datatype = tensor.get("shape"), tensor.get("datatype")
    sizes = shape if isinstance(shape, list) and 0 < len(shape) <= MOST_SIZES else [-1]
    good = all(type(it) is int and it >= 0 for it in sizes) and isinstance(datatype, str)
    if not good or sizes[0] != count or math.prod(sizes) > count * MOST_CLASSES:
        raise ValueError(f"the shape {str(shape)[:80]} of {str(datatype)[:20]} for {count} images")
    shape = sizes
    values = _flat(tensor, body[size:], datatype, math.prod(shape))
    if datatype == "BYTES":
        return _largest(values, shape, signature.classes)
    array = np.asarray(values)
    if datatype in WHOLES:
        if array.size != count:
            raise ValueError(f"{array.size} labels for {count} images")
        if array.min() < 0 or array.max() >= (signature.classes or MOST_CLASSES):
            raise ValueError("a label that is no class")
        return array.reshape(count).astype(np.int64)
    array = array.reshape(count, -1).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("numbers that are not finite")
    return array


def _flat(tensor: Mapping[str, Any], tail: bytes, datatype: object, size: int) -> Any:
    """The values of a tensor in a row: an array, or a list of strings."""
    parameters = tensor.get("parameters")
    told = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if datatype != "BYTES" and datatype not in DTYPES:
        raise ValueError(f"the datatype {str(datatype)[:32]!r}")
    if told is not None:
        if told != len(tail):
            raise ValueError(f"{len(tail)} bytes, where {told!r} were said")
        if datatype == "BYTES":
            return _strings(tail, size)
        dtype = DTYPES[str(datatype)]
        if len(tail) != size * dtype.itemsize:
            raise ValueError(f"{len(tail)} bytes for {size} numbers of {datatype}")
        return np.frombuffer(tail, dtype)
    values = tensor.get("data")
    while isinstance(values, list) and values and isinstance(values[0], list):
        if not all(isinstance(it, list) for it in values):
            raise ValueError("lists of different depths")
        values = [value for it in values for value in it]
    wanted = str if datatype == "BYTES" else (int, float)
    if not isinstance(values, list) or len(values) != size:
        raise ValueError(f"no {size} values")
    if not all(isinstance(it, wanted) and not isinstance(it, bool) for it in values):
        raise ValueError("values of another type than it says")
    return values if datatype == "BYTES" else np.array(values, np.float64)


def _strings(tail: bytes, count: int) -> list[str]:
    """Strings with their lengths before them."""
    found, at = [], 0
    for _ in range(count):
        size = int.from_bytes(tail[at : at + 4], "little")
        at += 4 + size
        if at > len(tail):
            raise ValueError("a string that is cut off")
        found.append(tail[at - size : at].decode("utf-8", "replace"))
    if at != len(tail):
        raise ValueError("more strings than it says")
    return found


def _largest(texts: Sequence[str], shape: Sequence[int], classes: int | None) -> np.ndarray:
    """`value:index:class` strings as rows, NaN where nothing was shown."""
    places, values = [], []
    for text in texts:
        value, _, rest = text.partition(":")
        place = rest.partition(":")[0]
        try:
            values.append(float(value))
            places.append(int(place))
        except ValueError:
            raise ValueError(f"{text[:40]!r}, which is no value:index") from None
    count = shape[0]
    width = classes or max(places, default=-1) + 1
    if not all(0 <= place < min(width, MOST_CLASSES) for place in places):
        raise ValueError("an index that is no class")
    if not all(map(math.isfinite, values)):
        raise ValueError("numbers that are not finite")
    rows = np.full((count, width), np.nan, np.float32)
    each = len(places) // count
    rows[np.arange(count).repeat(each), np.array(places, np.int64)] = values
    return rows


def _wait(said: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if said is None:
        return None
    if said.isascii() and said.strip().isdigit():
        return float(said) if len(said) < 12 else math.inf
    try:
        until = parsedate_to_datetime(said)
        until = until if until.tzinfo is not None else until.replace(tzinfo=datetime.UTC)
        return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _said(body: bytes) -> str:
    """A server's own words, for people."""
    try:
        said = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, RecursionError):
        said = body.decode("utf-8", "replace")
    return printable(str(said))[:300] or "nothing"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
