"""What attacks cost a server and its other clients, over loopback, bounded in number and time.

    python -m benchmarks.abuse --before CHECKOUT [--json FILE] [--quick]

Server, attackers (`benchmarks/attackers.py`) and the client that measures are processes of their
own, which share this machine's cores. Models are a `cnn` and an `mlp` with the places of a face,
of 3x32x32, trained for a moment: weights do not matter here. `--before` is a checkout of another
commit, whose server takes turns with this one for the throughput of good requests, and is attacked
once by the greedy key.
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.attackers import KINDS
from benchmarks.bench import Bench
from benchmarks.wire import load, victim
from denature.core.compute import resolve
from denature.data.config import DataConfig
from denature.data.landmarks import PLACES
from denature.train import Normal, Training, train

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"

WORST = "packed,plain,crumbs,picture"

MIXED = f"{WORST},images,pipelined,slow,headless"

SOAK = 7_200
"""Requests of an hour in which one of each kind comes every four seconds."""

FILES = 1024

OWN = "127.0.0.2"
"""Address of the client that measures; the attackers have others."""

ROWS = {
    "memory_without_key_mb": "memory a request without a valid key takes, MB | 8 | 1",
    "live_p99_ms": "`/v2/health/live` p99 while 64 clients send the worst bodies without a key, ms"
    " | 250 | 50",
    "live_p99_with_key_ms": "the same with a valid key, ms |  | ",
    "live_p99_alone_ms": "the same without attackers, ms |  | ",
    "polite_share": "a polite client's answers beside a key with 48 connections of 256 images, over"
    " its fair share | 0.5 | 0.9",
    "polite_share_of_alone": "the same over half of what it is answered alone, attackers on the"
    " same cores |  | ",
    "polite_share_before": "the same at the commit before |  | ",
    "half_open": f"half-open connections that a limit of {FILES:,} files survives | 5,000 | 20,000",
    "half_open_answered": "requests answered beside them, share |  | 1",
    "soak": f"resident memory after a soak of {SOAK:,} requests with a valid key, over before"
    " | 1.2 | 1.05",
    "throughput_binary": "good requests of 32 images, binary, over the commit before | 0.97 | 1.0",
    "throughput_json": "the same in JSON | 0.97 | 1.0",
}
"""What each figure is, the floor and the goal."""


@dataclass
class Server:
    """A server's process, its port and two keys."""

    process: "subprocess.Popen[str]"
    port: int
    key: str
    greedy: str

    def memory(self, name: str = "VmRSS") -> float:
        """Megabytes: VmRSS, or VmHWM for the most since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1000

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


COMMAND = (sys.executable, "-m", "denature")


def new_key(folder: Path, code: Path | None = None) -> str:
    code = code or Path.cwd()
    made = subprocess.run(
        [*COMMAND, "keys", str(folder / "keys.sqlite"), "--add", str(time.time_ns())],
        capture_output=True, text=True, check=True, cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
    )  # fmt: skip
    return made.stdout.strip()


@contextmanager
def process(
    *words: str, code: Path | None = None, files: int | None = None
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A server, perhaps of another checkout or with few files; gives its port, too."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    code = code or Path.cwd()
    with subprocess.Popen(
        [*COMMAND, "serve", *words, "--port", "0", "--device", "cpu", "--log", "off"],
        stdout=subprocess.PIPE, text=True, cwd=code, env={**os.environ, "PYTHONPATH": str(code)},
        preexec_fn=limit,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            found = re.match(r"http://[\d.]+:(\d+)/v2", server.stdout.readline())
            assert found is not None
            yield server, int(found[1])
        finally:
            server.send_signal(signal.SIGTERM)


@contextmanager
def serving(
    folder: Path, *, code: Path | None = None, files: int | None = None
) -> Iterator[Server]:
    """A server with both models and keys."""
    # A store that another version made may have another form.
    apart = folder / ("ours" if code is None else "before")
    apart.mkdir(exist_ok=True)
    keys = new_key(apart, code), new_key(apart, code)
    words = (f"cnn={folder / 'cnn'}", f"faces={folder / 'faces'}", "--keys")
    with process(*words, str(apart / "keys.sqlite"), code=code, files=files) as (server, port):
        yield Server(server, port, *keys)


@contextmanager
def serving_plain(folder: Path, code: Path | None = None) -> Iterator[str]:
    """A server without keys; gives its address."""
    with process(f"cnn={folder / 'cnn'}", code=code) as (_, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def attack(
    server: Server, kinds: str, clients: int, *words: str, to_the_end: bool = False
) -> Iterator[dict[str, int]]:
    """Attackers beside the block, or until they are done; what they were answered comes last."""
    found: dict[str, int] = {}
    command = [sys.executable, "-m", "benchmarks.attackers", str(server.port), kinds, str(clients)]
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        try:
            yield found
        finally:
            if to_the_end:
                found |= json.loads(process.stdout.read())
            process.stdin.close()
            if not to_the_end:
                found |= json.loads(process.stdout.read() or "{}")


def ask(server: Server, request: bytes, source: str = OWN) -> int:
    """The status of a reply, over a connection of its own; 0 where none came."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(
            ("127.0.0.1", server.port), 60, source_address=(source, 0)
        ) as wire,
    ):
        wire.sendall(request)
        text = b""
        while b"\r\n\r\n" not in text and (part := wire.recv(1 << 16)):
            text += part
        length = re.search(rb"content-length: (\d+)", text.lower())
        left = int(length[1]) - len(text.partition(b"\r\n\r\n")[2]) if length else 0
        while left > 0 and (part := wire.recv(1 << 16)):
            left -= len(part)
        return int(text.split()[1]) if text else 0
    return 0


def probe(server: Server, count: int) -> tuple[list[float], int]:
    """Milliseconds of health checks, each over a connection of its own; and those that failed."""
    taken, failed = [], 0
    for _ in range(count):
        started = time.perf_counter()
        failed += ask(server, LIVE) != 200
        taken.append(1000 * (time.perf_counter() - started))
        time.sleep(0.02)
    return taken, failed


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def make_faces(folder: Path) -> None:
    """A network with the places of a face, of no use."""
    coded = io.BytesIO()
    Image.new("RGB", (32, 32)).save(coded, "png")
    cells = [{"bytes": coded.getvalue(), "path": None}] * 8
    columns = {"image": cells, "keypoints": pa.array([[0.5] * 136] * 8, pa.list_(pa.float32()))}
    data = folder / "data"
    data.mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), data / f"{split}-0.parquet")
    config = DataConfig(source=str(data), points=PLACES)
    train("mlp", config, Normal(), Training(epochs=1, device="cpu"), out=folder / "faces")


def measure_memory(bench: Bench, server: Server) -> None:
    """The most that one request of each kind takes, each several times one after another."""
    for kind in WORST.split(","):
        request = KINDS[kind]("dn-none")
        ask(server, request)
        grown = []
        for _ in range(5):
            server.forget_peak()
            before = server.memory()
            ask(server, request)
            grown.append(server.memory("VmHWM") - before)
        bench.say(f"memory_without_key_mb/{kind}", statistics.median(grown), "MB")
    of_kinds = [bench.figures[f"memory_without_key_mb/{kind}"] for kind in WORST.split(",")]
    bench.say("memory_without_key_mb", max(float(str(each["value"])) for each in of_kinds), "MB")


def measure_health(bench: Bench, server: Server, count: int) -> None:
    bench.say("live_p99_alone_ms", p99(probe(server, count)[0]), "ms")
    for name, words in (("", ()), ("_with_key", ("--key", server.key))):
        server.forget_peak()
        before = server.memory()
        with attack(server, WORST, 64, *words) as answered:
            taken, failed = probe(server, count)
        print(f"attackers were answered {answered}; {failed} of {count} checks failed")
        bench.say(f"live_p99{name}_ms", p99(taken), "ms")
        bench.say(f"peak{name}_mb", server.memory("VmHWM") - before, "MB above, 64 clients")


def requests_within(server: Server, seconds: float) -> float:
    """Requests of 256 images a second that one client is answered, one after another."""
    request, answered, started = KINDS["images"](server.key), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        answered += ask(server, request) == 200
    return answered / (time.perf_counter() - started)


def measure_share(bench: Bench, folder: Path, seconds: float, code: Path | None = None) -> None:
    """What a client gets beside a greedy one, over half of all, or all that it takes alone."""
    name = "polite_share" if code is None else "polite_share_before"
    with serving(folder, code=code) as server:
        alone = requests_within(server, seconds / 4)
        with attack(server, "images", 48, "--key", server.greedy, "--patience-s", "60") as answered:
            started = time.perf_counter()
            polite = requests_within(server, seconds)
            taken = time.perf_counter() - started
    rest = answered.get("200", 0) / taken
    print(f"requests/s: alone {alone:.2f}; polite {polite:.2f} beside {rest:.2f} of {answered}")
    bench.say(name, polite / min(alone, (polite + rest) / 2), "of a fair share")
    bench.say(f"{name}_of_alone", polite / (alone / 2), "of half of what it is answered alone")


def measure_half_open(bench: Bench, folder: Path, tried: int) -> None:
    """Health checks and answers while connections are opened with half a head, and held."""
    with serving(folder, files=FILES) as server, contextlib.ExitStack() as held:
        good, answered, asked = KINDS["images"](server.key), 0, 0
        each, started = tried // 4, time.perf_counter()
        threads = ThreadPoolExecutor(4)
        crowds = [
            threads.submit(held.enter_context, attack(server, "half", each)) for _ in range(4)
        ]
        while not all(crowd.done() for crowd in crowds) or asked < 100:
            answered += ask(server, LIVE) == 200
            answered += ask(server, good) == 200
            asked += 2
        taken = time.perf_counter() - started
        print(f"{4 * each} half-open connections in {taken:.0f} s, {asked} requests beside them")
        bench.say("half_open", 4 * each if answered else 0, "connections")
        bench.say("half_open_answered", answered / asked, "of the requests beside them")


def measure_soak(bench: Bench, server: Server, requests: int) -> None:
    """Resident memory after mixed abuse, over that after some of it."""
    words = ("--key", server.key, "--most")
    for share in (10, 1):
        before = server.memory()
        with attack(server, MIXED, 32, *words, str(requests // share), to_the_end=True) as answered:
            pass
        print(f"the soak was answered {answered}")
        time.sleep(1)
    bench.say("soak_requests", requests, "requests")
    bench.say("soak", server.memory() / before, f"{server.memory():.0f} MB / {before:.0f} MB")


def measure_throughput(bench: Bench, folder: Path, before: Path, images: int) -> None:
    """Good requests without abuse, in turns at two servers."""
    with serving_plain(folder) as ours, serving_plain(folder, before) as theirs:
        for name, binary in (("binary", True), ("json", False)):
            works = [load(url, images, binary=binary, each=32, at_once=8) for url in (ours, theirs)]
            bench.compare(f"throughput_{name}", *works)


def table(figures: Mapping[str, Any]) -> str:
    """The figures of a JSON file as Markdown."""
    lines = ["| what | floor | goal | measured |", "| --- | --- | --- | --- |"]
    for key, line in ROWS.items():
        if found := figures.get(key):
            lines.append(f"| {line} | {found.get('value', found.get('ratio')):,.5g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="little of everything: a trial")
    parser.add_argument("--before", type=Path, help="a checkout of the commit to compare with")
    options = parser.parse_args()
    bench = Bench(torch.device("cpu"), repeats=2 if options.quick else 10)
    few = 10 if options.quick else 1
    with TemporaryDirectory() as name:
        folder = Path(name)
        run = victim(folder / "cnn")
        make_faces(folder)
        with serving(folder) as server:
            measure_memory(bench, server)
            measure_health(bench, server, 200 // few)
            measure_soak(bench, server, SOAK // few)
        measure_share(bench, folder, 20 / few)
        measure_half_open(bench, folder, 20_000 // few)
        if options.before is not None:
            measure_share(bench, folder, 20 / few, options.before)
            measure_throughput(bench, folder, options.before, 6_400 // few)
        compute = resolve(run.network, device="cpu", precision="fp32")
    print("\n" + table(bench.figures))
    bench.finish({}, options.json, device=compute.describe())


if __name__ == "__main__":
    main()
