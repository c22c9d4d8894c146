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
from denature.core.threads import computing
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
            # Runs that were interrupted in one pass began with one number.
            begun = max((job.threads for job in waiting.values() if job.threads), default=None)
            with computing(begun, session.progress.say) as threads:
                for job in waiting.values():
                    job.threads = threads
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
    for job in jobs:
        whole.grow(job.images_left - job.images)
    # A run that was killed between its last epoch and its record needs no more training.
    if unfinished := [job for job in jobs if not job.learner.finished]:
        _Trainer(unfinished, dataset, watch, session).train(whole, single=single)


class _Trainer:
    """Trains jobs in one pass, and writes their states, snapshots and curves meanwhile."""

    def __init__(
        self, jobs: Sequence[Job], dataset: Dataset, watch: Watch | None, session: Session
    ) -> None:
        self._jobs, self._dataset, self._watch, self._session = jobs, dataset, watch, session
        self._by_learner = {id(job.learner): job for job in jobs}
        self._writers: dict[int, list[Scalars]] = {}
        self._last_saved, self._calls = time.monotonic(), 0

    def train(self, whole: Task, *, single: bool) -> None:
        """Train until all jobs are finished; see `make_pass` for the arguments.

        Raises:
            Stopped: a stop was requested; the states are saved.
        """
        images, source = self._open_source()
        with ExitStack() as stack:
            tasks = self._open_reports(stack, whole, single=single)
            fit(
                [job.learner for job in self._jobs],
                images,
                source=source,
                test=self._dataset.test,
                validation=self._jobs[0].samples.validation,
                tasks=tasks,
                on_epoch=self._on_epoch,
                between_steps=self._between_steps,
            )

    def _open_source(self) -> tuple[BatchSource, AnswerSource | None]:
        """The images, and the source of their answers, which all jobs of a pass share."""
        first, dataset = self._jobs[0], self._dataset
        augment, names = first.training.augment, dataset.classes if dataset.landmarks else ()
        family = views(augment, channels=dataset.channels, image_size=dataset.image_size)
        feed = Feed(first.samples.split, compute=first.compute, views=family, names=names)
        if first.synthetic is not None:
            return first.synthetic, first.synthetic
        if first.source is None or isinstance(first.source, Transfer):
            return feed, first.source
        compute = resolve(
            first.source.network, device=first.training.device, precision=first.training.precision
        )
        source, form = open_answers(
            first.source,
            feed,
            dataset,
            first.order.inference,
            compute,
            store=self._session.checkpointing.store,
            progress=self._session.progress,
        )
        for job in self._jobs:
            job.form = form
        return feed, source

    def _open_reports(self, stack: ExitStack, whole: Task, *, single: bool) -> list[Task]:
        """Open trackers, events and tasks in `stack`; a task for each job is returned."""
        jobs, titles, tasks = self._jobs, _titles(self._jobs), []
        report = stack.enter_context(_reporting(jobs, titles, self._session.checkpointing))
        for job, title, write in zip(jobs, titles, report, strict=True):
            writers = self._writers[id(job.learner)] = [write]
            if job.folder is not None and job.team.is_rank0:
                folder, after = job.folder / STATE_FOLDER / EVENTS, len(job.learner.history)
                writers.append(stack.enter_context(tensorboard(folder, after=after)))
            if single:
                tasks.append(whole)
                continue
            own = self._session.progress.task(title, job.images_left, "images")
            tasks.append(Both(stack.enter_context(own), whole))
        return tasks

    def _on_epoch(self, learner: Learner, entry: EpochRecord) -> None:
        job, every = self._by_learner[id(learner)], self._session.checkpointing.keep_every
        for write in self._writers[id(learner)]:
            write(scalars_of(entry), entry.epoch)
        if every and entry.epoch % every == 0 and job.folder is not None:
            snapshot = job.folder / STATE_FOLDER / SNAPSHOTS / f"epoch-{entry.epoch:04d}"
            network = learner.collect()
            job.team.on_rank0(lambda: save_weights(snapshot, network))
        if self._watch is not None and job.team.is_rank0:
            self._watch(job.order, learner)

    def _between_steps(self) -> None:
        """Save all states when that is due, and before a stop."""
        first, team = self._jobs[0], self._jobs[0].team
        self._calls += 1
        if team.size > 1 and self._calls % AGREE_EVERY:
            return
        due = time.monotonic() - self._last_saved >= self._session.checkpointing.save_every_s
        reason, due = team.broadcast((self._session.stopper.reason, due))
        if reason or due:
            for job in self._jobs:
                job.save()
            self._last_saved = time.monotonic()
        if reason and not all(job.learner.finished for job in self._jobs):
            done = min(job.learner.done for job in self._jobs)
            kept = (
                "nothing is kept, since the run has no folder: give it `out`"
                if first.folder is None
                else f"kept in {first.folder.parent}. Run the same command again to go on"
            )
            raise Stopped(
                reason, f"Stopped by {reason} at step {done} of {first.learner.total}, {kept}."
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
