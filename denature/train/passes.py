"""One pass over the data: runs are read, resumed or started, trained together and saved."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from denature.answers.sources import AnswerSource
from denature.answers.transfer import Transfer
from denature.core.compute import resolve
from denature.core.errors import RunError, Stopped
from denature.core.progress import Both, Task
from denature.core.record import EpochRecord, Record, read_record, write_record
from denature.core.weights import save_weights
from denature.data import Dataset
from denature.data.feed import Feed
from denature.data.views import views
from denature.train.answering import open_answers
from denature.train.config import CheckpointConfig
from denature.train.identity import Plan, plan_id, what_varies
from denature.train.job import Job
from denature.train.learner import Learner
from denature.train.loop import fit, hits_of
from denature.train.objectives.base import BatchSource
from denature.train.order import Order
from denature.train.recording import conclude, packed_hits
from denature.train.run import (
    EVENTS,
    SNAPSHOTS,
    STATE_FOLDER,
    Run,
    RunState,
    is_finished,
    load_run,
    locked,
    open_folder,
)
from denature.train.session import Session
from denature.train.state import STATE, read_state, recover_state
from denature.train.tracking import Scalars, scalars_of, tensorboard, trackers

Watch: TypeAlias = Callable[[Order, Learner], None]
"""Callback that receives each learner after each of its epochs."""

AGREE_EVERY = 8
"""Steps between broadcasts in which several processes agree whether to save or to stop."""


def make_pass(
    jobs: Sequence[Job],
    dataset: Dataset,
    overwrite: bool,
    watch: Watch | None,
    session: Session,
    whole: Task,
    *,
    single: bool,
) -> list[Run]:
    """Read finished runs, resume unfinished ones, and train the others.

    `whole` receives the images that are trained, and has the `images` of all unfinished jobs in it.
    Unless it is that of a `single` run, each run has a task of its own inside it.
    """
    runs: dict[int, Run] = {}
    waiting: dict[int, Job] = {}
    team = jobs[0].team
    with ExitStack() as locks:

        def enter(folder: Path, plan: Plan) -> RunState:
            if is_finished(folder, plan):  # nothing is written, so its disk may be read-only
                return "finished"
            locks.enter_context(locked(folder))
            return open_folder(folder, plan, overwrite=overwrite)

        for number, job in enumerate(jobs):
            if job.folder is not None:
                standing = team.on_rank0(partial(enter, job.folder, job.plan))
                if standing == "finished":
                    runs[number] = _finished(job, dataset)
                    continue
                state = job.folder / STATE_FOLDER / STATE
                if standing == "unfinished":
                    team.on_rank0(partial(recover_state, state, session.progress.say))
                    if state.exists():
                        job.restore(*read_state(state))
            waiting[number] = job
        if waiting:
            _train(list(waiting.values()), dataset, watch, session, whole, single=single)
            runs |= {number: conclude(job, dataset) for number, job in waiting.items()}
            for job in waiting.values():
                job.forget()
        team.broadcast(None)  # all processes have read their runs before rank 0 releases the locks
    return [runs[number] for number in range(len(jobs))]


def _train(
    jobs: Sequence[Job],
    dataset: Dataset,
    watch: Watch | None,
    session: Session,
    whole: Task,
    *,
    single: bool,
) -> None:
    """Train all jobs in one pass, and save their states to disk."""
    first, checkpointing = jobs[0], session.checkpointing
    family = views(first.training.augment, channels=dataset.channels, image_size=dataset.image_size)
    names = dataset.classes if dataset.landmarks else ()
    feed = Feed(first.samples.split, compute=first.compute, views=family, names=names)
    by_learner = {id(job.learner): job for job in jobs}
    writers: dict[int, list[Scalars]] = {}
    last_saved, calls, team = time.monotonic(), 0, first.team

    def between_steps() -> None:
        nonlocal last_saved, calls
        calls += 1
        if team.size > 1 and calls % AGREE_EVERY:
            return
        since = time.monotonic() - last_saved
        reason, due = team.broadcast((session.stopper.reason, since >= checkpointing.save_every_s))
        if reason or due:
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
        for write in writers[id(learner)]:
            write(scalars_of(entry), entry.epoch)
        every = checkpointing.keep_every
        if every and entry.epoch % every == 0 and job.folder is not None:
            name = f"epoch-{entry.epoch:04d}"
            snapshot = job.folder / STATE_FOLDER / SNAPSHOTS / name
            network = learner.collect()
            team.on_rank0(lambda: save_weights(snapshot, network))
        if watch is not None and team.is_rank0:
            watch(job.order, learner)

    # A run that was killed between its last epoch and its record needs no more training.
    for job in jobs:
        whole.grow(job.images_left - job.images)
    jobs = [job for job in jobs if not job.learner.finished]
    if not jobs:
        return
    images: BatchSource = feed
    source: AnswerSource | None = None
    if first.synthetic is not None:
        images = source = first.synthetic
    elif isinstance(first.source, Transfer):
        source = first.source
    elif first.source is not None:
        compute = resolve(
            first.source.network, device=first.training.device, precision=first.training.precision
        )
        source, form = open_answers(
            first.source,
            feed,
            dataset,
            first.order.inference,
            compute,
            store=checkpointing.store,
            progress=session.progress,
        )
        for job in jobs:
            job.form = form
    titles = _titles(jobs)
    with ExitStack() as stack:
        tasks: list[Task] = []
        report = stack.enter_context(_reporting(jobs, titles, checkpointing))
        for job, title, write in zip(jobs, titles, report, strict=True):
            writers[id(job.learner)] = [write]
            if job.folder is not None and team.is_rank0:
                folder, after = job.folder / STATE_FOLDER / EVENTS, len(job.learner.history)
                events = stack.enter_context(tensorboard(folder, after=after))
                writers[id(job.learner)].append(events)
            if single:
                tasks.append(whole)
                continue
            own = stack.enter_context(session.progress.task(title, job.images_left, "images"))
            tasks.append(Both(own, whole))
        fit(
            [job.learner for job in jobs],
            images,
            source=source,
            test=dataset.test,
            validation=first.samples.validation,
            tasks=tasks,
            on_epoch=on_epoch,
            between_steps=between_steps,
        )


@contextmanager
def _reporting(
    jobs: Sequence[Job], titles: Sequence[str], checkpointing: CheckpointConfig
) -> Iterator[list[Scalars]]:
    """One tracker run for a pass; the curves of several students get their titles as prefixes."""
    if not checkpointing.track or not jobs[0].team.is_rank0:
        yield [lambda scalars, step: None for _ in jobs]
        return
    name = jobs[0].title if len(jobs) == 1 else f"{len(jobs)} runs of one pass"
    identity = hashlib.sha256(" ".join(plan_id(job.plan) for job in jobs).encode()).hexdigest()[:16]
    config = jobs[0].settings if len(jobs) == 1 else dict(zip(titles, titles, strict=True))
    with trackers(checkpointing.track, title=name, run=identity, config=config) as write:
        prefixes = [""] if len(jobs) == 1 else [f"{title}/" for title in titles]

        def of(prefix: str) -> Scalars:
            return lambda scalars, step: write(
                {prefix + name: value for name, value in scalars.items()}, step
            )

        yield [of(prefix) for prefix in prefixes]


def _titles(jobs: Sequence[Job]) -> list[str]:
    """Titles of the jobs of a pass, from the settings in which they differ."""
    if len(jobs) == 1:
        return [jobs[0].title]
    titles = []
    for job, varied in zip(jobs, what_varies([job.plan for job in jobs]), strict=True):
        # Objectives of different kinds have different fields, which are None in the others.
        settings = [f"{k} {v}" for k, v in varied.items() if v is not None and k != "kind"]
        titles.append(f"{job.objective.kind} {', '.join(settings)}".strip())
    return titles


def _finished(job: Job, dataset: Dataset) -> Run:
    """The finished run in the job's folder, with its weights loaded into the job's network.

    A record written before hits were recorded gets them now, if the number of correct answers
    matches; on another processor or in another precision the number may differ by an image.
    """
    assert job.folder is not None
    run = load_run(job.folder, network=job.network)
    record = run.record
    if record.accuracy is None or record.hits is not None:
        return run
    right = hits_of(job.compute.place(run.network), dataset.test, job.compute, job.team)
    if int(right.sum()) != round(record.accuracy.value * record.accuracy.n):
        return run
    run = replace(run, record=replace(record, hits=packed_hits(right, dataset)))
    job.team.on_rank0(partial(_complete, job.folder, record, run.record))
    return run


def _complete(folder: Path, before: Record, record: Record) -> None:
    """Write a record with its hits in the place of the same one without, where that is possible."""
    with suppress(RunError, OSError), locked(folder):
        if read_record(folder) == before:
            write_record(folder, record)
