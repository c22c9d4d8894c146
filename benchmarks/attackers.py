"""Clients that mean a server ill, in a process of their own: what `benchmarks/abuse.py` starts.

    python -m benchmarks.attackers PORT KINDS CLIENTS [--key KEY] [--most REQUESTS]

Sends requests of these kinds in turns over loopback, from so many clients, until its standard input
ends or so many were sent; then it prints as JSON how many replies had which status. `half` opens
CLIENTS connections with half a head and holds them.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import io
import json
import random
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable

INFER = "/v2/models/cnn/infer"

NESTED = b"[" + b",".join([b"[]"] * 4_190_000) + b"]"
"""12.6 MB of empty lists, as many bytes as a body of 256 images of 3x32x32 may have."""

SIDE = 6324
"""Pixels a side of a picture of 40 million pixels."""


def head(path: str, length: int | None, key: str, *more: str) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: x", size, f"X-API-Key: {key}", *more, "", ""]
    return "\r\n".join(lines).encode()


def packed(key: str) -> bytes:
    """12 KB that unpack to 12.6 MB of nested lists."""
    body = gzip.compress(NESTED)
    return head(INFER, len(body), key, "Content-Encoding: gzip") + body


def plain(key: str) -> bytes:
    """12.6 MB of nested lists."""
    return head(INFER, len(NESTED), key) + NESTED


def crumbs(key: str) -> bytes:
    """A body in chunks of one byte."""
    return head(INFER, None, key) + b"1\r\n \r\n" * 200_000 + b"0\r\n\r\n"


def picture(key: str) -> bytes:
    """A DetectFaces request with a file of 5 KB and 40 million pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("1", (SIDE, SIDE)).save(buffer, "png")
    image = {"Image": {"Bytes": base64.b64encode(buffer.getvalue()).decode()}}
    body = json.dumps(image).encode()
    signed = f"Authorization: AWS4-HMAC-SHA256 Credential={key}/20200101/x"
    return head("/", len(body), key, signed, "X-Amz-Target: RekognitionService.DetectFaces") + body


def images(key: str, count: int = 256) -> bytes:
    """A good request."""
    size = 3 * 32 * 32 * count
    tensor = {"name": "images", "shape": [count, 3, 32, 32], "datatype": "UINT8",
              "parameters": {"binary_data_size": size}}  # fmt: skip
    text = json.dumps({"inputs": [tensor]}).encode()
    length = f"Inference-Header-Content-Length: {len(text)}"
    return head(INFER, len(text) + size, key, length) + text + random.Random(0).randbytes(size)


def pipelined(key: str) -> bytes:
    """A thousand requests whose replies are not awaited."""
    return f"GET /v2/models/cnn HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode() * 1000


def slow(key: str) -> bytes:
    """A body that does not come."""
    return head(INFER, 1000, key) + b"x"


def headless(key: str) -> bytes:
    """A head without an end."""
    return b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10_000


KINDS: dict[str, Callable[[str], bytes]] = {
    kind.__name__: kind
    for kind in (packed, plain, crumbs, picture, images, pipelined, slow, headless)
}

LAST = ("pipelined", "slow", "headless")
"""Kinds that end their connection: no reply of a later request could be told from theirs."""


class Crowd:
    """Clients that send requests in turns, up to a number of them.

    Args:
        port: of the server.
        requests: each with whether its connection ends with the first reply.
        most: requests at most.
        patience_s: seconds for a reply.
    """

    def __init__(
        self, port: int, requests: list[tuple[bytes, bool]], most: int, patience_s: float
    ) -> None:
        self._port, self._requests, self._left = port, requests, most
        self._patience_s = patience_s
        self.statuses: Counter[int] = Counter()

    async def client(self, number: int) -> None:
        while self._left > 0:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    last = False
                    while self._left > 0 and not last:
                        self._left -= 1
                        number += 1
                        request, last = self._requests[number % len(self._requests)]
                        writer.write(request)
                        async with asyncio.timeout(self._patience_s):
                            self.statuses[await reply(reader)] += 1
                finally:
                    writer.transport.abort()


async def reply(reader: asyncio.StreamReader) -> int:
    text = await reader.readuntil(b"\r\n\r\n")
    lines = text.decode().lower().split("\r\n")
    length = next((int(line[16:]) for line in lines if line.startswith("content-length: ")), 0)
    await reader.readexactly(length)
    return int(lines[0].split()[1])


def hold_half_open(port: int, count: int) -> None:
    """Connections with half a head, from many addresses of this machine."""
    held = []
    for number in range(count):
        source = f"127.1.{number % 200}.{1 + number // 200 % 250}"
        with contextlib.suppress(OSError):
            wire = socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0))
            held.append(wire)
            wire.sendall(b"GET /v2 HTT")
    print(json.dumps({"tried": count, "connected": len(held)}), flush=True)
    sys.stdin.read()


def read_until_the_end(clients: "asyncio.Future[list[None]]") -> None:
    sys.stdin.read()
    clients.get_loop().call_soon_threadsafe(clients.cancel)


async def attack(options: argparse.Namespace) -> None:
    requests = [(KINDS[kind](options.key), kind in LAST) for kind in options.kinds.split(",")]
    crowd = Crowd(options.port, requests, options.most, options.patience_s)
    print("ready", flush=True)
    clients = asyncio.gather(*(crowd.client(number) for number in range(options.clients)))
    threading.Thread(target=read_until_the_end, args=(clients,), daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        await clients
    print(json.dumps({str(status): count for status, count in crowd.statuses.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("kinds", help=f"half, or some of {','.join(KINDS)}")
    parser.add_argument("clients", type=int)
    parser.add_argument("--key", default="dn-none")
    parser.add_argument("--most", type=int, default=1_000_000_000)
    parser.add_argument("--patience-s", type=float, default=5, help="seconds for a reply")
    options = parser.parse_args()
    if options.kinds == "half":
        hold_half_open(options.port, options.clients)
    else:
        asyncio.run(attack(options))


if __name__ == "__main__":
    main()
