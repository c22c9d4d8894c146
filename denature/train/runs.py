"""Making runs: from orders to records, in as few passes as can be."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
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
from denature.core.stopping import Stopper
from denature.data import DataConfig, Dataset, load
from denature.nets.published import PublishedWeights
from denature.train.classes import ClassMatcher
from denature.train.config import CheckpointConfig, Training
from denature.train.identity import what_changed
from denature.train.job import Input, Job, Order
from denature.train.loop import evaluate
from denature.train.objectives.base import BringsData, Objective
from denature.train.passes import Watch, make_pass
from denature.train.run import Run
from denature.train.team import join
from denature.train.workers import RemoteBatch, WorkerPool

SHARED = ("epochs", "batch_size", "view_seed", "fraction", "augment", "validation", "checkpoint")
"""Training fields that runs in one pass have in common."""

TOGETHER = 16
"""Runs in one pass, at most: each holds its network, its gradients and its moments."""


def train(
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
    objective: Objective,
    training: Training | None = None,
    *,
    asked: Run | Order | Transfer | None = None,
    asking: InferenceConfig | None = None,
    init: Run | Order | None = None,
    backbone: Run | Order | str | None = None,
    out: str | Path | None = None,
    under: str | Path | None = None,
    overwrite: bool = False,
    keeping: CheckpointConfig | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Run:
    """Make one run: `make` of one order."""
    order = Order(
        net=net,
        objective=objective,
        training=training or Training(),
        asked=asked,
        asking=asking or InferenceConfig(),
        init=init,
        backbone=backbone,
        out=out,
        under=under,
    )
    [run] = make(
        [order], data, overwrite=overwrite, keeping=keeping, stopper=stopper, progress=progress
    )
    return run


def make(
    orders: Sequence[Order],
    data: str | DataConfig | Dataset,
    *,
    overwrite: bool = False,
    keeping: CheckpointConfig | None = None,
    stopper: Stopper | None = None,
    crew: WorkerPool | None = None,
    watch: Watch | None = None,
    progress: Progress = SILENT,
) -> list[Run]:
    """Make the runs that are ordered and those that they ask, each once.

    Runs that ask the same network and see the same views share a pass over the data, in which that
    network is asked once; each comes out as if it were made alone. A run that is finished in its
    folder is read and not made again; one that was put aside, or killed, goes on from its last
    state.

    Args:
        orders: what is wanted; their `asked`, `init` and `backbone` may be orders too.
        data: what to train and test on.
        overwrite: let folders hold other runs, which are replaced.
        keeping: how often state and snapshots are written, and where answers are stored.
        stopper: asked between steps whether to stop.
        crew: workers to make the runs; see `denature.train.workers`.
        watch: called with an order and its learner after each epoch, in this process only.
        progress: told how far it is.

    Returns:
        A run for each order.

    Raises:
        DenatureError: see `denature.core.errors`; nothing that looks complete is left in a folder.
        Stopped: the stopper wanted it; ask again for the same runs to go on.
    """
    keep_freed_memory()
    keeping, stopper = keeping or CheckpointConfig(), stopper or Stopper()
    team = join(orders[0].training.device if orders else "auto")
    if not team.is_rank0:
        progress = SILENT
    if not isinstance(data, Dataset):
        team.on_rank0(lambda: (load(data, progress=progress), None)[1])  # decodes once for all
    dataset = load(data, progress=progress)
    if crew is not None and team.size > 1:
        raise ConfigError(
            "Processes of one launcher train one network together, and cannot have workers too. "
            "Leave out --workers and --ray, or the launcher."
        )
    if crew is not None and watch is not None:
        raise ConfigError("Runs that are watched are made in this process, without workers.")
    made: dict[Order, Run] = {}
    fitted = ClassMatcher(dataset, progress)
    ranks = _ranks(orders)
    modules = [id(it.net) for rank in ranks for it in rank if isinstance(it.net, nn.Module)]
    if len(modules) > len(set(modules)):
        raise ConfigError(
            "Two orders want to train one module, each in place; give each a copy of it "
            "(copy.deepcopy), or name a factory."
        )
    with ExitStack() as stack:
        count = sum(map(len, ranks))
        task = stack.enter_context(progress.task("all", count, "runs")) if count > 1 else SILENT
        for rank in ranks:
            jobs = [
                Job.of(order, _inputs(order, made, dataset, fitted), dataset, team)
                for order in rank
            ]
            twins = _twins(jobs)
            passes = list(_passes([job for job in jobs if twins[job] is job]))
            if crew is not None:
                _send(passes, crew, dataset, overwrite, keeping, stopper, progress)
            for together in passes:
                runs = make_pass(together, dataset, overwrite, keeping, stopper, watch, progress)
                made |= zip((job.order for job in together), runs, strict=True)
                task.advance(len(together))
            made |= {job.order: made[twin.order] for job, twin in twins.items()}
    return [made[order] for order in orders]


def _ranks(orders: Sequence[Order]) -> list[list[Order]]:
    """All orders behind `orders`, each once, those of a rank needing only ranks before it."""
    ranks: dict[Order, int] = {}

    def rank_of(order: Order) -> int:
        if order not in ranks:
            named = (order.asked, order.init, order.backbone)
            needed = [rank_of(it) for it in named if isinstance(it, Order)]
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
    """What an order names, by its role."""
    roles = {order.objective.asks: order.asked, "init": order.init, "backbone": order.backbone}
    found: dict[str, Input] = {}
    for role, named in roles.items():
        if role is None or named is None:
            continue
        if isinstance(named, str):
            shape = {"channels": dataset.channels, "image_size": dataset.image_size}
            found[role] = PublishedWeights.of(named, **shape)
        else:
            run = made[named] if isinstance(named, Order) else named
            # Of a backbone the last layer is left, and with it what its classes are called.
            if isinstance(run, Run) and role != "backbone":
                run = fitted(role, run)
            found[role] = run
    return found


def _twins(jobs: Sequence[Job]) -> dict[Job, Job]:
    """For each job the first that is the same run in the same folder, which is mostly itself.

    Raises:
        ConfigError: two different runs want one folder.
    """
    firsts: dict[Path, Job] = {}
    twins: dict[Job, Job] = {}
    for job in jobs:
        first = job if job.folder is None else firsts.setdefault(job.folder, job)
        if first.plan != job.plan:
            raise ConfigError(
                f"Two runs want the folder {job.folder}: {what_changed(first.plan, job.plan)}. "
                "Give each its own, or `under` a common one."
            )
        twins[job] = first
    return twins


def _passes(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in groups that can share a pass."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        asked = job.asked
        key = (
            *(getattr(job.training, name) for name in SHARED),
            job.compute.device,
            # Its precision follows the student's, so only those of one precision can ask together.
            (id(getattr(asked, "network", asked)), job.compute.precision, job.order.asking)
            if asked is not None
            else None,
            # Who makes images up makes them for one run.
            id(job) if isinstance(job.objective, BringsData) else None,
        )
        groups.setdefault(key, []).append(job)
    for group in groups.values():
        for start in range(0, len(group), TOGETHER):
            yield group[start : start + TOGETHER]


def _send(
    passes: Sequence[Sequence[Job]],
    crew: WorkerPool,
    dataset: Dataset,
    overwrite: bool,
    keeping: CheckpointConfig,
    stopper: Stopper,
    progress: Progress,
) -> None:
    """Have a crew make what is not finished yet; the caller then finds it in its folders."""
    waiting = [[job for job in jobs if not job.is_finished] for jobs in passes]
    waiting = [jobs for jobs in waiting if jobs]
    # Passes are divided rather than that workers stand idle.
    while waiting and len(waiting) < crew.size and len(longest := max(waiting, key=len)) > 1:
        waiting.remove(longest)
        waiting += [longest[::2], longest[1::2]]
    parcels = [
        RemoteBatch.of(
            [job.order for job in jobs],
            [job.inputs for job in jobs],
            dataset.config,
            overwrite=overwrite,
            keeping=keeping,
            seconds=stopper.seconds_left,
        )
        for jobs in waiting
    ]
    if parcels:
        with progress.task(f"{crew.size} workers", sum(map(len, waiting)), "runs") as task:
            crew.carry_out(parcels, stopper, task)
        if missing := [job.title for jobs in waiting for job in jobs if not job.is_finished]:
            raise RunError(
                f"The workers made other runs than these: {', '.join(missing[:3])}. What `auto` "
                "means there is not what it means here; give --device and --precision, and start "
                "where such a device is."
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
