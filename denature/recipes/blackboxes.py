"""Victims as black boxes for attacks: each query is counted in a ledger, within a budget."""

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
from denature.extract.asking.ledger import BudgetSpent, Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.sender import QuerySender
from denature.extract.compatibility import about_of, fitted
from denature.extract.victims.base import Victim
from denature.remote.config import RequestConfig
from denature.robust.blackbox import TWICE, BlackBox, OutOfQueries, Reply
from denature.robust.catalogue import BLACK_BOX_ATTACKS
from denature.robust.config import AttackConfig
from denature.robust.estimate import cost

PURPOSE = "attack"


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Query budget, attack configuration and pace for attacking victims."""

    budget: int | None
    """Query budget of each victim; queries of earlier calls count."""
    attack_config: AttackConfig
    pace: RequestConfig
    stopper: Stopper
    progress: Progress = SILENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A black box, and the oracle that sends its queries."""

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
    """Open a black box for each victim, by its `id`; one ledger stores all answers.

    Args:
        victims: the models under attack.
        data: its classes are those that the victims predict.
        images: the samples that will be attacked, in [0, 1].
        ledger: file of the ledger.
        terms: see `Terms`.

    Raises:
        ConfigError: the budget is too small to classify the samples once, or the data does not fit
            a victim.
        AskFailed: a victim does not answer.
    """
    budget = _enough(terms, data, len(images))
    with Ledger(ledger) as opened_ledger:
        yield {
            id(victim): _box(victim, data, images, opened_ledger, budget, terms)
            for victim in victims
        }


def _enough(terms: Terms, data: Dataset, count: int) -> int:
    minimum = count + TWICE
    if terms.budget is not None and terms.budget >= minimum:
        return terms.budget
    names = terms.attack_config.attacks or BLACK_BOX_ATTACKS
    maximum = (
        int(cost(names, terms.attack_config, channels=data.channels).answers) * count + minimum
    )
    raise ConfigError(
        f"The budget is {terms.budget or 'not set'}; a black box needs {minimum:,} queries to "
        f"classify {count} samples, and at most {maximum:,} for all attacks on them. Set --budget; "
        "fewer samples (--samples) need fewer queries."
    )


def _box(
    victim: Victim, data: Dataset, images: Pixels, ledger: Ledger, budget: int, terms: Terms
) -> Box:
    about = fitted(about_of(victim), data, terms.progress)
    oracle = Oracle(
        victim=victim,
        ledger=ledger,
        about=about,
        budget=budget,
        purpose=PURPOSE,
        pace=terms.pace,
        stopper=terms.stopper,
    )
    sender = QuerySender(oracle)

    def ask(images: np.ndarray, before: int) -> Reply:
        try:
            kind, values, labels = sender(images, before)
        except BudgetSpent as spent:
            raise OutOfQueries(str(spent)) from None
        if kind == "label":
            return Reply(labels, None)
        return Reply(labels, values, probabilities=kind == "probabilities")

    identity = [about.target, about.options, *([] if about.order is None else [about.order])]
    encoded = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(encoded.encode()).hexdigest()[:16]
    target = BlackBox(ask, about.target, digest, images, classes=len(data.classes))
    return Box(target=target, oracle=oracle)
