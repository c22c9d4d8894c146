"""What a theft came to: the clones of one victim, and what they cost."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from denature.answers.sources import Kind
from denature.core.errors import RunError
from denature.core.schema import decode
from denature.core.stats import Estimate, pooled

LEDGER, RESULT = "ledger.sqlite", "theft.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clone:
    """One clone, trained anew on the answers to the first images that `budget` allows."""

    budget: int
    answers: int
    """Images it learned from; fewer than the budget where queries were lost or repeated."""
    spent: int
    """Queries that were or may have been billed for these images, lost ones among them."""
    money: float | None
    """What those cost in US dollars."""
    seed: int
    net: str
    accuracy: Estimate
    """On the test split, against true labels; of landmarks the error, as `Record.error` has it."""
    fidelity: Estimate
    """Share of the measured test images on which it says what the victim says; of landmarks its
    mean distance from what the victim says."""
    folder: str
    id: str
    chosen_on: str = "none"
    """Which split chose the epoch that was kept; see `Record.chosen_on`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLevel:
    """All clones of one budget."""

    budget: int
    answers: int
    spent: int
    money: float | None
    accuracy: Estimate
    """Over seeds and test images; over test images where there is one seed."""
    fidelity: Estimate
    seeds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Theft:
    """A finished theft."""

    target: str
    kind: Kind
    pool: str
    test: str
    net: str
    choose: str
    repeats: int
    price: float | None
    """Of one query in US dollars."""
    spent: int
    """Queries that were or may have been billed, lost ones among them."""
    lost: int
    """Of those without an answer."""
    answers_per_second: float | None
    """While it was asked; None where nothing had to be asked any more."""
    measuring: int
    """Queries for measuring fidelity, on a budget of their own."""
    victim_accuracy: Estimate
    """On the test images about which it was asked; of landmarks its error."""
    clones: tuple[Clone, ...]
    environment: dict[str, object]

    @property
    def chosen_on_test(self) -> bool:
        """Whether epochs of clones were chosen by the test images, as attackers cannot."""
        return any(clone.chosen_on == "test" for clone in self.clones)

    @property
    def levels(self) -> list[BudgetLevel]:
        """The clones of each budget together."""
        found = []
        for budget in sorted({clone.budget for clone in self.clones}):
            same = [clone for clone in self.clones if clone.budget == budget]
            first = same[0]
            found.append(
                BudgetLevel(
                    budget=budget,
                    answers=first.answers,
                    spent=first.spent,
                    money=first.money,
                    accuracy=pooled([clone.accuracy for clone in same]),
                    fidelity=pooled([clone.fidelity for clone in same]),
                    seeds=len(same),
                )
            )
        return found

    def to_json(self, *, indent: int | None = None) -> str:
        return json.dumps(asdict(self), indent=indent, allow_nan=False)


def read_theft(path: Path) -> Theft:
    """A theft's result.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    return decode(Theft, raw, where=str(path))
