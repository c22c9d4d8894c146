"""The result of a theft: the clones of one victim, and their cost."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from denature.answers.kinds import AnswerKind
from denature.core.errors import RunError
from denature.core.frames import Rows, Tabular, measured, percent
from denature.core.schema import decode
from denature.core.stats import Estimate, pooled
from denature.core.untrusted import read_json

LEDGER, RESULT, CLONES = "ledger.sqlite", "result.json", "clones"

FORMER = "theft.json"
"""Its name in folders that an earlier version wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clone:
    """One clone, trained from scratch on the answers to the first images within `budget`."""

    budget: int
    """Queries, with those for fidelity unless they came on top; see `Theft.fidelity_extra`."""
    answers: int
    """Training images; fewer than the budget by the test images that measure fidelity, and where
    queries were lost or repeated."""
    spent: int
    """Queries that were or may have been billed for these images, lost ones included."""
    money: float | None
    """Cost of these queries in US dollars."""
    seed: int
    net: str
    accuracy: Estimate
    """On the test split against true labels; for landmarks the error, as in `Record.error`."""
    fidelity: Estimate
    """Share of the measured test images on which clone and victim agree; for landmarks the mean
    distance between their answers."""
    folder: str
    id: str
    chosen_on: str = "none"
    """Split that chose the kept epoch; see `Record.chosen_on`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLevel:
    """All clones of one budget."""

    budget: int
    answers: int
    spent: int
    money: float | None
    accuracy: Estimate
    """Over seeds and test images; with one seed, over test images only."""
    fidelity: Estimate
    seeds: int


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Theft(Tabular):
    """A finished theft."""

    result_type: ClassVar[str] = "theft"
    target: str
    kind: AnswerKind
    pool: str
    test: str
    net: str
    choose: str
    repeats: int
    price: float | None
    """US dollars a query."""
    spent: int
    """Queries to learn from that were or may have been billed, lost ones included."""
    lost: int
    """Queries among them without an answer."""
    answers_per_second: float | None
    """During the queries; None where all answers were stored already."""
    measuring: int
    """Queries that measured fidelity, lost ones included."""
    victim_accuracy: Estimate
    """On the queried test images; for landmarks the error."""
    clones: tuple[Clone, ...]
    environment: dict[str, object]
    fidelity_extra: bool = True
    """Whether the queries for fidelity came on top of the budgets, as in all earlier thefts."""
    scope: str = ""
    """Scope and permission of the test, as stated by the caller."""
    measuring_lost: int = 0
    """Queries for fidelity without an answer."""
    date: str = ""
    """Day on which the theft ended, in UTC; empty in results of an earlier version."""

    @property
    def chosen_on_test(self) -> bool:
        """Whether test images chose the epochs of clones, which a real attacker cannot do."""
        return any(clone.chosen_on == "test" for clone in self.clones)

    @property
    def levels(self) -> list[BudgetLevel]:
        """The clones grouped by budget."""
        levels = []
        bounds = (0.0, math.inf) if self.kind == "landmarks" else (0.0, 1.0)
        for budget in sorted({clone.budget for clone in self.clones}):
            same = [clone for clone in self.clones if clone.budget == budget]
            first = same[0]
            levels.append(
                BudgetLevel(
                    budget=budget,
                    answers=first.answers,
                    spent=first.spent,
                    money=first.money,
                    accuracy=pooled([clone.accuracy for clone in same], bounds=bounds),
                    fidelity=pooled([clone.fidelity for clone in same], bounds=bounds),
                    seeds=len(same),
                )
            )
        return levels

    @property
    def summary(self) -> str:
        last = self.levels[-1]
        score = "error" if self.kind == "landmarks" else "accuracy"
        return (
            f"{self.net} cloned from {self.target}, with {last.spent:,} queries {score} "
            f"{percent(last.accuracy)}, {score} of the victim {percent(self.victim_accuracy)}"
        )

    def rows(self) -> Rows:
        score = "error" if self.kind == "landmarks" else "accuracy"
        return [
            {
                "budget": level.budget,
                "answers": level.answers,
                "queries": level.spent,
                "dollars": level.money,
                **measured(score, level.accuracy),
                **measured("distance" if self.kind == "landmarks" else "fidelity", level.fidelity),
                "seeds": level.seeds,
            }
            for level in self.levels
        ]

    def to_json(self, *, indent: int | None = None) -> str:
        plain = {"result_type": self.result_type, **asdict(self)}
        return json.dumps(plain, indent=indent, allow_nan=False)


def read_theft(folder: Path) -> Theft | None:
    """The theft in a folder; None for a folder without one.

    Raises:
        RunError: the file of the result is damaged.
    """
    path = next((path for name in (RESULT, FORMER) if (path := folder / name).is_file()), None)
    if path is None:
        return None
    try:
        raw = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    if isinstance(raw, dict) and raw.get("result_type", Theft.result_type) != Theft.result_type:
        return None
    theft: Theft = decode(Theft, raw, where=str(path))
    clones = [replace(clone, folder=_found(folder, clone.folder)) for clone in theft.clones]
    return replace(theft, clones=tuple(clones))


def _found(folder: Path, named: str) -> str:
    """A clone's folder, which the file may name from the theft's on."""
    return str(folder / named) if (folder / named).is_dir() else named
