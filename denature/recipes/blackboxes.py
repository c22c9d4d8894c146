"""Victims as black boxes for attacks: each query is counted in a ledger, within a budget."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
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
from denature.extract.asking.limits import in_dollars
from denature.extract.asking.oracle import UNLIMITED, Oracle
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
    """Limits, attack configuration and pace for attacking victims."""

    max_queries: int | None
    """Queries of each victim at most; those of earlier calls count."""
    prices: Mapping[int, float | None]
    """US dollars a query of each victim, by its `id`."""
    max_cost: float | None
    """US dollars for the queries to all victims; those of earlier calls count."""
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

    @property
    def dollars(self) -> float:
        """US dollars for all queries so far; those without a price of their own at the present."""
        return self.oracle.ledger.spending.dollars(self.oracle.target, self.oracle.price)


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
        ConfigError: the limits are too small to classify the samples once, or the data does not fit
            a victim.
        AskFailed: a victim does not answer.
    """
    budget = check_limits(terms, data, len(images))
    oracles: list[Oracle] = []
    with Ledger(ledger) as opened_ledger:
        boxes = {
            id(victim): _box(victim, data, images, opened_ledger, budget, terms, oracles)
            for victim in victims
        }
        if terms.max_cost is not None:
            # Before the attacks on one of them spend what the samples of the next need.
            for box in boxes.values():
                box.target.says(images)
        yield boxes


def most_queries(names: Sequence[str], config: AttackConfig, *, channels: int, count: int) -> int:
    """Queries of a black box that classify `count` samples and attack them all, at most."""
    return int(cost(names, config, channels=channels).answers) * count + count + TWICE


def check_limits(terms: Terms, data: Dataset, count: int) -> int:
    """The query budget of each victim.

    Raises:
        ConfigError: the limits are too small to classify `count` samples once.
    """
    minimum = count + TWICE
    names = terms.attack_config.attacks or BLACK_BOX_ATTACKS
    maximum = most_queries(names, terms.attack_config, channels=data.channels, count=count)
    needs = (
        f"a black box needs {minimum:,} queries to classify {count} samples, and at most "
        f"{maximum:,} for all attacks on them"
    )
    fewer = "fewer samples (--samples) need fewer queries."
    unlimited = terms.max_queries is None and terms.max_cost is not None
    budget = UNLIMITED if unlimited else terms.max_queries
    if budget is None or budget < minimum:
        raise ConfigError(
            f"--max-queries is {terms.max_queries or 'not set'}; {needs}. Set it; {fewer}"
        )
    least = minimum * sum(price or 0.0 for price in terms.prices.values())
    if terms.max_cost is not None and terms.max_cost < least:
        raise ConfigError(
            f"--max-cost is {terms.max_cost:g}; {needs}, and the least costs {in_dollars(least)} "
            f"for all black boxes. Raise it; {fewer}"
        )
    return budget


def _box(
    victim: Victim,
    data: Dataset,
    images: Pixels,
    ledger: Ledger,
    budget: int,
    terms: Terms,
    oracles: list[Oracle],
) -> Box:
    """A victim's black box, whose oracle joins the others."""
    about = fitted(about_of(victim), data, terms.progress)
    oracle = Oracle(
        victim=victim,
        ledger=ledger,
        about=about,
        budget=budget,
        purpose=PURPOSE,
        pace=terms.pace,
        price=terms.prices.get(id(victim)),
        max_cost=terms.max_cost,
        beside=oracles,
        stopper=terms.stopper,
    )
    oracles.append(oracle)
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
