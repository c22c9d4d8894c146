"""The server: routes, keys, and one queue of requests for each network."""

import asyncio
import functools
import json
import math
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeAlias, TypeVar, final

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
from denature.serve.access import Access
from denature.serve.batching import Batcher
from denature.serve.config import Serving
from denature.serve.exposure import expose
from denature.serve.keeper import MemoryKeeper
from denature.serve.log import AccessLog, Metrics
from denature.serve.model import Model
from denature.serve.opening import open_models
from denature.serve.protocol import LENGTH, InferenceRequest
from denature.serve.refusal import Refused

T = TypeVar("T")

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

Check: TypeAlias = Callable[[Request, dict[str, Any]], Awaitable[None]]

BOOKING = "denature.booking"
"""Place of a request's charge in its scope."""

BODY_S = 60.0
"""Seconds for a body to arrive, at most."""

NUMBER_BYTES = 16
"""Bytes of a number in a JSON body at most, separators included."""

LARGE = 1 << 17
"""Bytes from which a body is parsed off the event loop."""


@final
class Server:
    """All models, the keys that may query them, and the log and metrics of the requests."""

    def __init__(self, serving: Serving) -> None:
        self.limits = serving.limits
        with ExitStack() as held:
            self.models = open_models(serving, held)
            self._held = held.pop_all()
        self.lines = {
            name: Batcher(model.answer, self.limits) for name, model in self.models.items()
        }
        self.access = Access(serving.keys, serving.metrics_token)
        self.metrics = Metrics()
        self.log = AccessLog(serving.log, self.metrics.lost_lines.inc)
        self.memories = MemoryKeeper(
            [(model, self.lines[name]) for name, model in self.models.items()],
            serving.defense.defense_save_s,
        )

    def model(self, request: Request) -> Model:
        """The model that a path names."""
        name, version = request.path_params["name"], request.path_params.get("version")
        if name not in self.models:
            raise Refused(404, f"There is no model called {name[:64]!r}.")
        if version not in (None, protocol.VERSION):
            raise Refused(404, f"{name} has the version {protocol.VERSION} and no other.")
        return self.models[name]

    def about(self, request: Request) -> Response:
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

    def index(self, request: Request) -> Response:
        names = [
            {"name": name, "version": protocol.VERSION, "state": "READY", "reason": ""}
            for name in self.models
        ]
        return JSONResponse(names)

    def metadata(self, request: Request) -> Response:
        return JSONResponse(self.model(request).signature.describe())

    def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self.model(request).signature.name, "ready": True})

    def figures(self, request: Request) -> Response:
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    def guarded(self, show: Callable[[Request], Response], check: Check) -> Endpoint:
        """An endpoint that shows something of the server; requests that may not see it are logged.

        Args:
            show: what is shown.
            check: raises `Refused` for a request that may not see it.
        """

        async def answer(request: Request) -> Response:
            entry, started = _entry(request), time.perf_counter()
            try:
                await check(request, entry)
            except Refused as refused:
                self._note(entry, refused.status, started, refused.cause)
                raise
            return show(request)

        return answer

    async def infer(self, request: Request) -> Response:
        """Answer an inference request or refuse it; both are counted and logged."""
        return await self._handle(request, self._infer, _refusal)

    async def detect_faces(self, request: Request) -> Response:
        """Answer a DetectFaces request in the form of AWS Rekognition."""
        return await self._handle(request, self._detect_faces, _refusal_of_faces)

    async def _handle(
        self,
        request: Request,
        work: Callable[[Request, dict[str, Any]], Awaitable[Response]],
        refusal: Callable[[Refused], Response],
    ) -> Response:
        entry, cause, started = _entry(request), None, time.perf_counter()
        try:
            response = await work(request, entry)
        except BaseException as error:
            self.access.give_back(request.scope.pop(BOOKING, None))
            if not isinstance(error, Refused):
                self._note(entry, 500, started, type(error).__name__)
                raise
            response, cause = refusal(error), error.cause
        self._note(entry, response.status_code, started, cause)
        return response

    def _note(
        self, entry: dict[str, Any], status: int, started: float, cause: str | None = None
    ) -> None:
        seconds, name = time.perf_counter() - started, entry["model"] or ""
        self.metrics.requests.labels(name, str(status)).inc()
        if status == 200:
            self.metrics.images.labels(name).inc(entry["images"])
            self.metrics.seconds.labels(name).observe(seconds)
        error = {} if cause is None else {"error": cause}
        self.log.write(**entry, status=status, ms=round(1000 * seconds, 2), **error)

    async def _infer(self, request: Request, entry: dict[str, Any]) -> Response:
        model = self.model(request)
        signature = model.signature
        entry["model"] = signature.name
        key = self.access.key(request)
        body = await _body(request, limit=self._largest_body(signature))
        read = functools.partial(
            protocol.parse,
            body,
            request.headers.get(LENGTH),
            signature,
            max_images=self.limits.max_images,
        )
        parsed = await _in_thread(read) if len(body) > LARGE else read()
        entry |= {"id": parsed.id, "images": len(parsed.images)}
        values = await self._values(request, parsed.images, key, entry)
        return self._answer(expose(values, signature.exposure), parsed, model)

    async def _values(
        self, request: Request, images: np.ndarray, key: str | None, entry: dict[str, Any]
    ) -> np.ndarray:
        """The answers to a request's images, which are charged to its key here."""
        line = self.lines[entry["model"]]
        line.admit(len(images))
        request.scope[BOOKING] = await self.access.charge(key, len(images), entry)
        return await line.ask(images)

    async def _detect_faces(self, request: Request, entry: dict[str, Any]) -> Response:
        if (target := request.headers.get("x-amz-target")) != faces.TARGET:
            raise faces.RekognitionError(
                "UnknownOperationException",
                f"The operation is {str(target)[:64]}; only {faces.TARGET} is supported.",
            )
        model = next(
            (m for m in self.models.values() if faces.knows_faces(m.signature.classes)), None
        )
        if model is None:
            raise faces.RekognitionError(
                "ResourceNotFoundException", f"No model here answers with {', '.join(PLACES)}."
            )
        signature, identity = model.signature, str(uuid.uuid4())
        entry |= {"model": signature.name, "id": identity}
        key = None
        if self.access.has_keys:
            key = faces.key_of(request.headers.get("authorization", ""))
        body = await _body(request, limit=faces.LARGEST_BODY)
        picture = await _in_thread(functools.partial(faces.read, body))
        images = await _in_thread(
            functools.partial(
                faces.resized, picture, channels=signature.channels, size=signature.image_size
            )
        )
        entry["images"] = 1
        [row] = await self._values(request, images, key, entry)
        values = dict(zip(signature.classes, row.tolist(), strict=True))
        points = {place: (values[f"{place}.x"], values[f"{place}.y"]) for place in PLACES}
        face = await _in_thread(
            functools.partial(faces.details, points, picture, signature.exposure.decimals)
        )
        return Response(
            orjson.dumps({"FaceDetails": [face]}),
            media_type=faces.MEDIA_TYPE,
            headers={"x-amzn-RequestId": identity},
        )

    def _answer(self, values: Any, request: InferenceRequest, model: Model) -> Response:
        body, length = protocol.render(values, request, model.signature)
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, media_type="application/octet-stream", headers={LENGTH: length})

    def _largest_body(self, signature: protocol.ModelSignature) -> int:
        return self.limits.max_images * math.prod(signature.shape) * NUMBER_BYTES + (1 << 16)

    async def close(self) -> None:
        for line in self.lines.values():
            line.close()
        await self.access.close()
        self.log.close()
        self._held.close()


def _entry(request: Request) -> dict[str, Any]:
    """What the access log tells of a request, as far as it is known from its connection."""
    peer = request.client and request.client.host
    return {"peer": peer, "model": None, "key": None, "id": None, "images": 0}


async def _body(request: Request, *, limit: int) -> bytes:
    """The whole body of a request, decompressed, with at most `limit` bytes."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise Refused(413, f"The body has {declared} bytes; at most {limit} are accepted.")
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
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refused(415, "Content-Encoding must be gzip, deflate or identity.")
    return await _in_thread(functools.partial(_decompressed, body, limit))


def _decompressed(body: bytes, limit: int) -> bytes:
    try:
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects gzip or deflate
        plain = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"The body cannot be decompressed: {error}.") from None
    if len(plain) > limit:
        raise Refused(413, f"The decompressed body has more than {limit} bytes.")
    if not decompressor.eof or decompressor.unused_data:
        raise Refused(400, "The compressed body ends early or has bytes behind its end.")
    return plain


async def _in_thread(work: Callable[[], T]) -> T:
    """Run work in a thread, since it would block other requests."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _refusal(refused: Refused) -> Response:
    return JSONResponse({"error": str(refused)}, refused.status, _retry_after(refused))


def _retry_after(refused: Refused) -> dict[str, str]:
    if refused.retry_after is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(refused.retry_after)))}


def _refusal_of_faces(refused: Refused) -> Response:
    error = faces.wrong(refused)
    body = orjson.dumps({"__type": error.name, "message": str(error)})
    return Response(
        body,
        error.status,
        {"x-amzn-RequestId": str(uuid.uuid4()), **_retry_after(error)},
        faces.MEDIA_TYPE,
    )


def create_app(serving: Serving) -> Starlette:
    """The server as an ASGI application, its models loaded.

    Raises:
        RunError: a run cannot be read.
        ConfigError: the device is missing, or the keys cannot be used.
    """
    server = Server(serving)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return _refusal(error)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The server failed; its log has the cause."}, 500)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        end = asyncio.Event()
        await server.access.start()
        keeping = asyncio.create_task(server.memories.run(end))
        yield
        end.set()
        await keeping
        await server.close()

    def known(show: Callable[[Request], Response]) -> Endpoint:
        return server.guarded(show, server.access.check_caller)

    routes: list[tuple[str, Any, str]] = [
        ("/v2", known(server.about), "GET"),
        ("/v2/health/live", server.live, "GET"),
        ("/v2/health/ready", server.ready, "GET"),
        ("/v2/repository/index", known(server.index), "POST"),
        ("/metrics", server.guarded(server.figures, server.access.check_metrics), "GET"),
        ("/", server.detect_faces, "POST"),
    ]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            (model, known(server.metadata), "GET"),
            (f"{model}/ready", known(server.model_ready), "GET"),
            (f"{model}/infer", server.infer, "POST"),
        ]
    return Starlette(
        routes=[Route(path, endpoint, methods=[method]) for path, endpoint, method in routes],
        exception_handlers={Refused: refused, HTTPException: http_error, Exception: failed},
        lifespan=lifespan,
    )


ENVIRONMENT = "DENATURE_SERVING"
"""Environment variable that passes the settings to the worker processes of a server."""


def from_environment() -> Starlette:
    """The application of a worker process."""
    import logging
    import os

    from denature.core.schema import decode

    logging.captureWarnings(True)
    text = os.environ[ENVIRONMENT]
    return create_app(decode(Serving, json.loads(text), where=ENVIRONMENT))
