"""Making runs: from orders to records, in as few passes over the data as possible."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from denature.answers.config import InferenceConfig
from denature.answers.transfer import Transfer
from denature.core.compute import resolve
from denature.core.errors import ConfigError, RunError
from denature.core.memory import keep_freed_memory
from denature.core.progress import SILENT, Progress
from denature.core.stats import Estimate
from denature.data import DataConfig, Dataset, load
from denature.nets.published import PublishedWeights
from denature.train.classes import ClassMatcher
from denature.train.config import Training
from denature.train.identity import what_changed
from denature.train.job import Job
from denature.train.loop import evaluate
from denature.train.objectives.base import BringsData, Objective
from denature.train.order import Input, Order
from denature.train.passes import Watch, make_pass
from denature.train.remote import RemoteBatch, WorkerPool, loads_again
from denature.train.run import Run
from denature.train.session import Session
from denature.train.team import join

SHARED = ("epochs", "batch_size", "view_seed", "fraction", "augment", "validation", "checkpoint")
"""Training fields that runs in one pass have in common."""

TOGETHER = 16
"""Largest number of runs in one pass: each holds its network, gradients and moments."""


def train(
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
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
    session = session or Session()
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
    data: str | DataConfig | Dataset,
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
        data: data for training and test.
        overwrite: replace other runs in the folders of the orders.
        session: saved states, stops, workers and progress.
        watch: is called with an order and its learner after each epoch, in this process only.

    Returns:
        A run for each order.

    Raises:
        DenatureError: see `denature.core.errors`; no folder then holds a run that looks complete.
        Stopped: the stopper fired; call again with the same orders to resume.
    """
    session = session or Session()
    keep_freed_memory()
    team = join(orders[0].training.device if orders else "auto")
    if not team.is_rank0:
        session = replace(session, progress=SILENT)
    if not isinstance(data, Dataset):
        progress = session.progress
        team.on_rank0(lambda: (load(data, progress=progress), None)[1])  # decodes once for all
    dataset = load(data, progress=session.progress)
    if session.workers is not None and team.size > 1:
        raise ConfigError(
            "Processes of one launcher train one network together, and cannot use workers too. "
            "Leave out --workers and --ray, or the launcher."
        )
    if session.workers is not None and watch is not None:
        raise ConfigError("`watch` needs the runs in this process; leave out the workers.")
    made: dict[Order, Run] = {}
    fitted = ClassMatcher(dataset, session.progress)
    ranks = _ranks(orders)
    nets = [order.net for rank in ranks for order in rank]
    modules = [id(net) for net in nets if isinstance(net, nn.Module)]
    if len(modules) > len(set(modules)):
        raise ConfigError(
            "Two orders train one module in place; give each a copy of it "
            "(copy.deepcopy), or name a factory."
        )
    with ExitStack() as stack:
        count = sum(map(len, ranks))
        display = session.progress if count > 1 else SILENT
        task = stack.enter_context(display.task("all", count, "runs"))
        for rank in ranks:
            jobs = [
                Job.of(order, _inputs(order, made, dataset, fitted), dataset, team)
                for order in rank
            ]
            twins = _twins(jobs)
            passes = list(_passes([job for job in jobs if twins[job] is job]))
            if session.workers is not None:
                _send(passes, session.workers, dataset, overwrite, session)
            for together in passes:
                runs = make_pass(together, dataset, overwrite, watch, session)
                made |= zip((job.order for job in together), runs, strict=True)
                task.advance(len(together))
            made |= {job.order: made[twin.order] for job, twin in twins.items()}
    return [made[order] for order in orders]


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
    passes: Sequence[Sequence[Job]],
    workers: WorkerPool,
    dataset: Dataset,
    overwrite: bool,
    session: Session,
) -> None:
    """Have workers make the unfinished runs; the caller then finds them in their folders.

    Runs on data that only this process has are left to the caller, except for clones: their data
    travels with the transfer set.
    """
    passes = [
        jobs for jobs in passes if isinstance(jobs[0].source, Transfer) or loads_again(dataset)
    ]
    waiting = [[job for job in jobs if not job.is_finished] for jobs in passes]
    waiting = [jobs for jobs in waiting if jobs]
    # Passes are divided where workers would be idle.
    while waiting and len(waiting) < workers.size and len(longest := max(waiting, key=len)) > 1:
        waiting.remove(longest)
        waiting += [longest[::2], longest[1::2]]
    batches = [
        RemoteBatch.of(
            [job.order for job in jobs],
            [job.inputs for job in jobs],
            dataset,
            overwrite=overwrite,
            checkpointing=session.checkpointing,
            seconds=session.stopper.seconds_left,
        )
        for jobs in waiting
    ]
    if batches:
        count = sum(map(len, waiting))
        with session.progress.task(f"{workers.size} workers", count, "runs") as task:
            workers.carry_out(batches, session.stopper, task)
        if missing := [job.title for jobs in waiting for job in jobs if not job.is_finished]:
            raise RunError(
                f"The workers made other runs than these: {', '.join(missing[:3])}. `auto` has "
                "another meaning there than in this process. Set --device and --precision, and "
                "start on a machine with such a device."
            )


def evaluate_run(
    run: Run,
    data: str | DataConfig | Dataset,
    *,
    device: str = "auto",
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Estimate:
    """Accuracy of a run on the test split of any data of its shape and classes."""
    dataset = load(data, progress=progress)
    run = ClassMatcher(dataset, progress)("run", run)
    compute = resolve(run.network, device=device, precision=precision)
    return evaluate(compute.place(run.network), dataset.test, compute)
