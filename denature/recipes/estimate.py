"""How long runs would take on this machine: by finished runs that are alike, or a few steps."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from denature.core.compute import Compute, resolve
from denature.core.progress import SILENT, Progress
from denature.core.record import RECORD, Record, find_records
from denature.data import Dataset
from denature.nets import create
from denature.train import Adversarial, Order
from denature.train.job import given_by
from denature.train.objectives.base import BringsData

REPEATS, ENOUGH_S = (3, 20), 0.5
"""A probe is repeated at least and at most so often, and no longer than so many seconds after that.
The fastest counts: on a busy machine the others tell of its load."""

PROBE = 64
"""Images of a step that is timed; time is taken to grow with the number of images."""


class Cost(NamedTuple):
    """Seconds an image."""

    step: float
    """Of training."""
    answer: float


def seconds_of(
    wanted: Iterable[tuple[Order, Dataset]], done: Path, *, progress: Progress = SILENT
) -> float:
    """Seconds of training that are left of some runs and of those that they need, each once.

    Finished runs of the same networks, kind, data, precision and machine say how fast such a run
    is; of others a few steps are timed, and where the machine is busy that is said. Stored answers
    and shared passes make it less; evaluation and decoding are not counted.

    Args:
        wanted: orders, and what they are trained on.
        done: what is finished in and below this folder is not counted, and says how fast runs are.
        progress: told how far it is.
    """
    orders = {
        (needed, data.digest): data for order, data in wanted for needed in _all_behind(order)
    }
    finished = _finished(done)
    left = [
        (order, data) for (order, _), data in orders.items() if _mark(order, data) not in finished
    ]
    known = _known(find_records([done]) if finished else [])
    clock = _Clock()
    total = 0.0
    with progress.task("timing a few steps", len(left), "runs") as task:
        for order, data in left:
            images = order.training.epochs * order.training.fraction * len(data.train)
            compute = clock.compute(order, data)
            measured = known.get(json.dumps(_alike(order, data, compute)))
            total += images * (clock.seconds(order, data) if measured is None else measured)
            task.advance(1)
    if clock.costs and (said := busy()) is not None:
        progress.say(said)
    return total


def busy() -> str | None:
    """What to say of an estimate that was timed while others computed; None where none did."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < cores:
        return None
    return (
        f"The machine is busy (load {load:.1f} on {cores} cores): what was timed is an estimate at "
        "this load; on an idle machine it takes less."
    )


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


def _known(records: Iterable[Record]) -> dict[str, float]:
    """Seconds an image in finished runs, by what decides them: the median of alike runs."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record.images_per_second and record.data is not None:
            training = record.config["training"]
            key = json.dumps(
                [
                    record.net.name,
                    [record.kind, record.config["objective"].get("steps")],
                    sorted(made.net for made in record.inputs.values()),
                    record.data.digest,
                    training["precision"],
                    record.environment.get("device"),
                ]
            )
            found.setdefault(key, []).append(1 / record.images_per_second)
    return {key: median(seconds) for key, seconds in found.items()}


def _alike(order: Order, data: Dataset, compute: Compute) -> list[Any]:
    """The same of a run that is wanted; see `_known`."""
    inputs = (order.asked, order.init, order.backbone)
    return [
        str(order.net),
        [order.objective.kind, getattr(order.objective, "steps", None)],
        sorted(str(it.net) for it in inputs if isinstance(it, Order)),
        data.digest,
        compute.precision,
        compute.describe(),
    ]


class _Clock:
    """Times a few steps of each network, once."""

    def __init__(self) -> None:
        self.costs: dict[tuple[object, ...], Cost] = {}
        self.dreams: dict[tuple[object, ...], float] = {}
        self._computes: dict[tuple[object, ...], Compute] = {}

    def compute(self, order: Order, data: Dataset) -> Compute:
        """Where and how an order would be trained."""
        training, key = order.training, _key(order, data)
        if key not in self._computes:
            network = _network(order, data)
            self._computes[key] = resolve(
                network, device=training.device, precision=training.precision
            )
        return self._computes[key]

    def seconds(self, order: Order, data: Dataset) -> float:
        """For an image of one epoch: the step, and the answers of a teacher."""
        passes = 1 + (order.objective.steps if isinstance(order.objective, Adversarial) else 0)
        spent = passes * self._cost(order, data).step
        if not isinstance(order.asked, Order):
            return spent
        if isinstance(order.objective, BringsData):
            return spent + self._dream(order, order.objective, order.asked, data)
        return spent + self._cost(order.asked, data).answer

    def _cost(self, order: Order, data: Dataset) -> Cost:
        key = _key(order, data)
        if key not in self.costs:
            self.costs[key] = _cost(_network(order, data), data, self.compute(order, data))
        return self.costs[key]

    def _dream(self, order: Order, objective: BringsData, teacher: Order, data: Dataset) -> float:
        """A step of who makes images up, which goes back through the teacher, and its answers."""
        key = (objective, *_key(teacher, data))
        if key not in self.dreams:
            compute = self.compute(order, data)
            dreamer = objective.synthetic_data(
                _network(teacher, data), images=PROBE, channels=data.channels,
                image_size=data.image_size, seed=0, compute=compute,
            )  # fmt: skip

            def dream() -> None:
                for _ in dreamer.epoch(1, view_seed=0, batch_size=PROBE, first=0, part=(0, 1)):
                    pass

            self.dreams[key] = _timed(dream, compute)
        return self.dreams[key]


def _key(order: Order, data: Dataset) -> tuple[object, ...]:
    training = order.training
    return order.net, data.digest, training.device, training.precision


def _network(order: Order, data: Dataset) -> nn.Module:
    return create(
        str(order.net), classes=len(data.classes), channels=data.channels,
        image_size=data.image_size,
    )  # fmt: skip


def _cost(network: nn.Module, data: Dataset, compute: Compute) -> Cost:
    compute.place(network)
    shape = (PROBE, data.channels, data.image_size, data.image_size)
    pixels = compute.pixels(torch.zeros(shape, dtype=torch.uint8, device=compute.device))
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
    return Cost(trained, _timed(lambda: compute.answer(network, pixels), compute))


def _timed(work: Callable[[], object], compute: Compute) -> float:
    """Seconds an image, of the fastest of several repeats after one that does not count."""
    work()
    least, most = REPEATS
    taken: list[float] = []
    while len(taken) < least or (len(taken) < most and sum(taken) < ENOUGH_S):
        started = time.perf_counter()
        work()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken) / PROBE
