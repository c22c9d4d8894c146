"""The server: routes, keys, and one line of requests for each network."""

import asyncio
import functools
import json
import math
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar, final

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from denature import __version__
from denature.data.landmarks import PLACES
from denature.serve import faces, protocol
from denature.serve.batching import Batcher
from denature.serve.config import Serving
from denature.serve.exposure import expose
from denature.serve.keys import Keys, open_keys
from denature.serve.log import AccessLog, Metrics
from denature.serve.model import Model
from denature.serve.protocol import LENGTH, InferenceRequest
from denature.serve.refusal import Refused
from denature.train.run import load_run

T = TypeVar("T")

BODY_S = 60.0
"""Seconds that a body may take to arrive."""

NUMBER_BYTES = 16
"""A number of a JSON body at its longest, with what stands around it."""

LARGE = 1 << 17
"""Bytes from which a body is read off the event loop."""


@final
class Server:
    """All models, who may ask them, and what is told of it."""

    def __init__(self, serving: Serving) -> None:
        self.limits = serving.limits
        self.models: dict[str, Model] = {}
        for placed in (placed.resolved() for placed in serving.models):
            run = load_run(placed.run, trust=serving.trust)
            self.models[placed.name] = Model(
                placed, run, device=serving.device, precision=serving.precision
            )
        self.lines = {
            name: Batcher(model.logits, self.limits) for name, model in self.models.items()
        }
        self.keys: Keys | None = None if serving.keys is None else open_keys(serving.keys)
        self.keeper = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self.log = AccessLog(serving.log)
        self.metrics = Metrics()

    def model(self, request: Request) -> Model:
        """The one that a path names."""
        name, version = request.path_params["name"], request.path_params.get("version")
        if name not in self.models:
            raise Refused(404, f"There is no model called {name[:64]!r}.")
        if version not in (None, protocol.VERSION):
            raise Refused(404, f"{name} has the version {protocol.VERSION} and no other.")
        return self.models[name]

    async def about(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": protocol.SERVER,
                "version": __version__,
                "extensions": list(protocol.EXTENSIONS),
            }
        )

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def index(self, request: Request) -> Response:
        names = [
            {"name": name, "version": protocol.VERSION, "state": "READY", "reason": ""}
            for name in self.models
        ]
        return JSONResponse(names)

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self.model(request).signature.describe())

    async def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self.model(request).signature.name, "ready": True})

    async def figures(self, request: Request) -> Response:
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def infer(self, request: Request) -> Response:
        """Answer a request, or say why not; either is counted and logged."""
        return await self._told(request, self._infer, _refusal)

    async def detect_faces(self, request: Request) -> Response:
        """The same in the form of AWS Rekognition."""
        return await self._told(request, self._detect_faces, _refusal_of_faces)

    async def _told(
        self,
        request: Request,
        work: Callable[[Request, dict[str, Any]], Awaitable[Response]],
        refusal: Callable[[Refused], Response],
    ) -> Response:
        entry: dict[str, Any] = {"model": None, "key": None, "id": None, "images": 0}
        started = time.perf_counter()
        try:
            response = await work(request, entry)
        except Refused as refused:
            response = refusal(refused)
        except Exception:
            self._note(entry, 500, started)
            raise
        self._note(entry, response.status_code, started)
        return response

    def _note(self, entry: dict[str, Any], status: int, started: float) -> None:
        seconds, name = time.perf_counter() - started, entry["model"] or ""
        self.metrics.requests.labels(name, str(status)).inc()
        if status == 200:
            self.metrics.images.labels(name).inc(entry["images"])
            self.metrics.seconds.labels(name).observe(seconds)
        self.log.write(**entry, status=status, ms=round(1000 * seconds, 2))

    async def _infer(self, request: Request, entry: dict[str, Any]) -> Response:
        model = self.model(request)
        signature = model.signature
        entry["model"] = signature.name
        key = _key(request.headers) if self.keys is not None else None
        body = await _body(request, limit=self._largest_body(signature))
        read = functools.partial(
            protocol.parse,
            body,
            request.headers.get(LENGTH),
            signature,
            max_images=self.limits.max_images,
        )
        asked = await _aside(read) if len(body) > LARGE else read()
        entry |= {"id": asked.id, "images": len(asked.images)}
        logits = await self._asked(signature.name, asked.images, key, entry)
        return self._answer(expose(logits, signature.exposure), asked, model)

    async def _asked(
        self, name: str, images: np.ndarray, key: str | None, entry: dict[str, Any]
    ) -> np.ndarray:
        """The logits of images that somebody with this key wants, who pays for them here."""
        line = self.lines[name]
        line.admit(len(images))
        if self.keys is not None:
            assert key is not None
            entry["key"] = await asyncio.get_running_loop().run_in_executor(
                self.keeper, self.keys.spend, key, len(images)
            )
        return await line.ask(images)

    async def _detect_faces(self, request: Request, entry: dict[str, Any]) -> Response:
        if (target := request.headers.get("x-amz-target")) != faces.TARGET:
            raise faces.RekognitionError(
                "UnknownOperationException",
                f"{str(target)[:64]} is not offered; {faces.TARGET} is.",
            )
        model = next(
            (m for m in self.models.values() if faces.knows_faces(m.signature.classes)), None
        )
        if model is None:
            raise faces.RekognitionError(
                "ResourceNotFoundException", f"No model here knows {', '.join(PLACES)}."
            )
        signature, identity = model.signature, str(uuid.uuid4())
        entry |= {"model": signature.name, "id": identity}
        key = None
        if self.keys is not None:
            key = faces.key_of(request.headers.get("authorization", ""))
        body = await _body(request, limit=faces.LARGEST_BODY)
        picture = await _aside(functools.partial(faces.read, body))
        images = await _aside(
            functools.partial(
                faces.resized, picture, channels=signature.channels, size=signature.image_size
            )
        )
        entry["images"] = 1
        [row] = await self._asked(signature.name, images, key, entry)
        found = dict(zip(signature.classes, row.tolist(), strict=True))
        points = {place: (found[f"{place}.x"], found[f"{place}.y"]) for place in PLACES}
        told = await _aside(
            functools.partial(faces.details, points, picture, signature.exposure.decimals)
        )
        return Response(
            orjson.dumps({"FaceDetails": [told]}),
            media_type=faces.MEDIA_TYPE,
            headers={"x-amzn-RequestId": identity},
        )

    def _answer(self, values: Any, asked: InferenceRequest, model: Model) -> Response:
        body, length = protocol.render(values, asked, model.signature)
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, media_type="application/octet-stream", headers={LENGTH: length})

    def _largest_body(self, signature: protocol.ModelSignature) -> int:
        return self.limits.max_images * math.prod(signature.shape) * NUMBER_BYTES + (1 << 16)

    def close(self) -> None:
        for line in self.lines.values():
            line.close()
        self.keeper.shutdown()
        if self.keys is not None:
            self.keys.close()


def _key(headers: Mapping[str, str]) -> str:
    """The caller's key, as a bearer token or in X-API-Key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not key:
        raise Refused(401, "A key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.")
    return key


async def _body(request: Request, *, limit: int) -> bytes:
    """All of a request's body, unpacked, as far as it keeps to the limit."""
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said[:20]) > limit:
        raise Refused(413, f"The body has {said} bytes; at most {limit} are taken.")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise Refused(413, f"The body has more than {limit} bytes.")
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"The body took more than {BODY_S:g} s.") from None
    except ClientDisconnect:
        raise Refused(400, "The body ended early.") from None
    body = b"".join(parts)
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing == "identity":
        return body
    if packing not in ("gzip", "deflate"):
        raise Refused(415, "Content-Encoding must be gzip, deflate or identity.")
    return await _aside(functools.partial(_unpacked, body, limit))


def _unpacked(body: bytes, limit: int) -> bytes:
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # finds out which of the two
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"The body cannot be unpacked: {error}.") from None
    if len(plain) > limit:
        raise Refused(413, f"The unpacked body has more than {limit} bytes.")
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(400, "The packed body ends early or has something behind it.")
    return plain


async def _aside(work: Callable[[], T]) -> T:
    """Work that would hold up other requests, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _refusal(refused: Refused) -> Response:
    return JSONResponse({"error": str(refused)}, refused.status, _retry_after(refused))


def _retry_after(refused: Refused) -> dict[str, str]:
    if refused.retry_after is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(refused.retry_after)))}


def _refusal_of_faces(refused: Refused) -> Response:
    told = faces.wrong(refused)
    body = orjson.dumps({"__type": told.name, "message": str(told)})
    return Response(
        body,
        told.status,
        {"x-amzn-RequestId": str(uuid.uuid4()), **_retry_after(told)},
        faces.MEDIA_TYPE,
    )


def create_app(serving: Serving) -> Starlette:
    """The server as an ASGI application, its models loaded.

    Raises:
        RunError: a run cannot be read.
        ConfigError: a device that is not here, or keys that cannot be used.
    """
    server = Server(serving)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return _refusal(error)

    async def no_such_place(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The server failed; its log says more."}, 500)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        server.close()

    places: list[tuple[str, Any, str]] = [
        ("/v2", server.about, "GET"),
        ("/v2/health/live", server.live, "GET"),
        ("/v2/health/ready", server.ready, "GET"),
        ("/v2/repository/index", server.index, "POST"),
        ("/metrics", server.figures, "GET"),
        ("/", server.detect_faces, "POST"),
    ]
    for place in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        places += [
            (place, server.metadata, "GET"),
            (f"{place}/ready", server.model_ready, "GET"),
            (f"{place}/infer", server.infer, "POST"),
        ]
    return Starlette(
        routes=[Route(path, endpoint, methods=[method]) for path, endpoint, method in places],
        exception_handlers={Refused: refused, HTTPException: no_such_place, Exception: failed},
        lifespan=lifespan,
    )


ENVIRONMENT = "DENATURE_SERVING"
"""How the processes of one server are told what to serve."""


def from_environment() -> Starlette:
    """The application of a worker process."""
    import os

    from denature.core.schema import decode

    text = os.environ[ENVIRONMENT]
    return create_app(decode(Serving, json.loads(text), where=ENVIRONMENT))
