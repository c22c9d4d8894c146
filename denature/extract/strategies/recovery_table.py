"""The thief that looks shown answers up in a table of what the defense makes of others."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.core.schema import check_fields
from denature.core.seeds import generator
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import query, usable
from denature.extract.strategies.networks import log_scores
from denature.extract.strategies.recovering import FLOOR, not_recoverable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryTable(Strategy):
    """A shown answer becomes the mean of all answers that the defense would show alike."""

    name: ClassVar[str] = "recovery-table"
    revision: ClassVar[int] = 2
    """2: each simulation draws other noise; a held-out one had that of the training."""
    about: ClassVar[str] = (
        "Puts random answers behind the same defense, looks the shown answers up among them, and "
        "trains a clone on the answers that they may have been."
    )
    source: ClassVar[str] = (
        "pBayes of ModelGuard (Tang et al. 2024), whose released code centres its prior on the "
        "true answers; here the prior knows nothing of them."
    )

    rows: int = 100_000
    """Answers in the table, at least; the released code has a million."""
    tolerance: float = 0.01
    """L1 distance up to which answers are alike; where none is so near, the nearest is taken."""
    least: float = 0.1
    """Smallest sum of a Dirichlet distribution's concentrations; the largest is 10 a class."""

    def __post_init__(self) -> None:
        rules = {
            "rows": (self.rows >= 1, "at least 1"),
            "tolerance": (self.tolerance >= 0, "at least 0"),
            "least": (self.least > 0, "above 0"),
        }
        check_fields(self, rules)

    def excluded(self, situation: Situation) -> str | None:
        return not_recoverable(situation)

    def steps(self, attempt: Attempt) -> Steps:
        images, shown = query(attempt)
        [run] = yield [Lesson(images=images, answers=self._recovered(attempt, images, shown))]
        return TrainedClone(run.network)

    def _recovered(self, attempt: Attempt, images: np.ndarray, shown: Answers) -> Answers:
        """The table is gone when this returns: many strategies wait for their clones together."""
        known, true = self._table(attempt, images)
        found = look_up(np.exp(log_scores(shown, floor=FLOOR)), known, true, self.tolerance)
        return usable(Answers("probabilities", torch.from_numpy(found)))

    def _table(self, attempt: Attempt, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shown and true probabilities; each part answers the queried images, as the victim did.

        So a defense that looks at images sees the thief's own, and one that remembers has
        remembered as many answers as the victim's.
        """
        random, classes = generator(attempt.seed, "table"), attempt.situation.classes
        known, true = [], []
        for _ in range(-(-self.rows // len(images))):
            drawn = torch.from_numpy(prior(random, len(images), classes, self.least)).float()
            values = drawn.log() if attempt.true_kind == "logits" else drawn
            answers = attempt.simulate(Answers(attempt.true_kind, values), images)
            known.append(np.exp(log_scores(answers, floor=FLOOR)))
            true.append(drawn.numpy())
        return np.concatenate(known), np.concatenate(true)


def prior(random: np.random.Generator, count: int, classes: int, least: float) -> np.ndarray:
    """Random probabilities, float64, count x classes, without any knowledge of a victim.

    Symmetric Dirichlet distributions, whose sums of concentrations are log-uniform from `least`, of
    answers that are sure of one class, to 10 a class, of answers that are almost uniform.
    """
    sums = np.exp(random.uniform(np.log(least), np.log(10 * classes), (count, 1)))
    # Below a concentration of 0.1 gamma variates underflow to 0; Gamma(a) is Gamma(a + 1) U^(1/a).
    shape = np.broadcast_to(sums / classes, (count, classes))
    logs = np.log(random.standard_gamma(shape + 1)) + np.log(random.random(shape.shape)) / shape
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    drawn = np.maximum(weights, FLOOR)
    normalised: np.ndarray = drawn / drawn.sum(axis=1, keepdims=True)
    return normalised


def look_up(shown: np.ndarray, known: np.ndarray, true: np.ndarray, tolerance: float) -> np.ndarray:
    """For each shown answer the mean of the true answers that are shown alike, n x classes.

    Only rows of the table with the same shown class are compared, as far as there are any.
    """
    from sklearn.neighbors import NearestNeighbors

    recovered = np.empty_like(shown)
    classes, rows_of = shown.argmax(axis=1), known.argmax(axis=1)
    for number in np.unique(classes):
        places = np.flatnonzero(classes == number)
        rows = np.flatnonzero(rows_of == number)
        rows = rows if len(rows) else np.arange(len(known))
        table = NearestNeighbors(metric="manhattan").fit(known[rows])
        nearest = table.kneighbors(shown[places], 1, return_distance=False)
        alike = table.radius_neighbors(shown[places], tolerance, return_distance=False)
        for place, first, others in zip(places, nearest, alike, strict=True):
            chosen = others if len(others) else first
            recovered[place] = true[rows[chosen]].mean(axis=0)
    return recovered
