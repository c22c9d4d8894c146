"""How fast both sides of the wire are, in ratios of things measured in turns in one run.

    python -m benchmarks.wire [--json FILE] [--quick] [--mlserver PYTHON]

Server and thief are processes of their own that speak over loopback and share this machine's cores.
Images are random bytes of 3x32x32, and the victim is a `cnn` that was trained for a moment: weights
do not matter here. *One after another* is what a script with `requests` does: an image a request,
JSON both ways, the next when the answer is there. The *load generator* sends bodies that were made
before, as many at once as the thief, and throws the answers away: what is left of its speed is what
the thief costs. `--mlserver` names a Python that has MLServer, which then serves the same network
(see `benchmarks/mlserver_model.py`); without it that line is left out.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import numpy as np
import requests
import torch

from benchmarks.bench import Bench, Work
from denature.core.compute import resolve
from denature.core.stopping import Stopper
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.extract.asking.ledger import Ledger, Query
from denature.extract.asking.limits import QueryLimits
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import StoredPool
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.find import find
from denature.remote.config import RequestConfig
from denature.remote.protocol import request
from denature.remote.signature import RemoteSignature
from denature.train import Normal, Run, Training, train

PACE = RequestConfig()

SIGNATURE = RemoteSignature(
    input="images", datatype="UINT8", shape=(3, 32, 32), channels_last=False,
    output="probabilities", classes=10,
)  # fmt: skip

WANTED = {
    "harvest_over_requests": "answers/s, harvest of 10,000 images | one after another | >= 10",
    "harvest_over_load": "answers/s, the same | load generator, equal payloads | >= 0.8",
    "server_over_mlserver/32": "images/s, our server, JSON, 32 images a request | MLServer, the "
    "same network | >= 1.5",
    "server_over_mlserver": "the same, one image a request | MLServer | ",
    "guarded_over_bare": "ms a request of one image, key, budget, rounding and metrics | "
    "without key and rounding | ",
}
"""What each ratio is of, and the least or most that is wanted of it."""


def victim(folder: Path, net: str = "cnn") -> Run:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(pixels, torch.arange(256) % 10, torch.arange(256))
    data = Dataset(
        config=DataConfig(source="random"),
        train=split,
        test=split,
        validation=None,
        classes=tuple("0123456789"),
        digest="random",
        test_origin="none",
    )
    return train(net, data, Normal(), Training(epochs=1, device="cpu"), out=folder)


@contextmanager
def serving(*words: str) -> Iterator[str]:
    """Our server in a process of its own; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "denature", "serve", *words, "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.match(r"(http://[\d.:]+)/v2", process.stdout.readline())
        assert found is not None
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextmanager
def mlserver(python: str, run: Run, folder: Path) -> Iterator[str]:
    """MLServer with the same network, as its documentation says; gives its address."""
    assert run.folder is not None
    settings = {"http_port": 8151, "grpc_port": 8152, "metrics_port": 8153, "parallel_workers": 0,
                "debug": False}  # fmt: skip
    model = {"name": "cnn", "implementation": "mlserver_model.Network",
             "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, 32, 32]}],
             "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
             "parameters": {"uri": str(run.folder)}}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    here = Path(__file__).parent
    process = subprocess.Popen(
        [str(Path(python).with_name("mlserver")), "start", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
    )
    address = "http://127.0.0.1:8151"
    try:
        for _ in range(300):
            try:
                if requests.get(f"{address}/v2/models/cnn/ready", timeout=2).status_code == 200:
                    break
            except requests.ConnectionError:
                time.sleep(0.2)
        else:
            raise RuntimeError("MLServer did not get ready within a minute.")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def pool_of(images: int, seed: int) -> StoredPool:
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 3, 32, 32), dtype=np.uint8)
    split = Split(
        torch.from_numpy(pixels), torch.zeros(images, dtype=torch.int64), torch.arange(images)
    )
    return StoredPool(f"random {seed}", split, str(seed), channels=3)


def harvest(address: str, images: int, folder: Path, *, times: int) -> Work:
    """A thief with a ledger and a pool of its own each time; the pool is there before."""
    turn = 0
    pools = {number: pool_of(images, number) for number in range(1, times + 1)}

    def work() -> int:
        nonlocal turn
        turn += 1
        pool, source = pools[turn], find(address)
        with Ledger(folder / f"{turn}.sqlite") as ledger:
            oracle = Oracle(
                victim=source,
                ledger=ledger,
                about=asyncio.run(about_of(address)),
                budget=images,
                pace=PACE,
                stopper=Stopper(),
            )
            oracle.ask(pool, range(images))
            assert ledger.tallies(oracle.target)["train"].answered == images
        return images

    return work


async def about_of(address: str) -> VictimInfo:
    source = find(address)
    async with source:
        return await source.about()


def one_after_another(address: str, images: int) -> Work:
    """What a script does: an image a request, JSON both ways."""
    pixels = pool_of(images, 0).images(range(images))

    def work() -> int:
        with requests.Session() as session:
            for image in pixels:
                tensor = {"name": "images", "shape": [1, 3, 32, 32], "datatype": "UINT8",
                          "data": image.reshape(-1).tolist()}  # fmt: skip
                answer = session.post(
                    f"{address}/v2/models/cnn/infer", json={"inputs": [tensor]}, timeout=30
                )
                assert len(answer.json()["outputs"][0]["data"]) == 10
        return images

    return work


def load(address: str, images: int, *, binary: bool, each: int, at_once: int) -> Work:
    """As many requests at once, with bodies that were made before; answers are thrown away."""
    pixels = pool_of(each, 0).images(range(each))
    body, headers = request(pixels, SIGNATURE, id="1", binary=binary)

    async def send() -> None:
        left = iter(range(images // each))
        async with aiohttp.ClientSession() as session:

            async def client() -> None:
                for _ in left:
                    async with session.post(
                        f"{address}/v2/models/cnn/infer", data=body, headers=headers
                    ) as answer:
                        await answer.read()
                        assert answer.status == 200

            await asyncio.gather(*(client() for _ in range(at_once)))

    def work() -> int:
        asyncio.run(send())
        return images // each * each

    return work


def single(
    address: str, requests_: int, key: str | None = None, *, binary: bool = True
) -> list[float]:
    """Milliseconds of requests of one image over one connection."""
    pixels = pool_of(1, 0).images([0])
    body, headers = request(pixels, SIGNATURE, id="1", binary=binary)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    taken = []
    with requests.Session() as session:
        for _ in range(requests_):
            started = time.perf_counter()
            answer = session.post(f"{address}/v2/models/cnn/infer", data=body, headers=headers)
            answer.content  # noqa: B018
            taken.append(1000 * (time.perf_counter() - started))
            assert answer.status_code == 200
    return taken


def measure_latency(bench: Bench, run: Run, folder: Path, count: int) -> None:
    """What key, budget, rounding and metrics add to a request, in turns at two servers."""
    keys = str(folder / "keys.sqlite")
    made = subprocess.run(
        [sys.executable, "-m", "denature", "keys", keys, "--add", "bench", "--budget", "10000000"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    key = made.stdout.strip()
    guarded = (f"cnn={run.folder}", "--keys", keys, "--decimals", "3", "--log", str(folder / "log"))
    bare = (f"cnn={run.folder}", "--log", "off")
    with serving(*guarded) as ours, serving(*bare) as theirs:
        taken: tuple[list[float], list[float]] = ([], [])
        single(ours, 50, key), single(theirs, 50)
        for _ in range(2 * bench.repeats):
            taken[0].extend(single(ours, count, key))
            taken[1].extend(single(theirs, count))
    a, b = map(statistics.median, taken)
    bench.figures["guarded_over_bare"] = {
        "ratio": round(a / b, 3), "median_ours": round(a, 4), "median_theirs": round(b, 4),
        "unit": "ms/request", "repeats": 2 * bench.repeats,
    }  # fmt: skip
    bench.say("guarded_less_bare_ms", a - b, "ms a request")


def measure_ledger(bench: Bench, folder: Path, answers: int) -> None:
    """Answers a second into the ledger, each noted before and kept after, durably."""
    about = VictimInfo(target="nobody", kind="probabilities", classes=10)
    values = np.full((PACE.per_request, 10), 0.1, np.float32)
    rates = []

    async def fill(ledger: Ledger, target: int) -> None:
        left = iter(range(0, answers, PACE.per_request))

        async def worker() -> None:
            for start in left:
                questions = [
                    Query(content=number.to_bytes(16, "little"), repeat=0, reference="none")
                    for number in range(start, start + PACE.per_request)
                ]
                sent, _ = await ledger.send(
                    target,
                    questions,
                    purpose="train",
                    limits=QueryLimits(queries=10**9),
                    attempt=1,
                    price=None,
                )
                await ledger.answered(
                    target, sent, questions, values, kind="probabilities", latency=0.0
                )

        await asyncio.gather(*(worker() for _ in range(PACE.concurrency)))

    for turn in range(bench.repeats + 1):
        with Ledger(folder / f"ledger-{turn}.sqlite") as ledger:
            target = ledger.target(about)
            started = time.perf_counter()
            asyncio.run(fill(ledger, target))
            rates.append(answers / (time.perf_counter() - started))
    bench.say("ledger_answers_per_second", statistics.median(rates[1:]), "answers/s, durable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="two repeats of little work: a trial")
    parser.add_argument("--mlserver", help="a Python that has MLServer")
    options = parser.parse_args()
    bench = Bench(torch.device("cpu"), repeats=2 if options.quick else 5)
    images = 2_000 if options.quick else 10_000
    with TemporaryDirectory() as name:
        folder = Path(name)
        run = victim(folder / "run")
        quiet = (f"cnn={run.folder}", "--log", "off")
        with serving(*quiet) as address:
            ours = harvest(address, images, folder, times=2 * (bench.repeats + 1))
            bench.compare("harvest_over_requests", ours, one_after_another(address, images // 20))
            at_once = {"each": PACE.per_request, "at_once": PACE.concurrency}
            bench.compare("harvest_over_load", ours, load(address, images, binary=True, **at_once))
        measure_latency(bench, run, folder, 50 if options.quick else 200)
        measure_ledger(bench, folder, images * 10)
        if options.mlserver:
            with serving(*quiet) as address, mlserver(options.mlserver, run, folder) as other:
                for each, at_once_ in ((1, 8), (32, 8)):
                    key = "server_over_mlserver" + (f"/{each}" if each > 1 else "")
                    few = images // 5
                    mine = load(address, few, binary=False, each=each, at_once=at_once_)
                    theirs = load(other, few, binary=False, each=each, at_once=at_once_)
                    bench.compare(key, mine, theirs)
        compute = resolve(run.network, device="cpu", precision="fp32")
    bench.finish(WANTED, options.json, device=compute.describe())


if __name__ == "__main__":
    main()
