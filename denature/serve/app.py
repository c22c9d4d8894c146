"""The server: routes, keys, and one queue of requests for each network."""

import asyncio
import functools
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar, final

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from denature import __version__
from denature.data.landmarks import PLACES
from denature.serve import faces, protocol
from denature.serve.batching import Batcher
from denature.serve.body import decompressed, packing, read_body
from denature.serve.config import Serving
from denature.serve.connections import Connections, network_of
from denature.serve.exposure import expose
from denature.serve.fair import FairGate
from denature.serve.inflight import InFlight, Share
from denature.serve.keeper import MemoryKeeper
from denature.serve.keys import open_keys
from denature.serve.keys.base import Keys
from denature.serve.log import AccessLog, Metrics
from denature.serve.model import Model
from denature.serve.opening import open_models
from denature.serve.protocol import LENGTH, InferenceRequest
from denature.serve.refusal import Refused

T = TypeVar("T")

NUMBER_BYTES = 16
"""Bytes of a number in a JSON body at most, separators included."""

LARGE = 1 << 16
"""Bytes of JSON from which a body is parsed off the event loop."""

READERS = 2
"""Bodies that are unpacked and parsed at once, so that their memory is bounded."""


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
        self.keys: Keys | None = None if serving.keys is None else open_keys(serving.keys)
        self.keeper = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self.known: dict[str, str] = {}
        self.in_flight = InFlight(self.limits.max_inflight_mb << 20)
        self.reading = FairGate(READERS)
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="readers")
        self.log = AccessLog(serving.log)
        self.metrics = Metrics()
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
        key = _key(request.headers) if self.keys is not None else None
        caller = await self._caller(request, key)
        model = self.model(request)
        signature = model.signature
        entry["model"] = signature.name
        self.lines[signature.name].check_room(caller)
        limit = self._largest_body(signature)
        with self.in_flight.share(caller) as share:
            parsed = await self._parsed(request, signature, share, caller, limit)
            entry |= {"id": parsed.id, "images": len(parsed.images)}
            share.add(parsed.images.nbytes - share.size)  # the text of a JSON body is gone
            _check_waits(request)
            values = await self._values(signature.name, parsed.images, key, caller, entry)
            return self._answer(expose(values, signature.exposure), parsed, model)

    async def _caller(self, request: Request, key: str | None) -> str:
        """The name of a key's account, or the network of a client where no key is needed.

        Nothing of a request but its head was read before.
        """
        if self.keys is None:
            return network_of(request.client.host) if request.client is not None else ""
        assert key is not None
        if key not in self.known:
            self.known[key] = await self._spend(key, 0)
        return self.known[key]

    async def _spend(self, key: str, images: int) -> str:
        assert self.keys is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self.keeper, self.keys.spend, key, images
            )
        except Refused as refused:
            if refused.status == 401:
                self.known.pop(key, None)
            raise

    async def _parsed(
        self,
        request: Request,
        signature: protocol.ModelSignature,
        share: Share,
        caller: str,
        limit: int,
    ) -> InferenceRequest:
        body = await read_body(request, share, limit=limit, seconds=self.limits.body_s)
        packed = packing(request) is not None

        def parse() -> InferenceRequest:
            return protocol.parse(
                decompressed(body, share, limit=limit) if packed else body,
                request.headers.get(LENGTH),
                signature,
                max_images=self.limits.max_images,
            )

        # Binary tensors behind a short text are not parsed, but looked at.
        length = request.headers.get(LENGTH, "")
        text = int(length) if length.isascii() and length[:12].isdigit() else len(body)
        if not packed and min(text, len(body)) <= LARGE:
            return parse()
        return await self._read(request, parse, caller, len(body))

    async def _read(self, request: Request, work: Callable[[], T], caller: str, cost: int) -> T:
        """Run work on a body in a thread, when its caller has its turn."""
        async with self.reading.turn(caller, cost):
            _check_waits(request)
            return await asyncio.get_running_loop().run_in_executor(self.readers, work)

    async def _values(
        self, name: str, images: np.ndarray, key: str | None, caller: str, entry: dict[str, Any]
    ) -> np.ndarray:
        """The answers to a request's images, which are charged to its key here."""
        line = self.lines[name]
        with line.room(len(images), caller):
            if key is not None:
                entry["key"] = await self._spend(key, len(images))
            return await line.ask(images, caller)

    async def _detect_faces(self, request: Request, entry: dict[str, Any]) -> Response:
        key = None
        if self.keys is not None:
            key = faces.key_of(request.headers.get("authorization", ""))
        caller = await self._caller(request, key)
        if (target := request.headers.get("x-amz-target")) != faces.TARGET:
            raise faces.RekognitionError(
                "UnknownOperationException",
                f"The operation is {str(target)[:64]}; only {faces.TARGET} is supported.",
            )
        signature = self._model_of_faces()
        identity = str(uuid.uuid4())
        entry |= {"model": signature.name, "id": identity, "images": 1}
        with self.in_flight.share(caller) as share:
            body = await read_body(
                request, share, limit=faces.LARGEST_BODY, seconds=self.limits.body_s
            )
            read = functools.partial(
                faces.read, body, channels=signature.channels, size=signature.image_size
            )
            picture = await self._read(request, read, caller, len(body))
            _check_waits(request)
            [row] = await self._values(signature.name, picture.image, key, caller, entry)
        values = dict(zip(signature.classes, row.tolist(), strict=True))
        points = {place: (values[f"{place}.x"], values[f"{place}.y"]) for place in PLACES}
        face = faces.details(points, picture, signature.exposure.decimals)
        return Response(
            orjson.dumps({"FaceDetails": [face]}),
            media_type=faces.MEDIA_TYPE,
            headers={"x-amzn-RequestId": identity},
        )

    def _model_of_faces(self) -> protocol.ModelSignature:
        for model in self.models.values():
            if faces.knows_faces(model.signature.classes):
                return model.signature
        raise faces.RekognitionError(
            "ResourceNotFoundException", f"No model here answers with {', '.join(PLACES)}."
        )

    def _answer(self, values: Any, request: InferenceRequest, model: Model) -> Response:
        body, length = protocol.render(values, request, model.signature)
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, media_type="application/octet-stream", headers={LENGTH: length})

    def _largest_body(self, signature: protocol.ModelSignature) -> int:
        largest = self.limits.max_images * math.prod(signature.shape) * NUMBER_BYTES + (1 << 16)
        return min(largest, self.in_flight.most_of_one)

    def close(self) -> None:
        for line in self.lines.values():
            line.close()
        self.keeper.shutdown()
        self.readers.shutdown()
        if self.keys is not None:
            self.keys.close()
        self._held.close()


def _check_waits(request: Request) -> None:
    """Check that a client still waits for its answer, so that nothing is done for one that left."""
    gone: Callable[[], bool] | None = getattr(request.state, "gone", None)
    if gone is not None and gone():
        raise Refused(400, "The client has gone.")


def _key(headers: Mapping[str, str]) -> str:
    """The caller's key, from a bearer token or from X-API-Key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not key:
        raise Refused(401, "A key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.")
    return key


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
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        end = asyncio.Event()
        keeping = asyncio.create_task(server.memories.run(end))
        connections = Connections(serving.limits, server.in_flight, serving.behind_proxy)
        watching = asyncio.create_task(connections.watch())
        yield {"connections": connections}
        watching.cancel()
        end.set()
        await keeping
        server.close()

    routes: list[tuple[str, Any, str]] = [
        ("/v2", server.about, "GET"),
        ("/v2/health/live", server.live, "GET"),
        ("/v2/health/ready", server.ready, "GET"),
        ("/v2/repository/index", server.index, "POST"),
        ("/metrics", server.figures, "GET"),
        ("/", server.detect_faces, "POST"),
    ]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            (model, server.metadata, "GET"),
            (f"{model}/ready", server.model_ready, "GET"),
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
    import os

    from denature.core.schema import decode

    text = os.environ[ENVIRONMENT]
    return create_app(decode(Serving, json.loads(text), where=ENVIRONMENT))
