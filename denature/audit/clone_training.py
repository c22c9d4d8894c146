"""From lessons of thieves to runs of the one training loop."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch

from denature.answers.transfer import Transfer
from denature.core.progress import SILENT, Relay, Task
from denature.core.seeds import derive
from denature.data.dataset import Dataset, Split
from denature.extract.strategies.base import Lesson
from denature.train.config import Training
from denature.train.order import Order
from denature.train.run import Run
from denature.train.runs import make_all
from denature.train.session import Session

PROBE = 256
"""Test images that score the records of clones; the audit measures on all of them."""


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CloneTrainer:
    """What all lessons of an audit have in common."""

    dataset: Dataset
    """Classes and shape of the data."""
    net: str
    training: Training
    """Its epochs are the fewest, its batch size the largest, for lessons that name no others; see
    `denature.extract.config.thief_training`."""
    session: Session

    def orders(
        self, lessons: Sequence[Lesson], folder: Path, *, seed: int, recipe: str
    ) -> list[tuple[list[Order], Dataset, list[int]]]:
        """Orders on their data, those of equal data together, with their places among `lessons`.

        Args:
            lessons: to be learned at the same time.
            folder: of their runs.
            seed: of their networks; lessons with seeds of their own differ.
            recipe: identity of the lessons.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, lesson in enumerate(lessons):
            parts = (lesson.images, lesson.answers.values, lesson.labels)
            groups.setdefault(tuple(map(id, parts)), []).append(place)
        found = []
        for places in groups.values():
            first = lessons[places[0]]
            data, transfer = self._data(first), self._transfer(first, folder, recipe)
            orders = [self._order(lessons[n], transfer, folder, seed) for n in places]
            found.append((orders, data, places))
        return found

    def _order(self, lesson: Lesson, transfer: Transfer, folder: Path, seed: int) -> Order:
        training = lesson.training_for(self.training, net=self.net)
        # Derived, so that no clone starts from the weights of a victim that has the same number as
        # its seed: such clones agreed with a `cnn` on digits on half a point more test images.
        return Order(
            net=lesson.net or self.net,
            objective=lesson.objective,
            training=replace(training, seed=derive(seed, "clone", lesson.seed)),
            source=transfer,
            backbone=lesson.backbone,
            under=folder,
        )

    @staticmethod
    def _transfer(lesson: Lesson, folder: Path, recipe: str) -> Transfer:
        answers = lesson.answers
        return Transfer(
            answers.kind, answers.values, victim="the audited model", recipe=recipe, folder=folder
        )

    def _data(self, lesson: Lesson) -> Dataset:
        answers = lesson.answers.values
        labels = lesson.labels
        if labels is None:
            labels = (answers if answers.ndim == 1 else answers.argmax(-1)).numpy()
        train = _split(lesson.images, labels)
        digest = hashlib.sha256(self.dataset.digest.encode())
        for array in (lesson.images, labels):
            digest.update(np.ascontiguousarray(array).data)
        test = self.dataset.test
        return replace(
            self.dataset,
            config=replace(self.dataset.config, source="queries of an audit"),
            train=train,
            validation=None,
            test=replace(test, rows=test.rows[:PROBE]),
            digest=digest.hexdigest()[:16],
            skipped=0,
        )

    def train(
        self,
        groups: Iterable[tuple[list[Order], Dataset, list[int]]],
        count: int,
        display: Task = SILENT,
    ) -> list[Run]:
        """The runs of lessons, in the order of their places; `display` receives their images."""
        listed = list(groups)
        session = replace(self.session, progress=Relay(display, "images", self.session.progress))
        made = make_all([(orders, data) for orders, data, _ in listed], session=session)
        runs: list[Run | None] = [None] * count
        for (_, _, places), of_group in zip(listed, made, strict=True):
            for place, run in zip(places, of_group, strict=True):
                runs[place] = run
        return [run for run in runs if run is not None]


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.from_numpy(np.ascontiguousarray(labels, np.int64)),
        torch.arange(len(images)),
    )
