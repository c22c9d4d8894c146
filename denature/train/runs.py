"""Making runs: from orders to records, in as few passes over the data as possible."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from denature.answers.config import InferenceConfig
from denature.answers.transfer import Transfer
from denature.core.compute import resolve
from denature.core.errors import ConfigError, RunError
from denature.core.memory import keep_freed_memory
from denature.core.progress import SILENT, Progress, Task
from denature.core.stats import Estimate
from denature.core.usual import usual
from denature.data import Dataset, load
from denature.data.given import DataLike
from denature.data.loading import config_of, loads_again
from denature.nets.published import PublishedWeights
from denature.train.checks import check_names
from denature.train.classes import ClassMatcher
from denature.train.config import Training
from denature.train.dividing import divide
from denature.train.identity import what_changed
from denature.train.job import Job
from denature.train.loop import evaluate
from denature.train.objectives.base import BringsData, Objective
from denature.train.order import Input, Order
from denature.train.passes import Watch, make_pass
from denature.train.remote import RemoteBatch
from denature.train.run import Run
from denature.train.session import Session, default_session
from denature.train.team import ProcessGroup, join

SHARED = ("epochs", "batch_size", "view_seed", "fraction", "augment", "validation", "checkpoint")
"""Training fields that runs in one pass have in common."""

TOGETHER = 16
"""Largest number of runs in one pass: each holds its network, gradients and moments."""


def train(
    net: str | nn.Module,
    data: DataLike,
    objective: Objective,
    training: Training | None = None,
    *,
    source: Run | Order | Transfer | None = None,
    inference: InferenceConfig | None = None,
    init: Run | Order | None = None,
    backbone: Run | Order | str | None = None,
    out: str | Path | None = None,
    under: str | Path | None = None,
    overwrite: bool = False,
    session: Session | None = None,
) -> Run:
    """Make one run; see `make`, which this calls with one order."""
    order = Order(
        net=net,
        objective=objective,
        training=training or Training(),
        source=source,
        inference=inference or InferenceConfig(),
        init=init,
        backbone=backbone,
        out=out,
        under=under,
    )
    [run] = make([order], data, overwrite=overwrite, session=session)
    return run


def make(
    orders: Sequence[Order],
    data: DataLike,
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    session: Session | None = None,
) -> list[Run]:
    """Make the ordered runs and the runs that these depend on, each once.

    Runs with the same answer source and the same views share a pass over the data, in which each
    batch is answered once; the results equal those of separate training. A finished run in its
    folder is read instead of trained again; a stopped or killed run resumes from its last state.

    Args:
        orders: the runs to make; their `source`, `init` and `backbone` may be orders too.
        data: data for training and test; see `denature.data.load`.
        overwrite: replace other runs in the folders of the orders.
        session: saved states, stops, workers and progress.
        watch: is called with an order and its learner after each epoch, in this process only.

    Returns:
        A run for each order.

    Raises:
        DenatureError: see `denature.core.errors`; no folder then holds a run that looks complete.
        Stopped: the stopper fired; call again with the same orders to resume.
    """
    session = session or default_session()
    check_names(order for rank in _ranks(orders) for order in rank)
    team = join(orders[0].training.device if orders else "auto")
    if not isinstance(data, Dataset):
        progress = session.progress if team.is_rank0 else SILENT
        source = team.on_rank0(lambda: config_of(data, progress=progress))
        team.on_rank0(lambda: (load(source, progress=progress), None)[1])  # decodes once for all
        data = load(source, progress=SILENT)
    [runs] = make_all([(orders, data)], overwrite=overwrite, watch=watch, session=session)
    return runs


def check_order(order: Order, dataset: Dataset) -> None:
    """Check an order before its answers are paid for, by resolving it without a folder.

    Args:
        order: the run, with any answers of the right kind and number.
        dataset: its data.

    Raises:
        DenatureError: see `make`.
    """
    order = replace(order, out=None, under=None)
    Job.of(order, _inputs(order, {}, dataset, ClassMatcher(dataset, SILENT)), dataset)


def make_all(
    groups: Sequence[tuple[Sequence[Order], Dataset]],
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    session: Session | None = None,
) -> list[list[Run]]:
    """Make runs on several data sets, so that workers are busy across them; see `make`."""
    session = session or default_session()
    keep_freed_memory()
    orders = [order for ordered, _ in groups for order in ordered]
    team = join(orders[0].training.device if orders else "auto")
    if not team.is_rank0:
        session = replace(session, progress=SILENT)
    if session.workers is not None and team.size > 1:
        raise ConfigError(
            "Processes of one launcher train one network together, and cannot use workers too. "
            "Leave out --workers and --ray, or the launcher."
        )
    if session.workers is not None and watch is not None:
        raise ConfigError("`watch` needs the runs in this process; leave out the workers.")
    makings = [_Making(ordered, dataset, session.progress) for ordered, dataset in groups]
    everything = [order for making in makings for rank in making.ranks for order in rank]
    modules = [id(order.net) for order in everything if isinstance(order.net, nn.Module)]
    if len(modules) > len(set(modules)):
        raise ConfigError(
            "Two orders train one module in place; give each a copy of it "
            "(copy.deepcopy), or name a factory."
        )
    # Run by run, in the images of all of them: runs differ in size, and workers report as they go.
    single = len(everything) == 1
    images = sum(making.planned(rank) for making in makings for rank in range(len(making.ranks)))
    title = everything[0].title if single else f"{len(everything):,} runs"
    with session.progress.task(title, images, "images") as task:
        made = _Count(task, len(everything))
        for number in range(max((len(making.ranks) for making in makings), default=0)):
            passes = [each for making in makings for each in making.passes(number, team, task)]
            sent = _send(passes, overwrite, session, task, made)
            for making, dataset, jobs in passes:
                runs = make_pass(jobs, dataset, overwrite, watch, session, task, single=single)
                making.made |= zip((job.order for job in jobs), runs, strict=True)
                made.add(sum(job not in sent for job in jobs))
            for making in makings:
                making.copy_twins()
    return [[making.made[order] for order in making.orders] for making in makings]


class _Count:
    """The number of finished runs, as the note of a task."""

    def __init__(self, task: Task, total: int) -> None:
        self._task, self._total, self._made = task, total, 0

    def add(self, count: int) -> None:
        self._made += count
        if self._total > 1:
            self._task.advance(0, f"{self._made:,} finished")


def planned_images(order: Order, dataset: Dataset) -> float:
    """Images that a run is trained on, each counted once an epoch, before its job is resolved."""
    return order.training.epochs * order.training.fraction * len(dataset.train)


class _Pass(NamedTuple):
    """Jobs that share a pass over a data set."""

    making: "_Making"
    dataset: Dataset
    jobs: list[Job]


class _Making:
    """The orders of one data set, rank by rank, and the runs that were made so far."""

    def __init__(self, orders: Sequence[Order], dataset: Dataset, progress: Progress) -> None:
        self.orders, self.dataset = orders, dataset
        self.ranks = _ranks(orders)
        self.made: dict[Order, Run] = {}
        self._fitted = ClassMatcher(dataset, progress)
        self._twins: dict[Job, Job] = {}

    def planned(self, number: int) -> float:
        """Images of a rank's runs, before their jobs are resolved."""
        return sum(planned_images(order, self.dataset) for order in self.ranks[number])

    def passes(self, number: int, team: ProcessGroup, task: Task) -> list[_Pass]:
        """The passes of a rank; those of a group that has no such rank are none.

        `task` has the rank's planned images in it, and gets those of its unfinished jobs instead.
        """
        if number >= len(self.ranks):
            return []
        jobs = [
            Job.of(order, _inputs(order, self.made, self.dataset, self._fitted), self.dataset, team)
            for order in self.ranks[number]
        ]
        self._twins = _twins(jobs)
        own = [job for job in jobs if self._twins[job] is job]
        task.grow(sum(j.images for j in own if not j.is_finished) - self.planned(number))
        return [_Pass(self, self.dataset, together) for together in _passes(own)]

    def copy_twins(self) -> None:
        """Give each order of a rank the run of the job that was made for it."""
        self.made |= {job.order: self.made[twin.order] for job, twin in self._twins.items()}


def _ranks(orders: Sequence[Order]) -> list[list[Order]]:
    """All orders behind `orders`, each once; a rank depends only on the ranks before it."""
    ranks: dict[Order, int] = {}

    def rank_of(order: Order) -> int:
        if order not in ranks:
            inputs = (order.source, order.init, order.backbone)
            needed = [rank_of(given) for given in inputs if isinstance(given, Order)]
            ranks[order] = 1 + max(needed, default=-1)
        return ranks[order]

    for order in orders:
        rank_of(order)
    return [
        [order for order, rank in ranks.items() if rank == wanted]
        for wanted in range(1 + max(ranks.values(), default=-1))
    ]


def _inputs(
    order: Order, made: Mapping[Order, Run], dataset: Dataset, fitted: ClassMatcher
) -> dict[str, Input]:
    """Inputs of an order by their roles."""
    roles = {order.objective.asks: order.source, "init": order.init, "backbone": order.backbone}
    found: dict[str, Input] = {}
    for role, named in roles.items():
        if role is None or named is None:
            continue
        if isinstance(named, str):
            shape = {"channels": dataset.channels, "image_size": dataset.image_size}
            found[role] = PublishedWeights.of(named, **shape)
        else:
            run = made[named] if isinstance(named, Order) else named
            # A backbone gives all layers but the last, so its classes do not matter.
            if isinstance(run, Run) and role != "backbone":
                run = fitted(role, run)
            found[role] = run
    return found


def _twins(jobs: Sequence[Job]) -> dict[Job, Job]:
    """For each job the first job of the same run in the same folder, usually the job itself.

    Raises:
        ConfigError: two different runs have the same folder.
    """
    firsts: dict[Path, Job] = {}
    twins: dict[Job, Job] = {}
    for job in jobs:
        first = job if job.folder is None else firsts.setdefault(job.folder, job)
        if first.plan != job.plan:
            raise ConfigError(
                f"Two runs want the folder {job.folder}: {what_changed(first.plan, job.plan)}. "
                "Give each a folder of its own, or set `under` for all."
            )
        twins[job] = first
    return twins


def _passes(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Groups of jobs that can share a pass."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        source = job.source
        key = (
            *(getattr(job.training, name) for name in SHARED),
            job.compute.device,
            # The source has the student's precision, so only students of one precision share it.
            (id(getattr(source, "network", source)), job.compute.precision, job.order.inference)
            if source is not None
            else None,
            # A generator of synthetic data serves one run.
            id(job) if isinstance(job.objective, BringsData) else None,
        )
        groups.setdefault(key, []).append(job)
    for group in groups.values():
        for start in range(0, len(group), TOGETHER):
            yield group[start : start + TOGETHER]


def _send(
    passes: Sequence[_Pass], overwrite: bool, session: Session, task: Task, made: _Count
) -> set[Job]:
    """Have workers make the unfinished runs; the caller then finds them in their folders.

    Runs on data that only this process has are left to the caller, except for those with a
    transfer set: their data travel with it.

    Returns:
        The jobs whose runs workers made.
    """
    if (workers := session.workers) is None:
        return set()
    loadable = cache(loads_again)  # it reads all pixels, and many passes are over one data set
    waiting = [
        (unfinished, dataset)
        for _, dataset, jobs in passes
        if isinstance(jobs[0].order.source, Transfer) or loadable(dataset)
        if (unfinished := [job for job in jobs if not job.is_finished])
    ]
    parts = divide([[job.images for job in jobs] for jobs, _ in waiting], workers.size)
    waiting = [
        ([waiting[number][0][place] for place in places], waiting[number][1])
        for number, places in parts
    ]
    batches = [
        RemoteBatch.of(
            [job.order for job in jobs],
            [job.inputs for job in jobs],
            dataset,
            overwrite=overwrite,
            checkpointing=session.checkpointing,
            seconds=session.stopper.seconds_left,
        )
        for jobs, dataset in waiting
    ]
    sent = [job for jobs, _ in waiting for job in jobs]
    if batches:
        # A worker counts from its planned images too, and sends by how much they differ.
        task.grow(
            sum(planned_images(j.order, data) - j.images for jobs, data in waiting for j in jobs)
        )
        workers.carry_out(batches, session.stopper, task, made.add)
        if missing := [job.title for job in sent if not job.is_finished]:
            raise RunError(
                f"The workers made other runs than these: {', '.join(missing[:3])}. `auto` has "
                "another meaning there than in this process. Set --device and --precision, and "
                "start on a machine with such a device."
            )
    return set(sent)


def evaluate_run(
    run: Run,
    data: DataLike,
    *,
    device: str = "auto",
    precision: str = "fp32",
    progress: Progress | None = None,
) -> Estimate:
    """Accuracy of a run on the test split of any data of its shape and classes."""
    progress = usual() if progress is None else progress
    dataset = load(data, progress=progress)
    run = ClassMatcher(dataset, progress)("run", run)
    compute = resolve(run.network, device=device, precision=precision)
    return evaluate(compute.place(run.network), dataset.test, compute)
