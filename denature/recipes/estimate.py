"""Estimate training time on this machine from similar finished runs, or from a few timed steps."""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import nn

from denature.answers.transfer import Transfer
from denature.core.compute import Compute, resolve
from denature.core.progress import SILENT, Progress
from denature.core.record import RECORD, Record, find_records
from denature.core.schema import encode
from denature.core.threads import computing, usable_cores, worker_threads
from denature.data import Dataset
from denature.data.feed import Feed
from denature.data.views import views
from denature.nets import create
from denature.train import Normal, Order, Run
from denature.train.learner import Learner
from denature.train.objectives.base import BringsData
from denature.train.order import given_by
from denature.train.resolving import training_of
from denature.train.team import SINGLE_PROCESS

REPEATS, ENOUGH_S = (3, 100), 1.0
"""Least and most repeats of a probe; after the least it stops once they took `ENOUGH_S`
seconds. Their mean counts: what other processes take of the machine, they take of training too,
and it comes and goes within tenths of a second."""

MOST_PROBED = 256
"""Images of a timed step at most; the time of larger ones is taken to be proportional."""

MOST_EPOCHS = 1_000_000
"""Epochs of a training whose first steps are timed."""


class StepCost(NamedTuple):
    """Seconds per image."""

    step: float
    """Training step: forward, backward and update."""
    answer: float
    """Inference."""


def training_seconds(
    wanted: Iterable[tuple[Order, Dataset]],
    done: Path,
    *,
    workers: int = 1,
    progress: Progress = SILENT,
) -> float:
    """Remaining seconds of training of some runs and of the runs that they need, each counted once.

    The speed of a run is the median of finished runs of the same networks, kind, data, precision
    and machine. Without such runs a few steps are timed, in their own batch size and with the
    threads of a worker; a busy machine is reported. Stored answers and shared passes shorten
    training further; evaluation, decoding and the start of workers are not counted.

    Args:
        wanted: orders, and the data that each is trained on.
        done: finished runs in and below this folder are not counted, and give the speed of others.
        workers: processes that make the runs, as many at a time as there are runs.
        progress: receives progress reports.
    """
    orders = {
        (required, data.digest): data for order, data in wanted for required in _with_inputs(order)
    }
    finished = _finished(done)
    remaining = [
        (order, data) for (order, _), data in orders.items() if not _weights(order, data, finished)
    ]
    speeds = _seconds_by_kind(find_records([done]) if finished else [])
    clock = _Clock()
    total = 0.0
    with (
        computing(worker_threads(workers) if workers > 1 else None),
        progress.task("timing a few steps", len(remaining), "runs") as task,
    ):
        for order, data in remaining:
            images = order.training.epochs * order.training.fraction * len(data.train)
            compute = clock.compute(order, data)
            measured = speeds.get(_speed_of(order, data, compute))
            total += images * (clock.seconds(order, data) if measured is None else measured)
            task.advance(1)
    if clock.costs and (warning := busy()) is not None:
        progress.say(warning)
    return total / max(1, min(workers, len(remaining)))


def busy() -> str | None:
    """Warning for an estimate that was timed on a busy machine; None on an idle one."""
    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < cores:
        return None
    return (
        f"The machine is busy (load {load:.1f} on {cores} cores): the estimate was timed at "
        "this load; on an idle machine training takes less."
    )


def _with_inputs(order: Order) -> Iterator[Order]:
    """An order and all orders that it needs, inputs first."""
    for required in (order.source, order.init, order.backbone):
        if isinstance(required, Order):
            yield from _with_inputs(required)
    yield order


def _weights(order: Order, data: Dataset, finished: Mapping[str, set[str]]) -> set[str]:
    """Digests of the weights that an order ended with; none where it is unfinished.

    By the weights of its inputs and not by their orders: a nasty teacher of omega 0 ends with its
    adversary's weights, and the students of both are one run.
    """

    def of(given: Order | Run | Transfer | str) -> set[str]:
        if isinstance(given, Order):
            return _weights(given, data, finished)
        return {given if isinstance(given, str) else given.as_input().digest}

    inputs = [
        of(given) for given in (order.source, order.init, order.backbone) if given is not None
    ]
    return {
        digest
        for needs in itertools.product(*inputs)
        for digest in finished.get(_encoded(given_by(order), data.digest, needs), ())
    }


def _finished(folder: Path) -> dict[str, set[str]]:
    """Digests of the weights of the finished runs in and below a folder, by what they are made of.

    Runs of one order on other devices, say, end with other weights.
    """
    found: dict[str, set[str]] = {}
    for record in find_records([folder]) if any(folder.rglob(RECORD)) else []:
        inputs = record.inputs.values()
        needs = [made.net if made.kind == "published" else made.digest for made in inputs]
        data = None if record.data is None else record.data.digest
        found.setdefault(_encoded(record.given, data, needs), set()).add(record.net.digest)
    return found


def _encoded(given: Mapping[str, Any], data: str | None, sources: Sequence[str]) -> str:
    parts = {key: given[key] for key in ("net", "objective", "training", "asking")}
    return json.dumps({**parts, "data": data, "needs": sorted(sources)}, sort_keys=True)


def _seconds_by_kind(records: Iterable[Record]) -> dict[str, float]:
    """Median seconds per image of finished runs, by the properties that decide speed."""
    seconds_of_runs: dict[str, list[float]] = {}
    for record in records:
        if record.images_per_second and record.data is not None:
            training = record.config["training"]
            key = _speed_key(
                record.net.name,
                record.kind,
                record.config["objective"],
                (made.net for made in record.inputs.values()),
                (record.data.digest, training["precision"], record.environment.get("device")),
            )
            seconds_of_runs.setdefault(key, []).append(1 / record.images_per_second)
    return {key: median(seconds) for key, seconds in seconds_of_runs.items()}


def _speed_of(order: Order, data: Dataset, compute: Compute) -> str:
    inputs = (order.source, order.init, order.backbone)
    return _speed_key(
        str(order.net),
        order.objective.kind,
        encode(order.objective),
        (str(source.net) for source in inputs if isinstance(source, Order)),
        (data.digest, compute.precision, compute.describe()),
    )


def _speed_key(
    net: str,
    kind: str,
    objective: Mapping[str, Any],
    inputs: Iterable[str],
    place: tuple[str, str, str | None],
) -> str:
    """The properties that decide speed: networks, attack, data, precision and device."""
    attack = [objective.get("method"), objective.get("steps")]
    return json.dumps([net, kind, attack, sorted(inputs), *place])


class _Clock:
    """Times a few steps of each network and keeps the results."""

    def __init__(self) -> None:
        self.costs: dict[tuple[object, ...], StepCost] = {}
        self.generations: dict[tuple[object, ...], float] = {}
        self._computes: dict[tuple[object, ...], Compute] = {}

    def compute(self, order: Order, data: Dataset) -> Compute:
        """Device and precision that an order would be trained with."""
        training, key = order.training, _key(order, data)
        if key not in self._computes:
            network = _network(order, data)
            self._computes[key] = resolve(
                network, device=training.device, precision=training.precision
            )
        return self._computes[key]

    def seconds(self, order: Order, data: Dataset) -> float:
        """Seconds per image of an epoch: the training step and the teacher's answers."""
        spent = order.objective.passes * self._cost(order, data).step
        if not isinstance(order.source, Order):
            return spent
        if isinstance(order.objective, BringsData):
            return spent + self._generation(order, order.objective, order.source, data)
        return spent + self._cost(order.source, data).answer

    def _cost(self, order: Order, data: Dataset) -> StepCost:
        key = _key(order, data)
        if key not in self.costs:
            self.costs[key] = _cost(order, data, self.compute(order, data))
        return self.costs[key]

    def _generation(
        self, order: Order, objective: BringsData, teacher: Order, data: Dataset
    ) -> float:
        """Seconds per image of a generator step, with the pass through the teacher and back."""
        key = (objective, *_key(teacher, data))
        if key not in self.generations:
            compute, size = self.compute(order, data), _batch(order, data)
            generator = objective.synthetic_data(
                _network(teacher, data), images=size, channels=data.channels,
                image_size=data.image_size, seed=0, compute=compute,
            )  # fmt: skip

            def generate() -> None:
                for _ in generator.epoch(1, view_seed=0, batch_size=size, first=0, part=(0, 1)):
                    pass

            self.generations[key] = _timed(generate, compute, size)
        return self.generations[key]


def _key(order: Order, data: Dataset) -> tuple[object, ...]:
    training = order.training
    return (
        order.net, data.digest, training.device, training.precision, training.optimizer,
        _batch(order, data),
    )  # fmt: skip


def _batch(order: Order, data: Dataset) -> int:
    return min(order.training.batch_size, MOST_PROBED, len(data.train))


def _network(order: Order, data: Dataset) -> nn.Module:
    return create(
        str(order.net), classes=len(data.classes), channels=data.channels,
        image_size=data.image_size,
    )  # fmt: skip


def _cost(order: Order, data: Dataset, compute: Compute) -> StepCost:
    """Seconds of steps as the loop takes them, with views, the loss of labels and the update."""
    size = _batch(order, data)
    split = replace(data.train, rows=data.train.rows[: len(data.train) // size * size])
    training = training_of(order, str(order.net), data, compute)
    family = views(training.augment, channels=data.channels, image_size=data.image_size)
    feed = Feed(split, compute=compute, views=family, names=data.classes if data.landmarks else ())
    network = _network(order, data)
    learner = Learner(
        network,
        Normal(),
        replace(training, schedule="constant", milestones=(), epochs=MOST_EPOCHS),
        compute,
        steps=len(split) // size,
        team=SINGLE_PROCESS,
        landmarks=split.landmarks,
        image=tuple(split.images.shape[1:]),
    )
    learner.train()
    batches = itertools.chain.from_iterable(
        feed.epoch(epoch, view_seed=0, batch_size=size, first=0, part=(0, 1))
        for epoch in itertools.count(1)
    )
    trained = _timed(lambda: learner.step(next(batches), None, of=size), compute, size)
    network.eval()
    pixels = next(batches).pixels
    return StepCost(trained, _timed(lambda: compute.answer(network, pixels), compute, size))


def _timed(work: Callable[[], object], compute: Compute, images: int) -> float:
    """Seconds per image, the mean of several repeats after one warm-up that is discarded."""
    work()
    minimum, maximum = REPEATS
    seconds: list[float] = []
    while len(seconds) < minimum or (len(seconds) < maximum and sum(seconds) < ENOUGH_S):
        started = time.perf_counter()
        work()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return fmean(seconds) / images
