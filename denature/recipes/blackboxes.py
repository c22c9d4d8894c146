"""Victims as somebody whose answers are attacked: within a budget, and with a ledger."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.core.stopping import Stopper
from denature.core.types import Pixels
from denature.data import Dataset
from denature.extract.asker import QuerySender
from denature.extract.config import RequestConfig
from denature.extract.ledger import BudgetSpent, Ledger
from denature.extract.oracle import Oracle
from denature.extract.stealing import about_of, fitted
from denature.extract.victims.base import Victim
from denature.robust.blackbox import TWICE, BlackBox, OutOfQueries, Reply
from denature.robust.catalogue import BLACK_BOX_ATTACKS
from denature.robust.config import AttackConfig
from denature.robust.estimate import cost

PURPOSE = "attack"


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """On which terms victims are asked."""

    budget: int | None
    """Queries of each, those of earlier calls counted."""
    asked: AttackConfig
    pace: RequestConfig
    stopper: Stopper
    progress: Progress = SILENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A black box, and who asks it."""

    target: BlackBox
    oracle: Oracle

    @property
    def spent(self) -> int:
        """Queries so far."""
        return self.oracle.ledger.spent(self.oracle.target, self.oracle.purpose)


@contextmanager
def opened(
    victims: Sequence[Victim], data: Dataset, images: Pixels, ledger: Path, terms: Terms
) -> Iterator[dict[int, Box]]:
    """A black box for each victim, by its `id`; what they answer is kept in one ledger.

    Args:
        victims: who is asked.
        data: with the classes that they know.
        images: the samples that will be attacked, in [0, 1].
        ledger: its file.
        terms: see `Terms`.

    Raises:
        ConfigError: a budget that is not enough to look at the samples, or other data.
        AskFailed: a victim that does not answer.
    """
    budget = _enough(terms, data, len(images))
    with Ledger(ledger) as book:
        yield {id(it): _box(it, data, images, book, budget, terms) for it in victims}


def _enough(terms: Terms, data: Dataset, count: int) -> int:
    least = count + TWICE
    if terms.budget is not None and terms.budget >= least:
        return terms.budget
    names = terms.asked.attacks or BLACK_BOX_ATTACKS
    most = int(cost(names, terms.asked, channels=data.channels).answers) * count + least
    raise ConfigError(
        f"The budget is {terms.budget or 'not said'}; a black box needs {least:,} queries to look "
        f"at {count} samples, and at most {most:,} for all attacks on them. Say it with --budget; "
        "fewer samples, with --samples, need fewer."
    )


def _box(
    victim: Victim, data: Dataset, images: Pixels, ledger: Ledger, budget: int, terms: Terms
) -> Box:
    about = fitted(about_of(victim), data, terms.progress)
    if about.image_size not in (None, data.image_size):
        raise ConfigError(
            f"{about.target} takes images of {about.image_size} pixels a side, these have "
            f"{data.image_size}. Pass --image-size {about.image_size}."
        )
    oracle = Oracle(
        victim=victim,
        ledger=ledger,
        about=about,
        budget=budget,
        purpose=PURPOSE,
        pace=terms.pace,
        stopper=terms.stopper,
    )
    asker = QuerySender(oracle)

    def ask(images: np.ndarray, before: int) -> Reply:
        try:
            kind, values, says = asker(images, before)
        except BudgetSpent as spent:
            raise OutOfQueries(str(spent)) from None
        if kind == "label":
            return Reply(says, None)
        return Reply(says, values, probabilities=kind == "probabilities")

    said = [about.target, about.options, *([] if about.order is None else [about.order])]
    known = json.dumps(said, sort_keys=True)
    digest = hashlib.sha256(known.encode()).hexdigest()[:16]
    target = BlackBox(ask, about.target, digest, images, classes=len(data.classes))
    return Box(target=target, oracle=oracle)
