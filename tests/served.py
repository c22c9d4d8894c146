"""A real server in a process of its own, for tests of both sides of the wire."""

import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from denature.serve.keys.base import Charge, Keys, KeysUnavailable, digest_of, unavailable
from tests.processes import Command

INFER = "/v2/models/m/infer"


@dataclass
class Served:
    process: "subprocess.Popen[str]"
    address: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def entries(self) -> list[dict[str, Any]]:
        """The access log, once it has the requests that were answered: a thread writes it."""
        noted = 0.0
        if self.process.poll() is None:
            _, _, figures = self.send("GET", "/metrics")
            counts = re.findall(r"^denature_requests_total{.*} (.*)$", figures.decode(), re.M)
            noted = sum(map(float, counts))
        for _ in range(1000):
            lines = self.log.read_text().splitlines()
            if len(lines) >= noted:
                return [json.loads(line) for line in lines]
            time.sleep(0.02)
        raise AssertionError(f"{len(lines)} lines in the log, of {noted:g}")

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


def body_of(images: np.ndarray) -> bytes:
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8",
              "data": images.reshape(-1).tolist()}  # fmt: skip
    return json.dumps({"inputs": [tensor]}).encode()


def serve(
    out: Path,
    *words: str,
    module: str = "denature",
    files: int | None = None,
    port: int = 0,
) -> Served:
    """Start a server with the command line of a module, and wait until it answers.

    Args:
        out: folder of its log.
        words: the command line.
        module: the module.
        files: how many files it may open.
        port: to listen at.
    """
    log = out / "log.jsonl"
    process = Command(
        *("serve", *words, "--port", port, "--log", log, "--device", "cpu"),
        module=module,
        limits={} if files is None else {resource.RLIMIT_NOFILE: files},
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.match(r"http://([\d.:]+)/v2/models/", line)
    assert found is not None, line
    return Served(process, found[1], log)


def stop(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    served.process.communicate(timeout=60)


@contextmanager
def serving(out: Path, *words: str) -> Iterator[Served]:
    """A server that stops at the end of the context; see `serve`."""
    served = serve(out, *words)
    try:
        yield served
    finally:
        stop(served)


class OwnRedis(NamedTuple):
    """A real Redis that nothing else can reach."""

    process: "subprocess.Popen[bytes]"
    url: str


def _listens(place: Path) -> bool:
    """Whether a process answers at a socket; its file exists a moment before."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(place)) == 0


@contextmanager
def redis_in(folder: Path) -> Iterator[OwnRedis]:
    """A Redis at a socket in a folder; the test is skipped where there is none."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: tests of keys in a Redis are skipped")
    place = folder / "socket"
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(place), "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not _listens(place):
            assert process.poll() is None
            time.sleep(0.02)
        yield OwnRedis(process, f"unix://{place}")
    finally:
        process.kill()
        process.wait()


def spend(keys: Keys, key: str, images: int) -> str:
    """Book images on a key's account, as a server does; returns its name."""
    try:
        [booking] = keys.book([Charge(digest_of(key), images)])
    except KeysUnavailable as error:
        raise unavailable(str(error)) from None
    return booking.check()
