"""The bill of a theft before it is spent: queries, attempts, dollars and time."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from denature.core.progress import format_seconds
from denature.core.record import RECORD
from denature.core.text import counted
from denature.extract.asking.answered import ask_within_budget
from denature.extract.asking.bill import Bill
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.pool import BLOCK
from denature.extract.levels import Division
from denature.extract.measure import reference_rows
from denature.extract.planning import PlannedTheft
from denature.extract.theft import CLONES, LEDGER
from denature.recipes.estimate import training_seconds
from denature.train import Normal, Order


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class TheftEstimate:
    """What is left of a theft, at most."""

    bill: Bill
    division: Division
    clones: int
    """Networks that are left to train, those that choose queries in rounds included."""
    training_s: float
    """Seconds of their training, one after another."""
    probed: int = 0
    """Queries that were sent for this estimate; they are part of the theft."""

    def lines(self) -> list[str]:
        levels = ", ".join(
            f"{level.budget:,} queries (learns from {level.queries // self.division.repeats:,} "
            "images)"
            for level in self.division.levels
        )
        asked = f"{self.probed:,} queries were sent to time one request; they are kept."
        untimed = self.bill.queries and self.bill.seconds() is None
        hint = (
            f"--probe times one request of the theft, of up to {self.bill.per_request} queries, "
            "which count and whose answers are kept."
        )
        return [
            *[self.division.note] * bool(self.division.note),
            f"Budgets: {levels}.",
            *[asked] * bool(self.probed),
            *self.bill.lines(),
            *[hint] * bool(untimed),
            f"Time of the training: {format_seconds(self.training_s)} for "
            f"{counted(self.clones, 'network')}, by a few steps timed on this machine.",
        ]

    def to_dict(self) -> Mapping[str, Any]:
        """Numbers for other programs; dollars and seconds are None where they are not known."""
        timed = self.bill.seconds()
        return {
            "queries": self.bill.queries,
            "queries_at_most": self.bill.most,
            "learning": self.bill.parts[0].left,
            "fidelity": self.bill.parts[1].left,
            "requests": self.bill.requests,
            "attempts": self.bill.attempts,
            "dollars_at_most": self.bill.dollars,
            "answering_s": None if timed is None else timed[0],
            "training_s": self.training_s,
            "clones": self.clones,
            "probed": self.probed,
        }


def estimate_theft(planned: PlannedTheft, *, probe: bool = False) -> TheftEstimate:
    """Estimate what is left of a theft.

    Args:
        planned: the theft.
        probe: send its first request, if none was answered yet, to time the victim. The queries
            count, and their answers are kept; without it no query is sent.

    Raises:
        ConfigError: `max_cost` pays for no theft.
        AskFailed, Stopped: see `denature.extract.asking.oracle.Oracle.ask`, with `probe`.
    """
    with _ledger(planned, written=probe) as ledger:
        division = planned.division(ledger)
        oracle = planned.oracle(ledger, division)
        before = ledger.spending.queries(oracle.target)
        if probe and not ledger.latency(oracle.target)[0]:
            measuring = planned.measuring(oracle, division)
            first = min(division.fidelity, measuring.per_request)
            seed = planned.stealing.pool_seed
            rows = reference_rows(planned.tests, images=first, seed=seed)
            ask_within_budget(measuring, planned.tests, rows)
        probed = ledger.spending.queries(oracle.target) - before
        bill = planned.bill(oracle, division)
    sizes, rounds = list(_sizes(planned, division)), _rounds(planned, division)
    return TheftEstimate(
        bill=bill,
        division=division,
        clones=len(sizes) + len(rounds),
        training_s=_training_seconds(planned, sizes, rounds) if sizes or rounds else 0.0,
        probed=probed,
    )


@contextmanager
def _ledger(planned: PlannedTheft, *, written: bool) -> Iterator[Ledger]:
    """The theft's ledger; an empty one elsewhere if it has none, and nothing is to be written."""
    if written or (planned.out / LEDGER).exists():
        with planned.open_ledger() as ledger:
            yield ledger
        return
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / LEDGER) as ledger:
        yield ledger


def _sizes(planned: PlannedTheft, division: Division) -> Iterator[int]:
    """Training images of each clone that is left to train."""
    stealing = planned.stealing
    for level in division.levels:
        folder = planned.out / CLONES / f"queries-{level.queries}"
        finished = _finished(folder)
        yield from [level.queries // stealing.repeats] * max(0, stealing.seeds - finished)


def _rounds(planned: PlannedTheft, division: Division) -> list[int]:
    """Training images of each round's network that is left to train; one follows another."""
    if planned.selection.select is None:
        return []
    stealing = planned.stealing
    most = division.levels[-1].queries // stealing.repeats
    finished = _finished(planned.out / "rounds")
    return list(range(stealing.round_size, most, stealing.round_size))[finished:]


def _finished(folder: Path) -> int:
    """Runs below a folder that have a record, which is written last."""
    return sum(1 for _ in folder.rglob(RECORD))


def _training_seconds(planned: PlannedTheft, sizes: Sequence[int], rounds: Sequence[int]) -> float:
    """Seconds of the trainings of clones, and of networks of rounds, on so many images each."""
    sample = planned.sample(min(max(*sizes, *rounds, 0), BLOCK))
    order = Order(net=planned.net, objective=Normal(), training=planned.training)
    nothing, session = planned.out / "none", planned.session
    workers = 1 if session.workers is None else session.workers.size
    one = training_seconds(
        [(order, sample)], nothing, workers=workers, progress=session.progress
    ) / len(sample.train)
    # Clones of one budget are trained together, budgets and rounds one after another.
    return (sum(sizes) / min(workers, planned.stealing.seeds) + sum(rounds)) * one
