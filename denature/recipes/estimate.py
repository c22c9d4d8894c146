"""How long runs would take on this machine, from a few steps of each of their networks."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from denature.core.compute import Compute, settle
from denature.core.progress import SILENT, Progress
from denature.core.record import RECORD, Record, find_records
from denature.data import Dataset
from denature.nets import create
from denature.train import Adversarial, Order
from denature.train.job import given_by

STEPS = 3
PROBE = 64
"""Images of a step that is timed; time is taken to grow with the number of images."""


def seconds_of(
    wanted: Iterable[tuple[Order, Dataset]], done: Path, *, progress: Progress = SILENT
) -> float:
    """Seconds of training that are left of some runs and of those that they need, each once.

    Stored answers and shared passes make it less; evaluation and decoding are not counted.

    Args:
        wanted: orders, and what they are trained on.
        done: what is finished in and below this folder is not counted.
        progress: told how far it is.
    """
    orders = {
        (needed, data.digest): data for order, data in wanted for needed in _all_behind(order)
    }
    finished = _finished(done)
    left = [
        (order, data) for (order, _), data in orders.items() if _mark(order, data) not in finished
    ]
    speeds: dict[tuple[object, ...], tuple[float, float]] = {}
    total = 0.0
    with progress.task(
        "timing a few steps", len({_key(o, d) for o, d in left}), "networks"
    ) as task:
        for order, data in left:
            images = order.training.epochs * order.training.fraction * len(data.train)
            for part, (asked, it) in enumerate(((False, order), (True, order.asked))):
                if not isinstance(it, Order):
                    continue
                key = _key(it, data)
                if key not in speeds:
                    speeds[key] = _speed(str(it.net), data, it)
                    task.advance(1)
                passes = 1
                if isinstance(it.objective, Adversarial) and not asked:
                    passes += it.objective.steps
                total += passes * images * speeds[key][part if asked else 0]
    return total


def _all_behind(order: Order) -> Iterator[Order]:
    """An order and all that it needs, what is needed first."""
    for needed in (order.asked, order.init, order.backbone):
        if isinstance(needed, Order):
            yield from _all_behind(needed)
    yield order


def _mark(order: Order, data: Dataset) -> str:
    """What tells this order from others, those that it needs included."""
    needs = [it for it in (order.asked, order.init, order.backbone) if isinstance(it, Order)]
    return _spelled(given_by(order), data.digest, [_mark(it, data) for it in needs])


def _finished(folder: Path) -> set[str]:
    """The marks of the runs that lie there."""
    records = find_records([folder]) if any(folder.rglob(RECORD)) else []
    by_recipe = {(record.recipe, record.seed): record for record in records}

    def mark(record: Record) -> str:
        # By recipe and not by weights: a nasty teacher of omega 0 ends with its adversary's.
        needs = [by_recipe.get((it.recipe, it.seed)) for it in record.inputs.values()]
        digest = None if record.data is None else record.data.digest
        return _spelled(record.given, digest, [mark(it) for it in needs if it is not None])

    return {mark(record) for record in records}


def _spelled(given: Mapping[str, Any], data: str | None, needs: Sequence[str]) -> str:
    parts = {key: given[key] for key in ("net", "objective", "training", "asking")}
    return json.dumps({**parts, "data": data, "needs": sorted(needs)}, sort_keys=True)


def _key(order: Order, data: Dataset) -> tuple[object, ...]:
    training = order.training
    return order.net, data.digest, training.device, training.precision


def _speed(net: str, data: Dataset, order: Order) -> tuple[float, float]:
    """Seconds an image of a training step, and of an answer."""
    shape = (data.channels, data.image_size, data.image_size)
    network = create(net, classes=len(data.classes), channels=shape[0], image_size=shape[1])
    training = order.training
    compute = settle(network, device=training.device, precision=training.precision)
    compute.place(network)
    pixels = compute.pixels(torch.zeros((PROBE, *shape), dtype=torch.uint8, device=compute.device))
    labels = torch.zeros(PROBE, dtype=torch.int64, device=compute.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

    def step() -> None:
        with compute.autocast():
            loss = F.cross_entropy(network(pixels), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    trained = _timed(step, compute)
    network.eval()
    return trained, _timed(lambda: compute.answer(network, pixels), compute)


def _timed(work: Callable[[], object], compute: Compute) -> float:
    taken = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        work()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[1:]) / PROBE
