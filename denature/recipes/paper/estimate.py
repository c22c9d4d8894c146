"""How long an experiment would take on this machine, from a few steps of each of its networks."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from denature.core.compute import Compute, settle
from denature.core.progress import SILENT, Progress
from denature.core.record import RECORD, Record, find_records
from denature.data import DataConfig, Dataset, load
from denature.nets import create
from denature.recipes.paper.catalogue import EXPERIMENTS
from denature.recipes.paper.reproduce import lab_of
from denature.recipes.paper.settings import Setting
from denature.train import Order
from denature.train.job import given_by

STEPS = 3
PROBE = 64
"""Images of a step that is timed; time is taken to grow with the number of images."""


def seconds_of(
    names: Iterable[str],
    setting: Setting,
    out: Path,
    *,
    seeds: int | None = None,
    progress: Progress = SILENT,
) -> float:
    """Seconds of training that are left of these experiments, a run that they share counted once.

    Stored answers and shared passes make it less; evaluation and decoding are not counted.
    """
    orders: dict[tuple[Order, str], Dataset] = {}
    for name in names:
        experiment = EXPERIMENTS[name]
        data = load(DataConfig(source=setting.data(experiment.data)), progress=progress)
        for point in experiment.points(lab_of(experiment, setting, out, seeds)):
            orders |= {(order, data.digest): data for order in point.orders}
    done = _finished(out / setting.scale / "runs")
    left = [(order, data) for (order, _), data in orders.items() if _mark(order, data) not in done]
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
                total += images * speeds[key][part if asked else 0]
    return total


def _mark(order: Order, data: Dataset) -> str:
    """What tells this order from others, those whom it asks included."""
    asked = _mark(order.asked, data) if isinstance(order.asked, Order) else ""
    return _spelled(given_by(order), data.digest, asked)


def _finished(folder: Path) -> set[str]:
    """The marks of the runs that lie there."""
    records = find_records([folder]) if any(folder.glob(f"*/{RECORD}")) else []
    by_recipe = {(record.recipe, record.seed): record for record in records}

    def mark(record: Record) -> str:
        # By recipe and not by weights: a nasty teacher of omega 0 ends with its adversary's.
        asked = [by_recipe.get((it.recipe, it.seed)) for it in record.inputs.values()]
        marks = [mark(it) for it in asked if it is not None]
        digest = None if record.data is None else record.data.digest
        return _spelled(record.given, digest, marks[0] if marks else "")

    return {mark(record) for record in records}


def _spelled(given: Mapping[str, Any], data: str | None, asked: str) -> str:
    parts = {key: given[key] for key in ("net", "objective", "training", "asking")}
    return json.dumps({**parts, "data": data, "asked": asked}, sort_keys=True)


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
