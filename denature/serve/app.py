"""The server: routes, keys, and one queue of requests for each network."""

import asyncio
import functools
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeAlias, final

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
from denature.serve.access import Access
from denature.serve.batching import Batcher
from denature.serve.config import Serving
from denature.serve.connections import Connections, network_of
from denature.serve.exposure import expose
from denature.serve.keeper import MemoryKeeper
from denature.serve.keys.base import Booking
from denature.serve.log import AccessLog, Metrics
from denature.serve.model import Model
from denature.serve.opening import open_models
from denature.serve.protocol import LENGTH, InferenceRequest
from denature.serve.reader import BodyReader, check_waits
from denature.serve.refusal import Refused

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

Show: TypeAlias = Callable[[Request], Response | Awaitable[Response]]

RequestCheck: TypeAlias = Callable[[Request, dict[str, Any]], Awaitable[None]]

BOOKING = "denature.booking"
"""Place of a request's charge in its scope."""


@final
class Server:
    """All models, the keys that may query them, and the log and metrics of the requests."""

    def __init__(self, serving: Serving) -> None:
        self.limits = serving.limits
        with ExitStack() as held:
            self.models = open_models(serving, held)
            self._held = held.pop_all()
        self.lines = {
            name: Batcher(model.answer, self.limits)
            if model.upstream is None
            else Batcher(model.answer, self.limits, ask=model.ask, at_once=model.at_once)
            for name, model in self.models.items()
        }
        self.access = Access(serving.keys, serving.metrics_token)
        self.known: dict[str, str] = {}
        self.reader = BodyReader(self.limits)
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
        found = await asyncio.gather(*map(self._is_ready, self.models.values()))
        return JSONResponse({"ready": all(found)}, 200 if all(found) else 503)

    async def _is_ready(self, model: Model) -> bool:
        return model.upstream is None or await model.upstream.ready()

    def index(self, request: Request) -> Response:
        names = [
            {"name": name, "version": protocol.VERSION, "state": "READY", "reason": ""}
            for name in self.models
        ]
        return JSONResponse(names)

    def metadata(self, request: Request) -> Response:
        return JSONResponse(self.model(request).signature.describe())

    async def model_ready(self, request: Request) -> Response:
        model = self.model(request)
        ready = await self._is_ready(model)
        return JSONResponse({"name": model.signature.name, "ready": ready}, 200 if ready else 503)

    def figures(self, request: Request) -> Response:
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    def guarded(self, show: Show, check: RequestCheck) -> Endpoint:
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
                self.note(entry, refused.status, started, refused.cause)
                raise
            shown = show(request)
            return shown if isinstance(shown, Response) else await shown

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
            booking = request.scope.pop(BOOKING, None)
            if not (isinstance(error, Refused) and error.charged):
                self.access.give_back(booking)
            if not isinstance(error, Refused):
                self.note(entry, 500, started, type(error).__name__)
                raise
            response, cause = refusal(error), error.cause
        self.note(entry, response.status_code, started, cause)
        return response

    def note(
        self, entry: dict[str, Any], status: int, started: float, cause: str | None = None
    ) -> None:
        """Count a request and write its line in the access log."""
        seconds, name = time.perf_counter() - started, entry["model"] or ""
        self.metrics.requests.labels(name, str(status)).inc()
        if status == 200:
            self.metrics.images.labels(name).inc(entry["images"])
            self.metrics.seconds.labels(name).observe(seconds)
        error = {} if cause is None else {"error": cause}
        self.log.write(**entry, status=status, ms=round(1000 * seconds, 2), **error)

    async def _infer(self, request: Request, entry: dict[str, Any]) -> Response:
        key = self.access.key(request)
        caller = await self._caller(request, key, entry)
        model = self.model(request)
        signature = model.signature
        entry["model"] = signature.name
        self.lines[signature.name].check_room(caller)
        with self.reader.in_flight.share(caller) as share:
            parsed = await self.reader.parsed(request, signature, share)
            entry |= {"id": parsed.id, "images": len(parsed.images)}
            share.add(parsed.images.nbytes - share.size)  # the text of a JSON body is gone
            values = await self._values(request, parsed.images, key, caller, entry)
            return self._answer(expose(values, signature.exposure), parsed, model)

    async def _caller(self, request: Request, key: str | None, entry: dict[str, Any]) -> str:
        """The name of a key's account, or the network of a client where no key is needed.

        Nothing of a request but its head was read before.
        """
        if key is None:
            return network_of(request.client.host) if request.client is not None else ""
        if key not in self.known:
            await self._charge(key, 0, entry)
            self.known[key] = entry["key"]
        entry["key"] = self.known[key]
        return self.known[key]

    async def _charge(self, key: str | None, images: int, entry: dict[str, Any]) -> Booking | None:
        try:
            return await self.access.charge(key, images, entry)
        except Refused as refused:
            if refused.status == 401 and key is not None:
                self.known.pop(key, None)
            raise

    async def _values(
        self,
        request: Request,
        images: np.ndarray,
        key: str | None,
        caller: str,
        entry: dict[str, Any],
    ) -> np.ndarray:
        """The answers to a request's images, which are charged to its key here."""
        check_waits(request)
        line = self.lines[entry["model"]]
        with line.room(len(images), caller):
            request.scope[BOOKING] = await self._charge(key, len(images), entry)
            return await line.ask(images, caller, functools.partial(check_waits, request))

    async def _detect_faces(self, request: Request, entry: dict[str, Any]) -> Response:
        key = None
        if self.access.has_keys:
            key = faces.key_of(request.headers.get("authorization", ""))
        caller = await self._caller(request, key, entry)
        if (target := request.headers.get("x-amz-target")) != faces.TARGET:
            raise faces.RekognitionError(
                "UnknownOperationException",
                f"The operation is {str(target)[:64]}; only {faces.TARGET} is supported.",
            )
        signature = self._model_of_faces()
        channels, size, _ = signature.shape
        identity = str(uuid.uuid4())
        entry |= {"model": signature.name, "id": identity, "images": 1}
        with self.reader.in_flight.share(caller) as share:
            body = await self.reader.body(request, share, limit=faces.LARGEST_BODY)
            read = functools.partial(faces.read, body, channels=channels, size=size)
            picture = await self.reader.run(request, read, caller, len(body))
            [row] = await self._values(request, picture.image, key, caller, entry)
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

    async def close(self) -> None:
        for line in self.lines.values():
            line.close()
        for model in self.models.values():
            if model.upstream is not None:
                await model.upstream.close()
        self.reader.close()
        await self.access.close()
        self.log.close()
        self._held.close()


def _entry(request: Request) -> dict[str, Any]:
    """What the access log tells of a request, as far as it is known from its connection."""
    peer = request.client and request.client.host
    return {"peer": peer, "model": None, "key": None, "id": None, "images": 0}


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
        server.note(_entry(request), error.status_code, time.perf_counter(), error.detail)
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The server failed; its log has the cause."}, 500)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        end = asyncio.Event()
        await server.access.start()
        saving = asyncio.create_task(server.memories.run(end))
        connections = Connections(serving.limits, server.reader.in_flight, serving.behind_proxy)
        watching = asyncio.create_task(connections.watch())
        yield {"connections": connections}
        watching.cancel()
        end.set()
        await saving
        await server.close()

    def known(show: Show) -> Endpoint:
        return server.guarded(show, server.access.check_caller)

    routes: list[tuple[str, Any, str]] = [
        ("/v2", known(server.about), "GET"),
        ("/v2/health/live", server.live, "GET"),
        ("/v2/health/ready", server.ready, "GET"),
        ("/v2/repository/index", known(server.index), "POST"),
        ("/metrics", server.guarded(server.figures, server.access.check_metrics), "GET"),
        ("/", known(server.about), "GET"),  # of people who open the address in a browser
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
