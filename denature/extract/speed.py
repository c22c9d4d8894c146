"""Speed of a clone and of the service that it copies, and the cost of its theft."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.extract.asking.pricing import Prices
from denature.extract.compatibility import check_side
from denature.extract.theft import read_theft
from denature.extract.victims.base import Victim, run_now
from denature.remote.config import RequestConfig
from denature.train.run import Run

WARM_UP = 3
"""Requests or batches that are not timed."""

LARGE = 128
"""Pixels a side of images for a service that states no size, which takes pictures of any."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Throughput and latency of batches or requests."""

    images: int
    """Images in one batch or request."""
    count: int
    """Number of timed batches or requests."""
    images_per_second: float
    p50_ms: float
    """Milliseconds for one batch or request, as for the other percentiles."""
    p90_ms: float
    p99_ms: float


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedResult:
    """Speed of a clone and of the service that it copies, and the service's prices."""

    clone: list[Timing]
    service: list[Timing]
    """Empty where the service was not timed."""
    queries: int
    """Queries that the timing took."""
    prices: Prices | None
    paid: float | None
    """US dollars that the theft cost; None where it is unknown."""

    def cost(self, images: int) -> float | None:
        """US dollars that the service charges for these images in one month."""
        return None if self.prices is None else self.prices.cost(images)

    @property
    def paid_after(self) -> float | None:
        """Images in one month that the service charges as much for as the theft cost.

        None where a price is unknown, or where the service is free.
        """
        if self.prices is None or self.paid is None:
            return None
        images = self.prices.queries_for(self.paid)
        return images if images != math.inf else None


def measure_speed(
    model: Run | Victim,
    victim: Victim | None = None,
    *,
    channels: int = 3,
    image_size: int = LARGE,
    queries: int = 300,
    prices: Prices | None = None,
    paid: float | None = None,
    pace: RequestConfig | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress = SILENT,
) -> SpeedResult:
    """Time a clone or any other model, and the service that it copies.

    Args:
        model: the clone. A run computes as fast as it can; what else answers is timed by queries.
        victim: the service; None times the clone alone.
        channels: channels of the images for a model that does not state them.
        image_size: pixels a side of these images.
        queries: number of queries that the service is timed with, and a model that is no run.
        prices: prices of the service.
        paid: US dollars that the theft cost; read from the theft's result by default.
        pace: images in a request, and requests in flight.
        device: device of the clone.
        precision: precision of the clone.
        progress: receives the elapsed seconds, and the number of queries.

    Raises:
        ConfigError: the service does not state its input, or the queries are too few.
        AskFailed: the service does not answer.
        RunError: the theft's result is damaged.
    """
    ask = partial(
        time_victim,
        queries=queries,
        pace=pace or RequestConfig(),
        channels=channels,
        image_size=image_size,
        progress=progress,
    )
    sent, answered = 0, 0
    if isinstance(model, Run):
        paid = paid_for(model) if paid is None else paid
        clone = time_run(model, device=device, precision=precision, progress=progress)
    else:
        clone, sent = ask(model)
    service: list[Timing] = []
    if victim is not None:
        service, answered = ask(victim)
    return SpeedResult(
        clone=clone, service=service, queries=sent + answered, prices=prices, paid=paid
    )


def _timing(seconds: Sequence[float], images: int, whole: float) -> Timing:
    p50, p90, p99 = (float(value) for value in 1000 * np.percentile(seconds, (50, 90, 99)))
    rate = images * len(seconds) / whole
    return Timing(images=images, count=len(seconds), images_per_second=rate, p50_ms=p50,
                  p90_ms=p90, p99_ms=p99)  # fmt: skip


def time_run(
    run: Run, *, device: str = "auto", precision: str = "auto", seconds: float = 2.0,
    batches: Sequence[int] = (1, 256), progress: Progress = SILENT,
) -> list[Timing]:  # fmt: skip
    """Time a run's network in this process on random images in host memory.

    Args:
        run: the run; its loading is not timed.
        device: device of the computation.
        precision: precision of the computation.
        seconds: duration for each batch size.
        batches: batch sizes.
        progress: receives the elapsed seconds.
    """
    net = run.record.net
    compute = resolve(run.network, device=device, precision=precision)
    shape = (net.channels, net.image_size, net.image_size)
    inference = Inference(run.network, compute, InferenceConfig(), shape=shape)

    def ask(size: int) -> Callable[[], None]:
        images = torch.randint(0, 256, (size, *shape), dtype=torch.uint8)

        def work() -> None:
            # The copy to the host waits for the device, which computes asynchronously.
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
    victim: Victim, *, queries: int, pace: RequestConfig, channels: int = 3,
    image_size: int = LARGE, progress: Progress = SILENT,
) -> tuple[list[Timing], int]:  # fmt: skip
    """Time a service over its wire on random images: single requests, then concurrent ones.

    Args:
        victim: the service, which may bill the queries.
        queries: images in all; a third of them one by one, the others in requests as `pace` sets,
            smaller where two rounds of requests in flight need more images than are left.
        pace: images in a request, and requests in flight.
        channels: channels of the images for a service that does not state them.
        image_size: pixels a side of these images.
        progress: receives the number of queries.

    Returns:
        The timings, and the number of queries sent.

    Raises:
        ConfigError: the service does not state its input, or the queries are too few.
        AskFailed: the service does not answer.
    """
    if queries < 30:
        raise ConfigError(f"queries is {queries}; it must be at least 30.")
    shape = (channels, image_size)
    return run_now(_time_victim(victim, queries, pace, shape, progress))


async def _time_victim(
    victim: Victim, queries: int, pace: RequestConfig, usual: tuple[int, int], progress: Progress
) -> tuple[list[Timing], int]:
    async with victim:
        about = await victim.about()
        check_side(about)
        channels, side = about.channels or usual[0], about.image_size or usual[1]
        generator, sent = np.random.default_rng(0), 0

        def images(count: int) -> np.ndarray:
            return generator.integers(0, 256, (count, channels, side, side), dtype=np.uint8)

        async def ask(batch: np.ndarray) -> float:
            nonlocal sent
            sent += len(batch)
            started = time.perf_counter()
            await victim.ask(batch, id=f"speed-{sent}")
            task.advance(len(batch))
            return time.perf_counter() - started

        with progress.task(f"timing {about.target}", queries, "queries") as task:
            for _ in range(WARM_UP):
                await ask(images(1))
            single = [await ask(images(1)) for _ in range(queries // 3 - WARM_UP)]
            # Requests enough to keep as many in flight as `pace` sets, for two rounds at least.
            each = (queries - sent) // (2 * pace.concurrency)
            size = max(1, min(pace.per_request, about.most or pace.per_request, each))
            batches = iter([images(size) for _ in range((queries - sent) // size)])
            taken: list[float] = []

            async def client() -> None:
                for batch in batches:
                    taken.append(await ask(batch))

            started = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(pace.concurrency)))
            whole = time.perf_counter() - started
    return [_timing(single, 1, sum(single)), _timing(taken, size, whole)], sent


def paid_for(run: Run) -> float | None:
    """Cost in US dollars of the answers that a clone learned from; None where it is unknown."""
    if run.folder is None:
        return None
    thefts = filter(None, map(read_theft, run.folder.resolve().parents[:3]))
    clones = (clone for theft in thefts for clone in theft.clones)
    return next((clone.money for clone in clones if clone.id == run.record.id), None)
