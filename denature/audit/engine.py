"""Strategies at work: many advance together, and their trainings share the one loop."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch

from denature.audit.attempt import CellAttempt
from denature.audit.cells import CellStore, MeasuredCell
from denature.audit.clone_training import CloneTrainer
from denature.core import progress
from denature.core.compute import resolve
from denature.data.dataset import Split
from denature.extract.strategies.base import Lesson, Steps, Strategy, TrainedClone
from denature.train.loop import answers_to
from denature.train.run import Run
from denature.train.runs import planned_images

TOGETHER = 24
"""Cells that advance together; each holds its images and answers in memory, and where workers
train, twice as many do."""


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellTask:
    """One seed of one cell."""

    key: str
    strategy: Strategy
    begin: Callable[[], CellAttempt]
    """Makes the attempt when the task starts: those of all tasks would fill the memory."""
    images: float
    """Images that its clones are trained on, as planned, each counted once an epoch."""


@dataclass(slots=True, eq=False)
class _Advancing:
    """A strategy between two of its lessons."""

    task: CellTask
    attempt: CellAttempt
    steps: Steps
    planned: float
    """What is left of the images of the plan."""
    lessons: Sequence[Lesson] = ()
    clone: TrainedClone | None = None

    @staticmethod
    def begun(task: CellTask) -> "_Advancing":
        """A strategy with its first lessons."""
        attempt = task.begin()
        advancing = _Advancing(task, attempt, task.strategy.steps(attempt), task.images)
        advancing.advance(None)
        return advancing

    def advance(self, runs: Sequence[Run] | None) -> None:
        try:
            self.lessons = next(self.steps) if runs is None else self.steps.send(runs)
        except StopIteration as end:
            self.lessons, self.clone = (), end.value


class _Training(NamedTuple):
    """Strategies whose lessons are being learned."""

    active: list[_Advancing]
    runs: "Future[list[list[Run]]]"

    def advanced(self, runs: Sequence[Sequence[Run]]) -> list[_Advancing]:
        for each, own in zip(self.active, runs, strict=True):
            each.advance(own)
        return self.active


def _called(function: Callable[..., list[list[Run]]], *rest: Any) -> "Future[list[list[Run]]]":
    future: Future[list[list[Run]]] = Future()
    future.set_result(function(*rest))
    return future


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Engine:
    """Carries out tasks, and stores what they measured."""

    trainer: CloneTrainer
    store: CellStore
    tests: Split
    """All test images of the audit."""
    device: str

    def carry_out(
        self, groups: Sequence[Sequence[CellTask]], display: progress.Task
    ) -> Iterator[int]:
        """Measure cells; yields how many were measured.

        Args:
            groups: tasks that begin together, so that lessons which they share are learned once.
            display: has the images of all tasks in it; receives those that are trained.

        Raises:
            DenatureError: see `denature.train.make` and `Oracle.ask`; measured cells are kept.
        """
        waiting, active = deque(groups), list[_Advancing]()
        training: _Training | None = None
        with self._executor() as submit:
            while waiting or active or training:
                while waiting and (not active or len(active) + len(waiting[0]) <= TOGETHER):
                    active += [_Advancing.begun(task) for task in waiting.popleft()]
                finished = [each for each in active if each.clone is not None]
                for each in finished:
                    self._measure(each)
                    display.grow(-each.planned)
                if finished:
                    yield len(finished)
                active = [each for each in active if each.clone is None]
                runs = [] if training is None else training.runs.result()
                # Submitted before others advance, so that the workers are not idle meanwhile.
                begun = _Training(active, submit(self._train, active, display)) if active else None
                active = [] if training is None else training.advanced(runs)
                training = begun

    @contextmanager
    def _executor(self) -> Iterator[Callable[..., "Future[list[list[Run]]]"]]:
        """A function that calls another one and returns its future.

        Where workers train, one thread waits for them, and this process advances other strategies
        meanwhile: taken in turns, both kept two cores busy for 79 % of the time. Without workers
        the call is made at once, since a second thread of torch would compute with other threads,
        and so to other last bits.
        """
        if self.trainer.session.workers is None:
            yield _called
            return
        with ThreadPoolExecutor(1) as threads:
            yield threads.submit

    def _train(self, active: Sequence[_Advancing], display: progress.Task) -> list[list[Run]]:
        """The runs of the lessons of each strategy; all are made together, equal ones once."""
        place_of: dict[str, int] = {}
        images: dict[str, float] = {}
        groups, wanted = [], []
        for each in active:
            keys = [lesson.digest(each.attempt.seed) for lesson in each.lessons]
            named = dict(zip(keys, each.lessons, strict=True))
            new = {key: lesson for key, lesson in named.items() if key not in place_of}
            first, names = len(place_of), list(new)
            place_of |= {key: first + number for number, key in enumerate(new)}
            for orders, data, places in self.trainer.orders(
                list(new.values()),
                self.store.runs_folder(each.task.key),
                seed=each.attempt.seed,
                recipe=each.task.key,
            ):
                groups.append((orders, data, [first + place for place in places]))
                for order, place in zip(orders, places, strict=True):
                    images[names[place]] = planned_images(order, data)
            wanted.append(keys)
            # What the plan had for these lessons gives way to what is trained for them.
            part = min(each.planned, sum(images[key] for key in named))
            each.planned -= part
            display.grow(sum(images[key] for key in new) - part)
        runs = self.trainer.train(groups, len(place_of), display)
        return [[runs[place_of[key]] for key in keys] for keys in wanted]

    def _measure(self, each: _Advancing) -> None:
        assert each.clone is not None
        cell = MeasuredCell(
            predictions=tuple(predictions(each.clone, self.tests, self.device).tolist()),
            queries=each.attempt.spent,
            note=each.clone.note,
        )
        self.store.write(each.task.key, cell)
        self.store.tidy(each.task.key)


def predictions(clone: TrainedClone, split: Split, device: str) -> np.ndarray:
    """A clone's classes for a split in fp32, int64."""
    compute = resolve(clone.network, device=device, precision="fp32")
    batches = answers_to(compute.place(clone.network).eval(), split, compute)
    classes: np.ndarray = torch.cat([logits.argmax(-1).cpu() for _, logits in batches]).numpy()
    return classes
