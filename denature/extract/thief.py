"""The thief: queries a victim within a budget, and trains clones on its answers."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch

from denature.answers.answerer import AnswerChange
from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.transfer import Transfer
from denature.core.compute import resolve
from denature.core.errors import ConfigError, RunError
from denature.core.progress import Relay, Task
from denature.core.seeds import generator
from denature.data.dataset import Dataset, Split
from denature.extract.asking.answered import answered, ask_within_budget
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import BLOCK, Pool
from denature.extract.config import ExtractionConfig
from denature.extract.feasibility import check_count
from denature.extract.selection.base import Select, Selection
from denature.extract.theft import CLONES
from denature.train.config import Training
from denature.train.identity import plan_id
from denature.train.objectives.cloned import Cloned
from denature.train.order import Order
from denature.train.run import Run
from denature.train.runs import make
from denature.train.session import Session


class StolenRun(NamedTuple):
    """A clone, and what its answers cost."""

    run: Run
    budget: int
    spent: int
    """Queries that were or may have been billed for its images, lost ones included."""


def check_selection(images: Pool, selection: Selection, dataset: Dataset) -> None:
    """Check that a selection can choose from a pool by clones of such data.

    Raises:
        ConfigError: the selection works in rounds, and the pool is unlimited, or the clones
            predict landmarks.
    """
    if selection.select is None:
        return
    if images.size is None:
        raise ConfigError(
            f"{images.name} is unlimited, so no round can choose from it; choose random."
        )
    if dataset.landmarks:
        raise ConfigError(
            f"The selection {selection.name} compares probabilities of classes, and "
            f"{dataset.config.source} has landmarks; choose random."
        )


def query_order(images: Pool, held_out: Pool, seed: int) -> Iterator[int]:
    """A random order of a pool, without held-out images and duplicates."""
    if images.size is None:
        yield from itertools.count()
        return
    assert held_out.size is not None
    seen = set(held_out.contents(range(held_out.size)))
    order = generator(seed, "queries").permutation(images.size)
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK].tolist()
        for row, content in zip(rows, images.contents(rows), strict=True):
            if content not in seen:
                seen.add(content)
                yield row


def first_rows(images: Pool, held_out: Pool, seed: int, count: int) -> list[int]:
    """The first images of `query_order`.

    Raises:
        ConfigError: the pool has fewer.
    """
    rows = list(itertools.islice(query_order(images, held_out, seed), count))
    check_count(images.name, len(rows), count)
    return rows


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Thief:
    """Selection of queries, and training of clones, against any victim.

    Raises:
        ConfigError: the selection cannot choose from the pool; see `check_selection`.
    """

    oracle: Oracle
    """The victim; the budget is the largest of `steal`."""
    images: Pool
    """The images to query with; their labels are never read."""
    held_out: Pool
    """Images that are never queried, such as those of the evaluation; of finite size."""
    dataset: Dataset
    """Classes and shape of the clones' data; its test split scores their records."""
    selection: Selection
    stealing: ExtractionConfig
    """Round size, repeats and seeds; its `choose` and `test_images` are not read."""
    net: str
    out: Path
    """Folder of the clones; no other thief may use it at the same time."""
    backbone: Run | str | None = None
    objective: Cloned = field(default_factory=Cloned)
    defense: AnswerChange | None = None
    """Changes the stored answers before the clones learn from them."""
    training: Training = field(default_factory=Training)
    session: Session = field(default_factory=Session)

    def __post_init__(self) -> None:
        check_selection(self.images, self.selection, self.dataset)

    def steal(self, budgets: Sequence[int]) -> list[StolenRun]:
        """Fresh clones for each budget, trained on the first answers within it.

        Args:
            budgets: numbers of queries, ascending.

        Raises:
            DenatureError: see `denature.extract.steal`; received answers are stored.
        """
        oracle, repeats = self.oracle, self.stealing.repeats
        chosen = self._choose(budgets[-1] // repeats)
        stolen, seeds = [], self.stealing.seeds
        planned = sum(self._planned(budget // repeats, seeds) for budget in budgets)
        with self.session.progress.task("clones", planned, "images") as task:
            for place, budget in enumerate(budgets, start=1):
                task.advance(0, f"of {budget:,} queries, budget {place} of {len(budgets)}")
                rows = chosen[: budget // repeats]
                contents = self.images.contents(rows)
                spent = oracle.ledger.cost(oracle.target, contents, repeats=repeats)
                folder = self.out / CLONES / f"queries-{budget}"
                runs = self._train(rows, folder, task, seeds=seeds)
                stolen += [StolenRun(run, budget, spent) for run in runs]
        return stolen

    # Selection

    def _choose(self, most: int) -> list[int]:
        """Numbers of the query images in the order of their queries; all were sent."""
        if self.selection.select is None:
            return self._at_random(most)
        return self._in_rounds(most, self.selection.select)

    def _at_random(self, most: int) -> list[int]:
        rows = first_rows(self.images, self.held_out, self.stealing.pool_seed, most)
        self._ask(rows)
        return rows

    def _in_rounds(self, most: int, select: Select) -> list[int]:
        """A random first round; the clone of all rounds before chooses each further round."""
        size, seed = self.stealing.round_size, self.stealing.pool_seed
        rows = self._at_random(min(size, most))
        everything = np.array(sorted(query_order(self.images, self.held_out, seed)))
        check_count(self.images.name, len(everything), most)
        planned = sum(self._planned(count, 1) for count in range(len(rows), most, size))
        with self.session.progress.task("rounds", planned, "images") as task:
            while len(rows) < most:
                task.advance(0, f"{len(rows):,} of {most:,} images chosen")
                [clone] = self._train(rows, self.out / "rounds", task, seeds=1)
                rest = np.setdiff1d(everything, rows)
                guesses = self._guesses(clone, [*rest.tolist(), *rows])
                count = min(size, most - len(rows))
                places = select(guesses[: len(rest)], guesses[len(rest) :], count)
                new = [int(row) for row in rest[places.numpy()]]
                self._ask(new)
                rows += new
        return rows

    def _ask(self, rows: Sequence[int]) -> None:
        ask_within_budget(self.oracle, self.images, rows, repeats=self.stealing.repeats)

    def _guesses(self, clone: Run, rows: Sequence[int]) -> torch.Tensor:
        """A clone's probabilities for images of the pool, float32, images x classes."""
        device, precision = self.training.device, self.training.precision
        compute = resolve(clone.network, device=device, precision=precision)
        shape = (self.dataset.channels, self.dataset.image_size, self.dataset.image_size)
        inference = Inference(clone.network, compute, InferenceConfig(), shape=shape)
        guesses = []
        with self.session.progress.task("choosing images to query", len(rows), "images") as task:
            for start in range(0, len(rows), BLOCK):
                part = rows[start : start + BLOCK]
                pixels = torch.from_numpy(self.images.images(part)).to(compute.device)
                guesses.append(inference(compute.pixels(pixels)).softmax(-1).cpu())
                task.advance(len(part))
        return torch.cat(guesses)

    # Training

    def _planned(self, images: int, seeds: int) -> float:
        """Images that clones are trained on, each counted once an epoch."""
        return seeds * images * self.training.epochs * self.training.fraction

    def _train(self, rows: Sequence[int], folder: Path, whole: Task, *, seeds: int) -> list[Run]:
        """Fresh clones, trained on the stored answers to these images.

        `whole` has the planned images in it, and receives those that are trained.
        """
        transfer, answered_rows = self._transfer(rows)
        whole.grow(self._planned(len(answered_rows), seeds) - self._planned(len(rows), seeds))
        orders = [
            Order(
                net=self.net,
                objective=self.objective,
                training=replace(self.training, seed=self.training.seed + number),
                source=transfer if self.defense is None else transfer.defended(self.defense),
                backbone=self.backbone,
                under=folder,
            )
            for number in range(seeds)
        ]
        relayed = Relay(whole, "images", self.session.progress)
        data = self._pairs(answered_rows, transfer)
        return make(orders, data, session=replace(self.session, progress=relayed))

    def _transfer(self, rows: Sequence[int]) -> tuple[Transfer, list[int]]:
        """The stored answers to these images, and the numbers of those that have one."""
        about, repeats = self.oracle.about, self.stealing.repeats
        width = len(self.dataset.classes)
        known = answered(self.oracle, self.images, rows, classes=width, repeats=repeats)
        if len(known.rows) < 2:
            raise RunError(
                f"{len(known.rows)} of {len(rows)} images were answered; wanted are 2 or more."
            )
        recipe = {
            "target": about.target,
            "options": about.options,
            "pool": self.images.digest,
            "choose": self.selection.name,
            "images": len(rows),
            "repeats": repeats,
        }
        transfer = Transfer(
            known.kind,
            torch.from_numpy(known.values),
            victim=about.target,
            recipe=plan_id(recipe),
            folder=self.out,
        )
        return transfer, known.rows

    def _pairs(self, rows: Sequence[int], transfer: Transfer) -> Dataset:
        """The images of a transfer set as training data; the victim's answers are the labels."""
        digest = hashlib.sha256(self.dataset.digest.encode())
        for content in self.images.contents(rows):
            digest.update(content)
        split = Split(
            torch.from_numpy(self.images.images(rows)), transfer.labels, torch.arange(len(rows))
        )
        config = replace(self.dataset.config, source=self.images.name)
        return replace(
            self.dataset,
            config=config,
            train=split,
            validation=None,
            digest=digest.hexdigest()[:16],
            skipped=0,
        )
