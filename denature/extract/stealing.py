"""A theft from the first query to the last clone."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from denature.answers.config import Asking
from denature.answers.inference import Inference
from denature.answers.sources import Kind
from denature.answers.transfer import Transfer
from denature.core.compute import settle
from denature.core.errors import ConfigError, RunError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.record import environment
from denature.core.seeds import generator
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.core.stopping import Stopper
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.extract.choosing import CHOOSERS
from denature.extract.config import Pace, Stealing
from denature.extract.ledger import BudgetSpent, Ledger
from denature.extract.oracle import Oracle, completed
from denature.extract.pool import NOISE, Kept, Pool, open_pool
from denature.extract.theft import RESULT, Clone, Theft
from denature.extract.victims.base import About, Victim
from denature.train.config import Keeping, Training
from denature.train.identity import plan_id
from denature.train.job import Order
from denature.train.loop import answers_to
from denature.train.objectives.cloned import Cloned
from denature.train.run import Run
from denature.train.runs import make

LEDGER, PLAN = "ledger.sqlite", "plan.json"


class Known(NamedTuple):
    """Images that were answered, and the answers: repeats averaged, hidden values filled in."""

    rows: list[int]
    kind: Kind
    values: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """What the victim says: classes, or where things are."""
        return self.values if self.kind in ("label", "landmarks") else self.values.argmax(-1)


def steal(
    victim: Victim,
    *,
    net: str,
    pool: str | DataConfig,
    budgets: Sequence[int],
    out: str | Path,
    test: str | DataConfig | None = None,
    stealing: Stealing | None = None,
    pace: Pace | None = None,
    objective: Cloned | None = None,
    training: Training | None = None,
    price: float | None = None,
    keeping: Keeping | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Theft:
    """Ask a victim about images, and train clones on what it answers.

    All answers are kept in `out`; asked for again, a theft goes on where it stopped, a larger
    budget asks the difference only, and clones that are there are not trained again.

    Args:
        victim: who is asked; see `denature.extract.victims`.
        net: the clone's network.
        pool: the images to ask with, of which the training split is taken; `noise` for noise.
        budgets: how many queries; a fresh clone is trained for each, on the first so many.
        out: folder for ledger, clones and result.
        test: labelled images to measure with; the pool's own by default, where it has as many
            classes as the victim.
        stealing: what is asked, and how often clones are trained.
        pace: how fast.
        objective: how the clone learns.
        training: how it is trained; its seed is the first clone's.
        price: of one query in US dollars.
        keeping: see `denature.train.make`.
        stopper: asked between requests and steps whether to stop.
        progress: told how far it is.

    Raises:
        DenatureError: see `denature.core.errors`; what was answered is kept.
    """
    budgets = sorted(set(budgets))
    if not budgets or budgets[0] < 2:
        raise ConfigError(f"budgets are {budgets}; wanted is at least one, of at least 2 queries.")
    stealing = stealing or Stealing()
    about = asyncio.run(_about(victim))
    source = pool if isinstance(pool, DataConfig) else DataConfig(source=pool)
    dataset = _test_data(test, source, about, progress)
    images = open_pool(
        source,
        channels=dataset.channels,
        image_size=dataset.image_size,
        seed=stealing.pool_seed,
        progress=progress,
    )
    if images.size is not None and images.size < budgets[-1] // stealing.repeats:
        raise ConfigError(
            f"A budget of {budgets[-1]:,} was given, and {images.name} has {images.size:,} images; "
            "take a smaller budget or a larger pool."
        )
    _claim(Path(out), about, images, stealing)
    with Ledger(Path(out) / LEDGER) as ledger:
        measuring = Oracle(
            victim=victim,
            ledger=ledger,
            about=about,
            budget=stealing.fidelity,
            purpose="measure",
            pace=pace or Pace(),
            price=price,
            stopper=stopper or Stopper(),
            progress=progress,
        )
        thief = Thief(
            oracle=replace(measuring, budget=budgets[-1], purpose="train"),
            measuring=measuring,
            images=images,
            dataset=dataset,
            stealing=stealing,
            net=net,
            objective=objective or Cloned(),
            training=training or Training(),
            keeping=keeping or Keeping(),
            out=Path(out),
        )
        theft = thief.steal(budgets)
    write_text(Path(out) / RESULT, theft.to_json(indent=1) + "\n")
    return theft


async def _about(victim: Victim) -> About:
    async with victim:
        return await victim.about()


def _test_data(
    test: str | DataConfig | None, pool: DataConfig, about: About, progress: Progress
) -> Dataset:
    """Labelled images in the shape and with the classes that the victim knows."""
    config = DataConfig(source=test) if isinstance(test, str) else test or pool
    if config.source == NOISE:
        raise ConfigError("Noise has no labels to measure with; name labelled images with --test.")
    size = config.image_size or about.image_size
    dataset = load(replace(config, image_size=size), progress=progress)
    if about.kind is not None and (about.kind == "landmarks") != dataset.landmarks:
        raise ConfigError(
            f"{about.target} answers with {about.kind}, and the labels of {config.source} are "
            f"{'landmarks' if dataset.landmarks else 'classes'}. Name other labelled images with "
            "--test."
        )
    if about.classes not in (None, len(dataset.classes)):
        raise ConfigError(
            f"{config.source} has {len(dataset.classes)} classes, {about.target} knows "
            f"{about.classes}. Name labelled images of its classes with --test."
        )
    if about.channels not in (None, dataset.channels):
        raise ConfigError(
            f"{config.source} has images of {dataset.channels} channels, {about.target} takes "
            f"{about.channels}. Name other labelled images with --test."
        )
    return dataset


def _claim(out: Path, about: About, images: Pool, stealing: Stealing) -> None:
    """Make a folder that of this theft, whose budget may grow.

    Raises:
        RunError: it holds another theft.
    """
    plan: dict[str, Any] = {
        "target": about.target,
        "options": about.options,
        "pool": f"{images.name} {images.digest}",
        "choose": stealing.choose,
        "round_size": None if stealing.choose == "random" else stealing.round_size,
        "repeats": stealing.repeats,
        "pool_seed": stealing.pool_seed,
    }
    path = out / PLAN
    if not path.exists():
        write_text(path, json.dumps(plan, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}. Name another folder with --out.") from None
    if before != plan:
        changed = [
            f"{key} was {before.get(key) if isinstance(before, dict) else before}, is {value}"
            for key, value in plan.items()
            if not isinstance(before, dict) or before.get(key) != value
        ]
        raise RunError(
            f"{out} holds another theft: {'; '.join(changed)}. Name another folder with --out."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Thief:
    """Who asks, chooses, trains and measures; see `steal` for the fields."""

    oracle: Oracle
    measuring: Oracle
    images: Pool
    dataset: Dataset
    stealing: Stealing
    net: str
    objective: Cloned
    training: Training
    keeping: Keeping
    out: Path

    def steal(self, budgets: Sequence[int]) -> Theft:
        """All of it; `budgets` rise."""
        measured, oracle = self.measured, self.oracle
        most = budgets[-1] // self.stealing.repeats
        chosen = (
            self._at_random(most) if self.stealing.choose == "random" else self._in_rounds(most)
        )
        clones = [
            self._clone(run, budget)
            for budget in budgets
            for run in self._train(
                chosen[: budget // self.stealing.repeats],
                self.out / "clones" / f"queries-{budget}",
                seeds=self.stealing.seeds,
            )
        ]
        tallies = oracle.ledger.tallies(oracle.target)
        asked = tallies[oracle.purpose]
        assert oracle.kind is not None
        return Theft(
            target=oracle.about.target,
            kind=oracle.kind,
            pool=self.images.name,
            test=self.dataset.config.source,
            net=self.net,
            choose=self.stealing.choose,
            repeats=self.stealing.repeats,
            price=oracle.price,
            spent=asked.queries,
            lost=asked.queries - asked.answered,
            answers_per_second=asked.answered / asked.seconds if asked.seconds > 0 else None,
            measuring=tallies[self.measuring.purpose].queries,
            victim_accuracy=_agreement(measured.labels, self._truth(measured.rows)),
            clones=tuple(clones),
            environment=environment(),
        )

    # Asking

    @cached_property
    def measured(self) -> Known:
        """What the victim says of some test images."""
        test, count = self.dataset.test, self.measuring.budget
        images = Kept(
            self.dataset.config.source, test, self.dataset.digest, channels=self.dataset.channels
        )
        order = generator(self.stealing.pool_seed, "fidelity").permutation(len(test))
        rows = sorted(order[:count].tolist())
        self._ask(self.measuring, images, rows, repeats=1)
        known = self._known(self.measuring, images, rows, repeats=1)
        if not known.rows:
            raise RunError("No test image was answered, so fidelity cannot be measured.")
        return known

    def _ask(self, oracle: Oracle, images: Pool, rows: Sequence[int], *, repeats: int) -> None:
        """As far as the budget goes: lost queries count, so it may end before the last image."""
        try:
            oracle.ask(images, rows, repeats=repeats)
        except BudgetSpent as spent:
            oracle.progress.say(str(spent))

    def _known(self, oracle: Oracle, images: Pool, rows: Sequence[int], *, repeats: int) -> Known:
        """What is known of these images."""
        answers = oracle.ledger.answers(oracle.target)
        kind = oracle.kind
        assert kind is not None
        found = [
            (row, [answer for repeat, answer in answers[content].items() if repeat < repeats])
            for row, content in zip(rows, images.contents(rows), strict=True)
            if content in answers
        ]
        kept = [(row, its) for row, its in found if its]
        if kind == "landmarks":  # where no face was found, nothing can be learned
            kept = [(row, its) for row, its in kept if np.isfinite(its).all()]
        if kind == "label" and repeats == 1:
            labels = np.array([its[0][0] for _, its in kept], np.int64)
            return Known([row for row, _ in kept], kind, labels)
        width = len(self.dataset.classes)
        values = np.full((len(kept), width), np.nan, np.float32)
        for place, (_, its) in enumerate(kept):
            if kind == "label":  # randomised labels: the share of votes for each class
                votes = np.bincount([int(it[0]) for it in its], minlength=width)
                values[place] = votes / votes.sum()
            elif len(its) == 1:
                values[place, : len(its[0])] = its[0]
            else:
                values[place, : len(its[0])] = np.mean(its, axis=0)
        soft: Kind = "probabilities" if kind == "label" else kind
        if kind == "landmarks":
            return Known([row for row, _ in kept], kind, values)
        return Known([row for row, _ in kept], soft, completed(soft, values))

    # Choosing

    def _at_random(self, most: int) -> list[int]:
        rows = self._shuffled(most)
        self._ask(self.oracle, self.images, rows, repeats=self.stealing.repeats)
        return rows

    def _shuffled(self, most: int) -> list[int]:
        """The first of a random order of the pool: smaller numbers lie inside larger ones."""
        if self.images.size is None:
            return list(range(most))
        order = generator(self.stealing.pool_seed, "queries").permutation(self.images.size)
        return [int(row) for row in order[:most]]

    def _in_rounds(self, most: int) -> list[int]:
        """A first round at random, each further one as the clone of all before it says."""
        size, stealing = self.stealing.round_size, self.stealing
        if self.images.size is None or stealing.choose == "random":
            raise ConfigError(f"{self.images.name} has no end to choose from; choose random.")
        choose = CHOOSERS[stealing.choose]
        rows = self._at_random(min(size, most))
        everything = np.arange(self.images.size)
        while len(rows) < most:
            [clone] = self._train(rows, self.out / "rounds", seeds=1)
            rest = np.setdiff1d(everything, rows)
            count = min(size, most - len(rows))
            places = choose(self._guesses(clone, rest), self._guesses(clone, rows), count)
            new = [int(row) for row in rest[places.numpy()]]
            self._ask(self.oracle, self.images, new, repeats=stealing.repeats)
            rows += new
        return rows

    def _guesses(self, clone: Run, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """A clone's probabilities for images of the pool."""
        device, precision = self.training.device, self.training.precision
        compute = settle(clone.network, device=device, precision=precision)
        shape = (self.dataset.channels, self.dataset.image_size, self.dataset.image_size)
        inference = Inference(clone.network, compute, Asking(), shape=shape)
        found = []
        with self.oracle.progress.task("looking for images to ask", len(rows), "images") as task:
            for start in range(0, len(rows), 1024):
                part = [int(row) for row in rows[start : start + 1024]]
                pixels = torch.from_numpy(self.images.images(part)).to(compute.device)
                found.append(inference(compute.pixels(pixels)).softmax(-1).cpu())
                task.advance(len(part))
        return torch.cat(found)

    # Training

    def _train(self, rows: Sequence[int], folder: Path, *, seeds: int) -> list[Run]:
        """Fresh clones on what is known of these images."""
        known = self._known(self.oracle, self.images, rows, repeats=self.stealing.repeats)
        if len(known.rows) < 2:
            raise RunError(f"Of {len(rows)} images {len(known.rows)} were answered; too few.")
        transfer = Transfer(
            known.kind,
            torch.from_numpy(known.values),
            victim=self.oracle.about.target,
            recipe=plan_id(
                {
                    "target": self.oracle.about.target,
                    "options": self.oracle.about.options,
                    "pool": self.images.digest,
                    "choose": self.stealing.choose,
                    "images": len(rows),
                    "repeats": self.stealing.repeats,
                }
            ),
            folder=self.out,
        )
        data = self._pairs(known.rows, transfer)
        orders = [
            Order(
                net=self.net,
                objective=self.objective,
                training=replace(self.training, seed=self.training.seed + number),
                asked=transfer,
                under=folder,
            )
            for number in range(seeds)
        ]
        oracle = self.oracle
        return make(
            orders, data, keeping=self.keeping, stopper=oracle.stopper, progress=oracle.progress
        )

    def _pairs(self, rows: Sequence[int], transfer: Transfer) -> Dataset:
        """The images of a transfer set as training data; what the victim says are its labels."""
        found = hashlib.sha256(self.dataset.digest.encode())
        for content in self.images.contents(rows):
            found.update(content)
        split = Split(
            torch.from_numpy(self.images.images(rows)), transfer.labels, torch.arange(len(rows))
        )
        config = replace(self.dataset.config, source=self.images.name)
        return replace(
            self.dataset,
            config=config,
            train=split,
            validation=None,
            digest=found.hexdigest()[:16],
            skipped=0,
        )

    # Measuring

    def _truth(self, places: Sequence[int]) -> np.ndarray:
        """The true labels of test images."""
        test = self.dataset.test
        labels: np.ndarray = test.labels[test.rows[torch.as_tensor(places)]].numpy()
        return labels

    def _clone(self, run: Run, queries: int) -> Clone:
        """A clone, measured against truth and victim."""
        measured, record = self.measured, run.record
        compute = settle(run.network, device=self.training.device, precision="fp32")
        split = self.dataset.test.take(np.array(measured.rows))
        answers = torch.cat([
            logits.cpu() for _, logits in answers_to(compute.place(run.network), split, compute)
        ])  # fmt: skip
        located = self.dataset.landmarks
        own = answers if located else answers.argmax(-1)
        measure = record.error if located else record.accuracy
        assert measure is not None
        assert record.data is not None
        assert record.seed is not None
        price = self.oracle.price
        return Clone(
            queries=queries,
            answers=record.data.train,
            money=None if price is None else price * queries,
            seed=record.seed,
            net=record.net.name,
            accuracy=measure,
            fidelity=_agreement(own.numpy(), measured.labels),
            folder=str(run.folder),
            id=record.id,
        )


def _agreement(some: np.ndarray, others: np.ndarray) -> Estimate:
    """The share of equal classes; of landmarks the mean distance, axis by axis."""
    if some.ndim == 2:
        return mean_over_images(np.abs(some - others).mean(axis=1).tolist())
    return proportion(int((some == others).sum()), len(some))
