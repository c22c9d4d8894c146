"""A theft from the first query to the last clone."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.sources import Kind
from denature.answers.transfer import Transfer
from denature.core.classes import align
from denature.core.compute import resolve
from denature.core.errors import ConfigError, RunError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.record import environment
from denature.core.schema import encode
from denature.core.seeds import generator
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.extract.choosing import CHOOSERS
from denature.extract.config import ExtractionConfig, RequestConfig
from denature.extract.ledger import BudgetSpent, Ledger
from denature.extract.oracle import Oracle
from denature.extract.pool import BLOCK, NOISE, Pool, StoredPool, open_pool
from denature.extract.reading import combined
from denature.extract.theft import LEDGER, RESULT, Clone, Theft
from denature.extract.victims.base import Victim, VictimInfo, run_now
from denature.extract.victims.protocol import FORMS
from denature.nets import create
from denature.train.config import Training
from denature.train.identity import plan_id
from denature.train.loop import answers_to
from denature.train.objectives.cloned import Cloned
from denature.train.order import Order
from denature.train.run import Run
from denature.train.runs import make
from denature.train.session import Session

PLAN = "plan.json"

LARGEST = 1024
"""Pixels a side of a service's input that need no --image-size; all images are resized to it."""


class AnsweredSet(NamedTuple):
    """Answered images, and their answers as `combined` returns them."""

    rows: list[int]
    kind: Kind
    values: np.ndarray
    says: np.ndarray
    """The victim's predictions: classes, or landmarks."""


def steal(
    victim: Victim,
    *,
    net: str,
    backbone: Run | str | None = None,
    pool: str | DataConfig,
    budgets: Sequence[int],
    out: str | Path,
    test: str | DataConfig | None = None,
    stealing: ExtractionConfig | None = None,
    pace: RequestConfig | None = None,
    objective: Cloned | None = None,
    training: Training | None = None,
    price: float | None = None,
    session: Session | None = None,
) -> Theft:
    """Query a victim with images, and train clones on its answers.

    All answers are stored in `out`. A repeated call resumes a stopped theft, a larger budget sends
    the missing queries only, and finished clones are not trained again.

    Args:
        victim: the model to copy; see `denature.extract.victims`.
        net: the clone's network.
        backbone: initial weights of all layers but the last; see `denature.train.Order`.
        pool: source of the query images, of which the training split is used; `noise` for noise.
        budgets: numbers of queries; a fresh clone is trained for each, on its first answers.
        out: folder for ledger, clones and result.
        test: labelled images for the evaluation; the pool's own by default, where it has as many
            classes as the victim.
        stealing: selection of the queries, and number of clones.
        pace: rate, concurrency and retries of the requests.
        objective: training objective of the clone.
        training: settings of its training; the seed is the first clone's.
        price: US dollars a query.
        session: saved states, stops, workers and progress.

    Raises:
        DenatureError: see `denature.core.errors`; received answers are stored.
    """
    session = session or Session()
    stealing, training, objective = (
        stealing or ExtractionConfig(),
        training or Training(),
        objective or Cloned(),
    )
    budgets = sorted(set(budgets))
    if not budgets or budgets[0] // stealing.repeats < 2:
        raise ConfigError(
            f"budgets are {budgets}, with {stealing.repeats} queries an image; wanted is at least "
            "one budget, for at least two images."
        )
    if price is not None and not 0 <= price < math.inf:
        raise ConfigError(f"price is {price}; it must be at least 0, and finite.")
    about = about_of(victim)
    source = pool if isinstance(pool, DataConfig) else DataConfig(source=pool)
    dataset = _test_data(test, source, about, session.progress)
    about = fitted(about, dataset, session.progress)
    # A network that cannot be built fails here, before any query is paid for.
    create(
        net,
        classes=len(dataset.classes),
        channels=dataset.channels,
        image_size=dataset.image_size,
    )
    images = open_pool(
        source,
        channels=dataset.channels,
        image_size=dataset.image_size,
        seed=stealing.pool_seed,
        progress=session.progress,
    )
    if images.size is None and stealing.choose != "random":
        raise ConfigError(
            f"{images.name} is unlimited, so no round can choose from it; choose random."
        )
    start = backbone.digest if isinstance(backbone, Run) else backbone
    _claim(Path(out), about, images, stealing, net, start, training, objective)
    with Ledger(Path(out) / LEDGER) as ledger:
        measuring = Oracle(
            victim=victim,
            ledger=ledger,
            about=about,
            budget=2 * stealing.fidelity,  # lost queries are sent once more
            purpose="measure",
            pace=pace or RequestConfig(),
            price=price,
            stopper=session.stopper,
            progress=session.progress,
        )
        thief = Thief(
            oracle=replace(measuring, budget=budgets[-1], purpose="train"),
            measuring=measuring,
            images=images,
            dataset=dataset,
            stealing=stealing,
            net=net,
            backbone=backbone,
            objective=objective,
            training=training,
            session=session,
            out=Path(out),
        )
        theft = thief.steal(budgets)
    write_text(Path(out) / RESULT, theft.to_json(indent=1) + "\n")
    return theft


def about_of(victim: Victim) -> VictimInfo:
    """Description of a victim, obtained without a query."""

    async def find_out() -> VictimInfo:
        async with victim:
            return await victim.about()

    return run_now(find_out())


def _test_data(
    test: str | DataConfig | None, pool: DataConfig, about: VictimInfo, progress: Progress
) -> Dataset:
    """Labelled images in the victim's input shape."""
    config = DataConfig(source=test) if isinstance(test, str) else test or pool
    if config.source == NOISE:
        raise ConfigError("Noise has no labels to measure with; name labelled images with --test.")
    size = config.image_size or about.image_size
    if size is not None and config.image_size is None and size > LARGEST:
        raise ConfigError(
            f"{about.target} takes images of {size} pixels a side; if this is intended, pass "
            f"--image-size {size}."
        )
    return load(replace(config, image_size=size), progress=progress)


def check_about(about: VictimInfo, dataset: Dataset) -> None:
    """Check that labelled images fit a victim, so that they can measure it.

    Raises:
        ConfigError: the images have other classes or another shape than the victim.
    """
    source = dataset.config.source
    if about.kind is not None and (about.kind == "landmarks") != dataset.landmarks:
        raise ConfigError(
            f"{about.target} answers with {about.kind}, and the labels of {source} are "
            f"{'landmarks' if dataset.landmarks else 'classes'}. Name other labelled images with "
            "--test."
        )
    classes = about.classes or len(about.names) or None
    if classes not in (None, len(dataset.classes)):
        raise ConfigError(
            f"{source} has {len(dataset.classes)} classes, {about.target} knows "
            f"{classes}. Name labelled images of its classes with --test."
        )
    if about.channels not in (None, dataset.channels):
        raise ConfigError(
            f"{source} has images of {dataset.channels} channels, {about.target} takes "
            f"{about.channels}. Name other labelled images with --test."
        )


def fitted(about: VictimInfo, dataset: Dataset, progress: Progress = SILENT) -> VictimInfo:
    """Description of a victim, with the order that maps its answers to a data set's classes.

    Raises:
        ConfigError: the victim has other classes; see `check_about`.
    """
    check_about(about, dataset)
    alignment = align(
        about.names or None, dataset.classes, who=about.target, data=dataset.config.source
    )
    if alignment.note is not None and about.unread is not None:
        progress.say(
            f"{about.target} names its classes in a form that is not known here ({about.unread}); "
            f"known are {FORMS}. So they cannot be compared with those of "
            f"{dataset.config.source}, and class 0 of one is taken for class 0 of the other, and "
            "so on. Check that both use the same order."
        )
    elif alignment.note is not None:
        progress.say(alignment.note)
    return replace(about, classes=len(dataset.classes), order=alignment.order)


def _claim(
    out: Path,
    about: VictimInfo,
    images: Pool,
    stealing: ExtractionConfig,
    net: str,
    start: str | None,
    training: Training,
    objective: Cloned,
) -> None:
    """Bind a folder to this theft, whose budget may grow.

    Raises:
        RunError: the folder holds another theft.
    """
    plan: dict[str, Any] = {
        "target": about.target,
        "options": about.options,
        "pool": f"{images.name} {images.digest}",
        "choose": stealing.choose,
        "repeats": stealing.repeats,
        "pool_seed": stealing.pool_seed,
    }
    if stealing.choose != "random":  # clones choose the queries, so their training counts
        plan |= {"round_size": stealing.round_size, "net": net, "objective": encode(objective)}
        plan |= {"training": encode(training), "backbone": start}
    path = out / PLAN
    if not path.exists():
        write_text(path, json.dumps(plan, indent=1) + "\n")
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}. Name another folder with --out.") from None
    if before != plan:
        changed = [
            f"{key} was {before.get(key)}, is {plan.get(key)}"
            for key in dict.fromkeys((*before, *plan))
            if before.get(key) != plan.get(key)
        ]
        raise RunError(
            f"{out} holds another theft: {'; '.join(changed)}. Name another folder with --out."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Thief:
    """Queries, selection, training and evaluation of a theft; see `steal` for the fields."""

    oracle: Oracle
    measuring: Oracle
    images: Pool
    dataset: Dataset
    stealing: ExtractionConfig
    net: str
    backbone: Run | str | None
    objective: Cloned
    training: Training
    session: Session
    out: Path

    def steal(self, budgets: Sequence[int]) -> Theft:
        """Run the whole theft; `budgets` must ascend."""
        measured, oracle = self.measured, self.oracle
        most = budgets[-1] // self.stealing.repeats
        at_random = self.stealing.choose == "random"
        chosen = self._at_random(most) if at_random else self._in_rounds(most)
        clones = []
        for budget in budgets:
            rows = chosen[: budget // self.stealing.repeats]
            spent = oracle.ledger.cost(
                oracle.target, self.images.contents(rows), repeats=self.stealing.repeats
            )
            folder = self.out / "clones" / f"queries-{budget}"
            runs = self._train(rows, folder, seeds=self.stealing.seeds)
            clones += [self._clone(run, budget, spent) for run in runs]
        tallies = oracle.ledger.tallies(oracle.target)
        tally = tallies[oracle.purpose]
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
            spent=tally.queries,
            lost=tally.queries - tally.answered,
            answers_per_second=oracle.answered / oracle.seconds if oracle.answered else None,
            measuring=tallies[self.measuring.purpose].queries,
            victim_accuracy=_agreement(measured.says, self._truth(measured.rows)),
            clones=tuple(clones),
            environment=environment(),
        )

    # Queries

    @cached_property
    def measured(self) -> AnsweredSet:
        """The victim's answers to a sample of test images."""
        images, count = self._tests, self.stealing.fidelity
        order = generator(self.stealing.pool_seed, "fidelity").permutation(images.size)
        rows = sorted(order[:count].tolist())
        self._ask(self.measuring, images, rows, repeats=1)
        known = self._known(self.measuring, images, rows, repeats=1)
        if not known.rows:
            raise RunError(
                f"No test image was answered with {self.measuring.budget:,} queries, so fidelity "
                "cannot be measured. Take a larger --fidelity."
            )
        if (lost := len(rows) - len(known.rows)) > 0:
            self.measuring.progress.say(f"{lost:,} test images were not answered.")
        return known

    @cached_property
    def _tests(self) -> StoredPool:
        data = self.dataset
        return StoredPool(data.config.source, data.test, data.digest, channels=data.channels)

    def _ask(self, oracle: Oracle, images: Pool, rows: Sequence[int], *, repeats: int) -> None:
        """Query as far as the budget goes; lost queries count, so the last images may remain."""
        try:
            oracle.ask(images, rows, repeats=repeats)
        except BudgetSpent as spent:
            oracle.progress.say(str(spent))

    def _known(
        self, oracle: Oracle, images: Pool, rows: Sequence[int], *, repeats: int
    ) -> AnsweredSet:
        """The stored answers to these images."""
        answers, kind = oracle.ledger.answers(oracle.target), oracle.kind
        kept: list[int] = []
        given: list[list[np.ndarray]] = []
        for row, content in zip(rows, images.contents(rows), strict=True):
            stored = answers.get(content, {})
            values = [value for repeat, value in stored.items() if repeat < repeats]
            if kind == "landmarks":  # an answer without a detected face is no training target
                values = [value for value in values if np.isfinite(value).all()]
            if values:
                kept.append(row)
                given.append(values)
        if kind is None or not kept:
            return AnsweredSet([], "label", np.empty(0, np.int64), np.empty(0, np.int64))
        about, width = oracle.about, len(self.dataset.classes)
        return AnsweredSet(kept, *combined(kind, given, classes=width, order=about.order))

    # Selection

    def _at_random(self, most: int) -> list[int]:
        rows = list(itertools.islice(self._shuffled(), most))
        if len(rows) < most:
            raise ConfigError(
                f"{most:,} images are wanted, and {self.images.name} has {len(rows):,} that differ "
                "from each other and from the test images. Take a smaller budget or a larger pool."
            )
        self._ask(self.oracle, self.images, rows, repeats=self.stealing.repeats)
        return rows

    def _shuffled(self) -> Iterator[int]:
        """A random order of the pool, without test images and duplicates."""
        if self.images.size is None:
            yield from itertools.count()
            return
        seen = set(self._tests.contents(range(self._tests.size)))
        order = generator(self.stealing.pool_seed, "queries").permutation(self.images.size)
        for start in range(0, len(order), BLOCK):
            rows = order[start : start + BLOCK].tolist()
            for row, content in zip(rows, self.images.contents(rows), strict=True):
                if content not in seen:
                    seen.add(content)
                    yield row

    def _in_rounds(self, most: int) -> list[int]:
        """A random first round; the clone of all rounds before chooses each further round."""
        size, stealing = self.stealing.round_size, self.stealing
        assert stealing.choose != "random"
        choose, rows = CHOOSERS[stealing.choose], self._at_random(min(size, most))
        everything = np.array(sorted(self._shuffled()))
        if len(everything) < most:
            raise ConfigError(
                f"{most:,} images are wanted, and {self.images.name} has {len(everything):,}."
            )
        while len(rows) < most:
            [clone] = self._train(rows, self.out / "rounds", seeds=1)
            rest = np.setdiff1d(everything, rows)
            count = min(size, most - len(rows))
            guesses = self._guesses(clone, [*rest.tolist(), *rows])
            places = choose(guesses[: len(rest)], guesses[len(rest) :], count)
            new = [int(row) for row in rest[places.numpy()]]
            self._ask(self.oracle, self.images, new, repeats=stealing.repeats)
            rows += new
        return rows

    def _guesses(self, clone: Run, rows: Sequence[int]) -> torch.Tensor:
        """A clone's probabilities for images of the pool."""
        device, precision = self.training.device, self.training.precision
        compute = resolve(clone.network, device=device, precision=precision)
        shape = (self.dataset.channels, self.dataset.image_size, self.dataset.image_size)
        inference = Inference(clone.network, compute, InferenceConfig(), shape=shape)
        guesses = []
        with self.oracle.progress.task("choosing images to query", len(rows), "images") as task:
            for start in range(0, len(rows), BLOCK):
                part = rows[start : start + BLOCK]
                pixels = torch.from_numpy(self.images.images(part)).to(compute.device)
                guesses.append(inference(compute.pixels(pixels)).softmax(-1).cpu())
                task.advance(len(part))
        return torch.cat(guesses)

    # Training

    def _train(self, rows: Sequence[int], folder: Path, *, seeds: int) -> list[Run]:
        """Fresh clones, trained on the stored answers to these images."""
        known = self._known(self.oracle, self.images, rows, repeats=self.stealing.repeats)
        if len(known.rows) < 2:
            raise RunError(
                f"{len(known.rows)} of {len(rows)} images were answered; wanted are 2 or more."
            )
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
                source=transfer,
                backbone=self.backbone,
                under=folder,
            )
            for number in range(seeds)
        ]
        return make(orders, data, session=self.session)

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

    # Evaluation

    def _truth(self, places: Sequence[int]) -> np.ndarray:
        """The true labels of test images."""
        test = self.dataset.test
        labels: np.ndarray = test.labels[test.rows[torch.as_tensor(places)]].numpy()
        return labels

    def _clone(self, run: Run, budget: int, spent: int) -> Clone:
        """A clone with its accuracy and its fidelity to the victim."""
        measured, record = self.measured, run.record
        compute = resolve(run.network, device=self.training.device, precision="fp32")
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
            budget=budget,
            answers=record.data.train,
            spent=spent,
            money=None if price is None else price * spent,
            seed=record.seed,
            net=record.net.name,
            accuracy=measure,
            fidelity=_agreement(own.numpy(), measured.says),
            folder=str(run.folder),
            id=record.id,
            chosen_on=record.chosen_on,
        )


def _agreement(answers: np.ndarray, references: np.ndarray) -> Estimate:
    """The share of equal classes; for landmarks the mean distance, axis by axis."""
    if answers.ndim == 2:
        return mean_over_images(np.abs(answers - references).mean(axis=1).tolist())
    return proportion(int((answers == references).sum()), len(answers))
