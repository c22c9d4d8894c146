"""The body of a request, read and decompressed within bounds."""

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from denature.serve.inflight import Share
from denature.serve.refusal import Refused

STEP = 1 << 18
"""Bytes that are decompressed at a time."""

PACKED = ("gzip", "deflate")


async def read_body(request: Request, share: Share, *, limit: int, seconds: float) -> bytes:
    """The whole body of a request as it was sent, of at most `limit` bytes.

    Raises:
        Refused: with 400, 408, 413, 415 or 503, if it ends early, is slow or too large, is packed
            in another way than `PACKED`, or too many bytes are held already.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise Refused(413, f"The body has {declared[:20]} bytes; at most {limit} are accepted.")
    if packing(request) not in (None, *PACKED):
        raise Refused(415, "Content-Encoding must be gzip, deflate or identity.")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                if len(body) + len(part) > limit:
                    raise Refused(413, f"The body has more than {limit} bytes.")
                share.add(len(part))
                body += part
    except TimeoutError:
        raise Refused(408, f"The body took more than {seconds:g} s.") from None
    except ClientDisconnect:
        raise Refused(400, "The body ended early.") from None
    return bytes(body)


def packing(request: Request) -> str | None:
    """The encoding of a body; None for a plain one."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    return None if encoding == "identity" else encoding


def decompressed(body: bytes, share: Share, *, limit: int) -> bytes:
    """A gzip or deflate body, unpacked in steps.

    Raises:
        Refused: with 400, 413 or 503, if it is damaged, larger than `limit`, or too many bytes are
            held already.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects gzip or deflate
    # In pieces: the rest that a step leaves is copied by each.
    plain, left, at, whole = bytearray(), b"", 0, memoryview(body)
    try:
        while not unpacker.eof:
            if not left:
                left, at = bytes(whole[at : at + STEP]), at + STEP
            step = unpacker.decompress(left, STEP)
            left = unpacker.unconsumed_tail
            if not (step or left or unpacker.eof or at < len(body)):
                break
            if len(plain) + len(step) > limit:
                raise Refused(413, f"The decompressed body has more than {limit} bytes.")
            share.add(len(step))
            plain += step
    except zlib.error as error:
        raise Refused(400, f"The body cannot be decompressed: {error}.") from None
    if not unpacker.eof or unpacker.unused_data or at < len(body):
        raise Refused(400, "The compressed body ends early or has bytes behind its end.")
    return bytes(plain)
