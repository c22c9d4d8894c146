"""How fast a clone is, and what the service takes for as many images."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.extract.config import RequestConfig
from denature.extract.theft import RESULT, read_theft
from denature.extract.victims.base import Victim, run_now
from denature.train.run import Run

WARM_UP = 3
"""Requests, or batches, that are not counted."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How long answers took."""

    images: int
    """In one batch or request."""
    count: int
    """Batches or requests that were timed."""
    images_per_second: float
    p50_ms: float
    """Of a batch or request, as are the others."""
    p90_ms: float
    p99_ms: float


def _timing(seconds: Sequence[float], images: int, whole: float) -> Timing:
    p50, p90, p99 = (float(it) for it in 1000 * np.percentile(seconds, (50, 90, 99)))
    rate = images * len(seconds) / whole
    return Timing(images=images, count=len(seconds), images_per_second=rate, p50_ms=p50,
                  p90_ms=p90, p99_ms=p99)  # fmt: skip


def time_run(
    run: Run, *, device: str = "auto", precision: str = "auto", seconds: float = 2.0,
    batches: Sequence[int] = (1, 256), progress: Progress = SILENT,
) -> list[Timing]:  # fmt: skip
    """A run's network in this process, asked about random images that lie on the host.

    Args:
        run: loaded once; that is not counted.
        device: where to compute.
        precision: in which precision.
        seconds: to ask in batches of each size.
        batches: their sizes.
        progress: told how far it is.
    """
    net = run.record.net
    compute = resolve(run.network, device=device, precision=precision)
    shape = (net.channels, net.image_size, net.image_size)
    inference = Inference(run.network, compute, InferenceConfig(), shape=shape)

    def ask(size: int) -> Callable[[], None]:
        images = torch.randint(0, 256, (size, *shape), dtype=torch.uint8)

        def work() -> None:
            # To the host: a device that has not answered yet has answered nothing.
            inference.low_latency(compute.pixels(images.to(compute.device))).cpu()

        return work

    found = []
    for size in batches:
        work = ask(size)
        taken: list[float] = []
        for _ in range(WARM_UP):
            work()
        with progress.task(f"timing {net.name} in batches of {size}", seconds, "s") as task:
            started = time.perf_counter()
            while (now := time.perf_counter()) - started < seconds or len(taken) < 5:
                work()
                taken.append(time.perf_counter() - now)
                task.advance(taken[-1])
        found.append(_timing(taken, size, sum(taken)))
    return found


def time_victim(
    victim: Victim, *, queries: int, pace: RequestConfig, progress: Progress = SILENT
) -> tuple[list[Timing], int]:
    """A service over its wire, asked about random images: one after another, then many at once.

    Args:
        victim: who is asked, and may count it.
        queries: images in all; a third of them alone, the others as `pace` says.
        pace: images in a request, and requests in flight.
        progress: told how far it is.

    Returns:
        The timings, and how many queries were sent.

    Raises:
        ConfigError: it does not say what images it takes, or too few queries.
        AskFailed: it does not answer.
    """
    if queries < 30:
        raise ConfigError(f"queries is {queries}; it must be at least 30.")
    return run_now(_time_victim(victim, queries, pace, progress))


async def _time_victim(
    victim: Victim, queries: int, pace: RequestConfig, progress: Progress
) -> tuple[list[Timing], int]:
    async with victim:
        about = await victim.about()
        channels, side = about.channels or 3, about.image_size or 128
        generator, sent = np.random.default_rng(0), 0

        def images(count: int) -> np.ndarray:
            return generator.integers(0, 256, (count, channels, side, side), dtype=np.uint8)

        async def ask(some: np.ndarray) -> float:
            nonlocal sent
            sent += len(some)
            started = time.perf_counter()
            await victim.ask(some, id=f"speed-{sent}")
            task.advance(len(some))
            return time.perf_counter() - started

        with progress.task(f"timing {about.target}", queries, "queries") as task:
            for _ in range(WARM_UP):
                await ask(images(1))
            single = [await ask(images(1)) for _ in range(queries // 3 - WARM_UP)]
            size = min(pace.per_request, about.most or pace.per_request, queries // 3)
            left = iter([images(size) for _ in range((queries - sent) // size)])
            taken: list[float] = []

            async def client() -> None:
                for some in left:
                    taken.append(await ask(some))

            started = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(pace.concurrency)))
            whole = time.perf_counter() - started
    return [_timing(single, 1, sum(single)), _timing(taken, size, whole)], sent


def paid_for(run: Run) -> float | None:
    """What the theft that a clone comes from cost in US dollars, where that is known."""
    if run.folder is None:
        return None
    places = (folder / RESULT for folder in run.folder.resolve().parents[:3])
    if (place := next((place for place in places if place.is_file()), None)) is None:
        return None
    same = (clone for clone in read_theft(place).clones if clone.id == run.record.id)
    return next((clone.money for clone in same), None)
