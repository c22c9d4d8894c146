"""Making runs: from orders to records, one pass for all that can share it."""

import datetime
import hashlib
import inspect
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from denature.answers import Live, Remembered, Source
from denature.core import record as records
from denature.core.compute import Compute, settle
from denature.core.errors import ConfigError, RunError, Stopped, unknown
from denature.core.progress import SILENT, Progress
from denature.core.record import DataRecord, EpochRecord, NetRecord, Record
from denature.core.revisions import REVISIONS
from denature.core.schema import encode
from denature.core.seeds import seeded
from denature.core.stats import Estimate
from denature.core.stopping import Stopper
from denature.core.weights import digest, fit_weights, save_weights
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.data.feed import Feed, steps_per_epoch
from denature.data.views import auto_views, views
from denature.nets import NETS, create, parameter_count
from denature.train.config import Keeping, Training
from denature.train.identity import Plan, make_plan, plan_id, recipe_id
from denature.train.learner import Learner
from denature.train.loop import evaluate, fit
from denature.train.objectives import AnyObjective, Distilled, Nasty, Normal
from denature.train.run import (
    SNAPSHOTS,
    STATE_FOLDER,
    Run,
    load_run,
    locked,
    open_folder,
    save_run,
)
from denature.train.state import STATE, read_state, write_state
from denature.train.traces import events_of, examples_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SHARED = ("epochs", "batch_size", "view_seed", "fraction", "augment", "validation", "checkpoint")
"""Training fields that runs in one pass must have in common."""


def normal(net: str | nn.Module, data: str | DataConfig | Dataset, **options: Any) -> Run:
    """Train a network on the true labels; options are those of `train` and `Training`."""
    return _with_options(Normal, net, data, options)


def nasty(
    net: str | nn.Module, data: str | DataConfig | Dataset, *, adversary: Run, **options: Any
) -> Run:
    """Train a nasty teacher; options are those of `train`, `Training` and `Nasty`."""
    return _with_options(Nasty, net, data, {"adversary": adversary, **options})


def distilled(
    net: str | nn.Module, data: str | DataConfig | Dataset, *, teacher: Run, **options: Any
) -> Run:
    """Train a student of `teacher`; options are those of `train`, `Training` and `Distilled`."""
    return _with_options(Distilled, net, data, {"teacher": teacher, **options})


def _with_options(
    objective: type[AnyObjective],
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
    options: dict[str, Any],
) -> Run:
    def take(kind: type[Any]) -> dict[str, Any]:
        return {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}

    made, training = objective(**take(objective)), Training(**take(Training))
    known = inspect.signature(train).parameters
    for name in options:
        if name not in known:
            every = {*known, *(f.name for kind in (objective, Training) for f in fields(kind))}
            raise unknown("option", name, every)
    return train(net, data, made, training, **options)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One run that is wanted."""

    net: str | nn.Module
    """A name of the catalogue, `package.module:factory`, or a module, which is trained in place and
    owns its normalisation."""
    objective: AnyObjective
    """What is learned."""
    training: Training = field(default_factory=Training)
    """How it is trained."""
    init: Run | None = None
    """A run of the same network whose weights are the start."""
    out: str | Path | None = None
    """Folder for record, weights and events; None keeps the run in memory."""
    under: str | Path | None = None
    """Instead of `out`: a folder in which the run gets one, named by its kind, network and id."""


def train(
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
    objective: AnyObjective,
    training: Training | None = None,
    *,
    teacher: Run | None = None,
    adversary: Run | None = None,
    init: Run | None = None,
    out: str | Path | None = None,
    under: str | Path | None = None,
    overwrite: bool = False,
    keeping: Keeping | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Run:
    """Make one run: `train_together` of one order."""
    order = Order(
        net=net,
        objective=objective,
        training=training or Training(),
        init=init,
        out=out,
        under=under,
    )
    [run] = train_together(
        [order],
        data,
        teacher=teacher,
        adversary=adversary,
        overwrite=overwrite,
        keeping=keeping,
        stopper=stopper,
        progress=progress,
    )
    return run


def train_together(
    orders: Sequence[Order],
    data: str | DataConfig | Dataset,
    *,
    teacher: Run | None = None,
    adversary: Run | None = None,
    overwrite: bool = False,
    keeping: Keeping | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> list[Run]:
    """Make several runs in one pass over the data, asking their one teacher once.

    A run that is finished in its folder already is read and not made again; one that was put aside,
    or killed, goes on from its last state. Each run comes out as if it were made alone.

    Args:
        orders: what is wanted; they share the fields `SHARED` of their trainings.
        data: what to train and test on.
        teacher: who answers `Distilled` objectives.
        adversary: whom `Nasty` objectives push away from.
        overwrite: let folders hold other runs, which are removed.
        keeping: how often state and snapshots are written.
        stopper: asked between steps whether to stop.
        progress: told how far it is.

    Raises:
        DenatureError: see `denature.core.errors`; nothing that looks complete is left in a folder.
        Stopped: the stopper wanted it; ask again for the same runs to go on.
    """
    keeping, stopper = keeping or Keeping(), stopper or Stopper()
    dataset = load(data, progress=progress)
    askable = {"teacher": teacher, "adversary": adversary}
    jobs = [_Job.of(order, dataset, askable) for order in orders]
    _check_shared(jobs)
    with ExitStack() as locks:
        for job in jobs:
            if job.folder is not None:
                locks.enter_context(locked(job.folder))
        return _train_in_folders(jobs, dataset, overwrite, keeping, stopper, progress)


def _train_in_folders(
    jobs: Sequence["_Job"],
    dataset: Dataset,
    overwrite: bool,
    keeping: Keeping,
    stopper: Stopper,
    progress: Progress,
) -> list[Run]:
    """Read the runs that are finished, take up those that were put aside, make the others."""
    runs: dict[int, Run] = {}
    waiting: list[_Job] = []
    for number, job in enumerate(jobs):
        if job.folder is not None:
            standing = open_folder(job.folder, job.plan, overwrite=overwrite)
            if standing == "finished":
                runs[number] = _finished(job)
                continue
            if standing == "unfinished" and (state := job.folder / STATE_FOLDER / STATE).exists():
                job.learner.restore(*read_state(state))
        waiting.append(job)
    if waiting:
        _train(waiting, dataset, keeping, stopper, progress)
        made = iter([job.conclude(dataset) for job in waiting])
        runs |= {number: next(made) for number in range(len(jobs)) if number not in runs}
    return [runs[number] for number in range(len(jobs))]


@dataclass(slots=True)
class _Job:
    """An order with everything settled."""

    order: Order
    name: str
    objective: AnyObjective
    training: Training
    compute: Compute
    split: Split
    validation: Split | None
    inputs: dict[str, Run]
    plan: Plan
    folder: Path | None
    learner: Learner
    initial: str
    started: str

    @staticmethod
    def of(order: Order, dataset: Dataset, askable: Mapping[str, Run | None]) -> "_Job":
        """Settle an order; refuse one that cannot be carried out.

        Raises:
            ConfigError: no such network, a run that does not fit the data, a missing teacher.
        """
        asks, objective = order.objective.asks, order.objective
        inputs = {} if asks is None else {asks: askable[asks]}
        inputs |= {} if order.init is None else {"init": order.init}
        given = {role: run for role, run in inputs.items() if run is not None}
        if asks is not None and asks not in given:
            raise ConfigError(f"A {objective.kind} run needs a run as {asks}; none was given.")
        split, validation = _samples(dataset, order.training)
        network, name = _network(order.net, dataset, split, order.training.seed)
        for role, run in given.items():
            _check_shape(role, run, dataset)
            if run.network is network:
                raise ConfigError(
                    f"The {role} and the network to train are one module; train a copy of it "
                    "(copy.deepcopy), or a network by name."
                )
        if order.init is not None:
            where = f"of {order.init.folder or 'the init run'}"
            fit_weights(network, order.init.network.state_dict(), where=where)
        compute = settle(network, device=order.training.device, precision=order.training.precision)
        _check_answers(network, name, dataset, compute)
        training = order.training.settled(
            optimizer=NETS[name].optimizer if name in NETS else "adam",
            augment=auto_views(channels=dataset.channels, image_size=dataset.image_size),
            device=compute.device.type,
            precision=compute.precision,
        )
        if isinstance(objective, Distilled):
            objective = objective.settled()
        initial = digest(network)
        plan = make_plan(
            net={"name": name, "shape": list(_shape(dataset)), "initial": initial},
            data=_split_digest(dataset, split, validation),
            config={
                "objective": {"kind": objective.kind, **encode(objective)},
                "training": encode(training),
            },
            inputs={role: run.record.net.digest for role, run in given.items()},
            revisions=dict(REVISIONS),
        )
        folder = None if order.out is None else Path(order.out)
        if order.under is not None:
            folder = Path(order.under) / f"{objective.kind}-{name}-{plan_id(plan)[:8]}"
        steps = steps_per_epoch(len(split), training.batch_size)
        return _Job(
            order=order,
            name=name,
            objective=objective,
            training=training,
            compute=compute,
            split=split,
            validation=validation,
            inputs=given,
            plan=plan,
            folder=folder,
            learner=Learner(network, objective, training, compute, steps=steps),
            initial=initial,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    @property
    def title(self) -> str:
        return f"{self.objective.kind} {self.name}, seed {self.training.seed}"

    def save(self) -> None:
        """Put the learner's state on disk, if the run has a folder."""
        if self.folder is None:
            return
        try:
            write_state(self.folder / STATE_FOLDER / STATE, *self.learner.state())
        except OSError as error:
            raise RunError(
                f"The state of {self.folder} could not be written: {error.strerror or error}. "
                "The one before is kept; make room and run the same command again."
            ) from None

    def conclude(self, dataset: Dataset) -> Run:
        """Measure the finished network, and write the run."""
        clock = time.perf_counter()
        learner, training, order = self.learner, self.training, self.order
        network = learner.finish()
        accuracy = evaluate(network, dataset.test, self.compute)
        examples = examples_of(network, dataset, self.compute)
        seen = len(self.split) * len(learner.history)
        classes, channels, image_size = _shape(dataset)
        record = Record(
            kind=self.objective.kind,
            id=plan_id(self.plan),
            recipe=recipe_id(
                self.plan, {role: run.record.recipe for role, run in self.inputs.items()}
            ),
            net=NetRecord(
                name=self.name,
                classes=classes,
                channels=channels,
                image_size=image_size,
                parameters=parameter_count(network),
                initial=self.initial,
                digest=digest(network),
            ),
            data=_data_record(dataset, self.split, self.validation),
            given={
                "net": self.name,
                "data": _changed(dataset.config),
                "objective": {"kind": self.objective.kind, **_changed(order.objective)},
                "training": _changed(order.training),
            },
            config={
                "net": self.name,
                "data": {**encode(dataset.config), "holdout": dataset.holdout},
                "objective": self.plan["objective"],
                "training": self.plan["training"],
            },
            inputs={role: run.as_input() for role, run in self.inputs.items()},
            revisions=self.plan["revisions"],
            accuracy=accuracy,
            chosen_on=training.checkpoint.removeprefix("best-").replace("last", "none"),
            chosen_epoch=learner.chosen_epoch,
            history=tuple(learner.history),
            examples=examples,
            seconds=learner.seconds + time.perf_counter() - clock,
            images_per_second=seen / learner.seconds,
            started=self.started,
            environment={**records.environment(), "device": self.compute.describe()},
        )
        run = Run(record, network, self.folder)
        save_run(run)
        return run


def _train(
    jobs: Sequence[_Job],
    dataset: Dataset,
    keeping: Keeping,
    stopper: Stopper,
    progress: Progress,
) -> None:
    """One pass for all jobs, with their states kept on disk."""
    first = jobs[0]
    family = views(first.training.augment, channels=dataset.channels, image_size=dataset.image_size)
    feed = Feed(first.split, compute=first.compute, views=family)
    by_learner = {id(job.learner): job for job in jobs}
    last_saved = time.monotonic()

    def between_steps() -> None:
        nonlocal last_saved
        reason = stopper.reason
        if reason or time.monotonic() - last_saved >= keeping.save_every_s:
            for job in jobs:
                job.save()
            last_saved = time.monotonic()
        if reason and not all(job.learner.finished for job in jobs):
            done = min(job.learner.done for job in jobs)
            kept = "in memory only" if first.folder is None else f"in {first.folder.parent}"
            raise Stopped(
                reason,
                f"Stopped by {reason} at step {done} of {first.learner.total}, kept {kept}. "
                "Run the same command again to go on.",
            )

    def on_epoch(learner: Learner, entry: EpochRecord) -> None:
        job = by_learner[id(learner)]
        events[id(learner)](entry)
        if keeping.keep_every and entry.epoch % keeping.keep_every == 0 and job.folder is not None:
            name = f"epoch-{entry.epoch:04d}"
            snapshot = job.folder / STATE_FOLDER / SNAPSHOTS / name
            save_weights(snapshot, learner.network)

    title = first.title if len(jobs) == 1 else f"{len(jobs)} runs, {first.title} and others"
    # A last batch of one is left out, so an epoch may meet one sample less than there are.
    met = min(len(first.split), first.learner.steps * first.training.batch_size)
    left = sum(job.learner.total - job.learner.done for job in jobs) / first.learner.steps
    with ExitStack() as stack:
        events = {
            id(job.learner): stack.enter_context(events_of(job.folder, job.learner)) for job in jobs
        }
        task = stack.enter_context(progress.task(title, met * left, "images"))
        # A run that was killed between its last epoch and its record has nothing left to learn.
        if learners := [job.learner for job in jobs if not job.learner.finished]:
            fit(
                learners,
                feed,
                source=_source(first, feed),
                test=dataset.test,
                validation=first.validation,
                task=task,
                on_epoch=on_epoch,
                between_steps=between_steps,
            )


def _finished(job: _Job) -> Run:
    """The run in the job's folder, with a network of the caller's own filled in place."""
    assert job.folder is not None
    if isinstance(job.order.net, str):
        return load_run(job.folder, trust=[job.name.partition(":")[0]])
    return load_run(job.folder, network=job.order.net)


def _check_shared(jobs: Sequence[_Job]) -> None:
    if not jobs:
        raise ConfigError("No run was ordered.")
    first = jobs[0]
    for job in jobs[1:]:
        for name in SHARED:
            mine, theirs = getattr(first.training, name), getattr(job.training, name)
            if mine != theirs:
                raise ConfigError(
                    f"Runs of one pass must have the same {name}; there are {mine} and {theirs}. "
                    "Make them in passes of their own."
                )
        if {r: v for r, v in job.inputs.items() if r != "init"} != {
            r: v for r, v in first.inputs.items() if r != "init"
        }:
            raise ConfigError("Runs of one pass must ask the same teacher or adversary, or none.")
        if job.compute.device != first.compute.device:
            raise ConfigError("Runs of one pass must be on one device.")


def _shape(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.classes), dataset.channels, dataset.image_size


def _split_digest(dataset: Dataset, split: Split, validation: Split | None) -> str:
    found = hashlib.sha256(dataset.digest.encode())
    for part in (split, validation, dataset.test):
        found.update(b"none" if part is None else part.rows.numpy().data)
    return found.hexdigest()[:16]


def evaluate_run(
    run: Run,
    data: str | DataConfig | Dataset,
    *,
    device: str = "auto",
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Estimate:
    """Accuracy of a run on the test split of any data of its shape."""
    dataset = load(data, progress=progress)
    _check_shape("run", run, dataset)
    compute = settle(run.network, device=device, precision=precision)
    return evaluate(compute.place(run.network), dataset.test, compute)


def _samples(dataset: Dataset, training: Training) -> tuple[Split, Split | None]:
    """What is trained on, and what may choose the checkpoint."""
    split, validation = dataset.train, dataset.validation
    if training.checkpoint == "best-validation" and validation is None:
        split, validation = split.divide(training.validation, "validation")
    split = split.fraction(training.fraction)
    if len(split) < 2:
        raise ConfigError(f"{len(split)} training sample is left; take a larger --fraction.")
    return split, validation


def _network(
    net: str | nn.Module, dataset: Dataset, split: Split, seed: int
) -> tuple[nn.Module, str]:
    if isinstance(net, nn.Module):
        return net, f"{type(net).__module__}:{type(net).__qualname__}"
    mean, std = split.statistics()
    with seeded(seed, "weights"):
        network = create(
            net,
            classes=len(dataset.classes),
            channels=dataset.channels,
            image_size=dataset.image_size,
            mean=mean,
            std=std,
        )
    return network, net


def _check_shape(role: str, run: Run, dataset: Dataset) -> None:
    net = run.record.net
    theirs = (net.classes, net.channels, net.image_size)
    ours = (len(dataset.classes), dataset.channels, dataset.image_size)
    if theirs != ours:
        text = "{} classes of {}-channel images of {} pixels a side"
        raise ConfigError(
            f"The {role} {run.folder or net.name} answers {text.format(*theirs)}, but the data "
            f"{dataset.config.source} has {text.format(*ours)}. Take a run on such data."
        )


def _check_answers(network: nn.Module, name: str, dataset: Dataset, compute: Compute) -> None:
    """Ask about two images, so that a network that does not fit fails here and not in a loss."""
    compute.place(network)
    was_training = network.training
    pixels = compute.pixels(dataset.train.images[dataset.train.rows[:2]].to(compute.device))
    try:
        shape = tuple(compute.answer(network.eval(), pixels).shape)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f"The network {name} cannot take images of {tuple(pixels.shape[1:])}: {error}"
        ) from None
    finally:
        network.train(was_training)
    if shape != (len(pixels), len(dataset.classes)):
        raise ConfigError(
            f"The network {name} answered {len(pixels)} images with the shape {shape}; wanted is "
            f"{(len(pixels), len(dataset.classes))}, logits for each class."
        )


def _source(job: _Job, feed: Feed) -> Source | None:
    """Ask the job's teacher live, or once per sample where each sample has one view."""
    if job.objective.asks is None:
        return None
    asked, training = job.inputs[job.objective.asks], job.training
    compute = settle(asked.network, device=training.device, precision=training.precision)
    source: Source = Live(asked.network, compute)
    return Remembered(source, feed) if feed.views.count == 1 else source


def _changed(config: "DataclassInstance") -> dict[str, Any]:
    """The fields of a config that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(config)}
    changed = {name for name, default in defaults.items() if getattr(config, name) != default}
    return {name: value for name, value in encode(config).items() if name in changed}


def _data_record(dataset: Dataset, split: Split, validation: Split | None) -> DataRecord:
    return DataRecord(
        source=dataset.config.source,
        digest=dataset.digest,
        split_digest=_split_digest(dataset, split, validation),
        classes=dataset.classes,
        train=len(split),
        validation=len(validation) if validation else 0,
        test=len(dataset.test),
        test_origin=dataset.test_origin,
        skipped=dataset.skipped,
    )
