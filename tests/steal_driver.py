"""Harvests from a server in forked processes that are killed, and says what the ledger then holds.

    python tests/steal_driver.py URL OUT KILLS

A fork has everything imported, so that fifty lives take seconds. Each is killed by SIGKILL at a
random moment after its first request; the last one lives to the end.
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from denature.core.stopping import Stopper
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NoisePool
from denature.extract.theft import LEDGER
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.find import find
from denature.remote.config import RequestConfig

IMAGES, BUDGET, CONCURRENCY = 6000, 20_000, 4


def oracle_on(ledger: Ledger, url: str) -> Oracle:
    pace = RequestConfig(per_request=4, concurrency=CONCURRENCY)
    victim = find(url, pace=pace)

    async def about() -> VictimInfo:
        async with victim:
            return await victim.about()

    return Oracle(
        victim=victim, ledger=ledger, about=asyncio.run(about()), budget=BUDGET, pace=pace,
        stopper=Stopper(),
    )  # fmt: skip


def harvest(url: str, out: Path, count: int) -> None:
    with Ledger(out / LEDGER) as ledger:
        oracle_on(ledger, url).ask(NOISE, range(count))


def requests_in(path: Path, status: str | None = None) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=10)) as db:
            [[count]] = db.execute(
                "SELECT count(*) FROM requests WHERE status = coalesce(?, status)", (status,)
            )
    except sqlite3.OperationalError:  # it has no tables yet
        return 0
    return int(count)


NOISE = NoisePool(channels=1, image_size=8, seed=0)


def main(url: str, out: Path, kills: int) -> None:
    ledger, chance = out / LEDGER, random.Random(0)
    out.mkdir(parents=True)
    killed = most_unknown = 0
    while killed < kills:
        before, unknown = requests_in(ledger), requests_in(ledger, "unknown")
        child = os.fork()
        if not child:
            harvest(url, out, IMAGES)
            os._exit(0)
        while requests_in(ledger) == before:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "it was done before it could be killed: give it more to do"
        killed += 1
        Ledger(ledger).close()  # the next opening finds out what was in flight
        most_unknown = max(most_unknown, requests_in(ledger, "unknown") - unknown)
    harvest(url, out, IMAGES)
    with Ledger(ledger) as opened:
        oracle = oracle_on(opened, url)
        answers = opened.answers(oracle.target)
        contents = NOISE.contents(range(IMAGES))
        kept = np.stack([answers[content][0] for content in contents])

        async def ask() -> np.ndarray:
            async with oracle.victim:
                return await oracle.victim.ask(NOISE.images(range(IMAGES))[:200], id="check")

        fresh = asyncio.run(ask())
        tally = opened.tallies(oracle.target)["train"]
    told = {
        "kills": killed,
        "most_unknown": most_unknown,
        "concurrency": CONCURRENCY,
        "budget": BUDGET,
        "images": IMAGES,
        "answered": len(kept),
        "unknown": tally.unknown,
        "equal": bool(np.allclose(kept[:200], fresh, atol=1e-5)),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
