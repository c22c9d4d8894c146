"""Reads the bodies of requests, in turns and within bounds."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, final

from starlette.requests import Request

from denature.serve import protocol
from denature.serve.body import decompressed, packing, read_body
from denature.serve.config import ServerLimits
from denature.serve.fair import FairGate
from denature.serve.inflight import InFlight, Share
from denature.serve.protocol import LENGTH, InferenceRequest, ModelSignature
from denature.serve.refusal import Refused

T = TypeVar("T")

NUMBER_BYTES = 26
"""Bytes of a number in a JSON body at most, with separators: -2.2250738585072014e-308, and two."""

LARGE = 1 << 16
"""Bytes of JSON from which a body is parsed off the event loop."""

READERS = 2
"""Bodies that are unpacked and parsed at once, so that their memory is bounded."""


@final
class BodyReader:
    """Reads and parses bodies; callers take turns at what is done off the event loop."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self.in_flight = InFlight(limits.max_inflight_mb << 20)
        self._gate = FairGate(READERS)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="readers")

    async def body(self, request: Request, share: Share, *, limit: int) -> bytes:
        """The body of a request as it was sent; see `read_body`."""
        return await read_body(request, share, limit=limit, seconds=self._limits.body_s)

    async def parsed(
        self, request: Request, signature: ModelSignature, share: Share
    ) -> InferenceRequest:
        """An inference request.

        Raises:
            Refused: the request is malformed, too large or slow, or too many bytes are held.
        """
        limit = self._largest_body(signature)
        body = await self.body(request, share, limit=limit)
        packed = packing(request) is not None

        def parse() -> InferenceRequest:
            return protocol.parse(
                decompressed(body, share, limit=limit) if packed else body,
                request.headers.get(LENGTH),
                signature,
                max_images=self._limits.max_images,
            )

        if not packed and _json_bytes(request, body) <= LARGE:
            return parse()
        return await self.run(request, parse, share.caller, len(body))

    async def run(self, request: Request, work: Callable[[], T], caller: str, cost: int) -> T:
        """Run work on a body in a thread, when its caller has its turn."""
        async with self._gate.turn(caller, cost):
            check_waits(request)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _largest_body(self, signature: ModelSignature) -> int:
        most = self.in_flight.most_of_one
        if min(signature.shape) < 0:  # images of any size
            return most
        images = self._limits.max_images * math.prod(signature.shape)
        return min(images * NUMBER_BYTES + (1 << 16), most)

    def close(self) -> None:
        self._threads.shutdown()


def _json_bytes(request: Request, body: bytes) -> int:
    """Bytes of a body that are parsed; binary tensors behind them are only looked at."""
    length = request.headers.get(LENGTH, "")
    known = length.isascii() and length.isdigit() and len(length) < 12
    return min(int(length), len(body)) if known else len(body)


def check_waits(request: Request) -> None:
    """Check that a client still waits for its answer, so that nothing is done for one that left.

    Raises:
        Refused: with 400, if it does not.
    """
    gone: Callable[[], bool] | None = getattr(request.state, "gone", None)
    if gone is not None and gone():
        raise Refused(400, "The client has gone.")
