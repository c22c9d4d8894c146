"""The thief that learns to undo a defense from shadow models behind the same defense."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.core.schema import check_fields
from denature.core.seeds import derive, generator
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import as_labels, query, usable
from denature.extract.strategies.networks import log_scores, outputs
from denature.extract.strategies.recovering import FLOOR, Pairs, RecoveryMap, not_recoverable

if TYPE_CHECKING:
    from denature.train.run import Run


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryNetwork(Strategy):
    """A network maps shown answers back to true ones, before the clone learns them.

    The map adds a correction to the logarithms of the shown probabilities, so that an untrained
    map changes nothing. The last shadow model takes no part in its fit, and tells whether the
    recovered answers are nearer to the true ones than the shown answers are.
    """

    name: ClassVar[str] = "recovery-network"
    revision: ClassVar[int] = 3
    """2: each simulation draws other noise; a held-out one had that of the training.
    3: shadow models have shares of a clone's steps, where small budgets had a tenth of them."""
    about: ClassVar[str] = (
        "Trains shadow models, puts them behind the same defense, learns to undo it from them, and "
        "trains a clone on the recovered answers."
    )
    trainings: ClassVar[float] = 4
    source: ClassVar[str] = (
        "D-DAE (Chen et al., S&P 2023) as ModelGuard (Tang et al. 2024) ports it, without the true "
        "answers that the port mixes in; shadow models differ in epochs and temperature, and the "
        "map is a regression of the correction."
    )

    lengths: tuple[float, ...] = (1 / 6, 1 / 3, 2 / 3, 1.0, 1 / 2)
    """Share of a clone's epochs for each shadow model: few leave a network unsure, as its victim
    may be. The released code trains 20 shadow models."""
    share: float = 0.5
    """Share of the queried images, and of the classes, that each shadow model learns from."""
    temperatures: tuple[float, ...] = (1.0, 0.5, 2.0)
    """At which each shadow model answers."""
    images: int = 2000
    """Images of the pool that shadow models answer, or the budget if it is larger."""
    iterations: int = 60
    """Largest number of passes over all pairs in the fit of the map."""

    def __post_init__(self) -> None:
        rules = {
            "lengths": (len(self.lengths) >= 2 and min(self.lengths) > 0, "2 or more, above 0"),
            "share": (0 < self.share <= 1, "in (0, 1]"),
            "temperatures": (bool(self.temperatures) and min(self.temperatures) > 0, "above 0"),
            "images": (self.images >= 1, "at least 1"),
            "iterations": (self.iterations >= 1, "at least 1"),
        }
        check_fields(self, rules)

    def excluded(self, situation: Situation) -> str | None:
        return not_recoverable(situation)

    def steps(self, attempt: Attempt) -> Steps:
        images, shown = query(attempt)
        runs = yield self._shadows(images, as_labels(shown).values.numpy(), attempt)
        answers, note = self._recovered(runs, shown, attempt)
        [run] = yield [Lesson(images=images, answers=answers)]
        return TrainedClone(run.network, note)

    def _recovered(
        self, shadows: "Sequence[Run]", shown: Answers, attempt: Attempt
    ) -> tuple[Answers, str]:
        """Recovered answers and a note; the pairs of answers are gone when this returns."""
        images = attempt.pool(0, max(self.images, len(shown.values)))
        pairs = [self._pairs(run, attempt, images) for run in shadows]
        seed = derive(attempt.seed, "recovery")
        undo = RecoveryMap.fit(pairs[:-1], seed=seed, iterations=self.iterations)
        before, after = undo.distances(pairs[-1])
        logs = log_scores(shown, floor=FLOOR)
        if after < before:
            logs = undo(logs)
        answers = usable(Answers("probabilities", torch.from_numpy(np.exp(logs))))
        verdict = "" if after < before else "; the shown answers were kept"
        note = f"L1 to true answers of a shadow model: {before:.2f} shown, {after:.2f} recovered"
        return answers, note + verdict

    def _shadows(self, images: np.ndarray, labels: np.ndarray, attempt: Attempt) -> list[Lesson]:
        """Trainings on the shown classes of random images, most of them of random classes."""
        lessons = []
        for number, length in enumerate(self.lengths):
            rows = subset(labels, self.share, generator(attempt.seed, "shadow", number))
            lesson = Lesson(
                images=images[rows],
                answers=Answers("label", torch.from_numpy(labels[rows])),
                length=length,
                seed=number,
            )
            lessons.append(lesson)
        return lessons

    def _pairs(self, shadow: "Run", attempt: Attempt, images: np.ndarray) -> Pairs:
        """A shadow model's answers to images of the pool, as they are and as they are shown."""
        logits = outputs(shadow.network, images, device=attempt.device).float()
        shown, true = [], []
        for temperature in self.temperatures:
            softened = logits / temperature
            values = softened if attempt.true_kind == "logits" else softened.softmax(-1)
            answers = attempt.simulate(Answers(attempt.true_kind, values), images)
            shown.append(log_scores(answers, floor=FLOOR))
            true.append(log_scores(Answers("logits", softened), floor=FLOOR))
        return Pairs(np.concatenate(shown), np.concatenate(true))


def subset(labels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Rows of a random half of the classes and of a random half of the images, at share 1/2.

    At least two classes and two rows are among them, where there are so many.
    """
    classes = random.permutation(np.unique(labels))
    of_classes = np.isin(labels, classes[: max(2, round(share * len(classes)))])
    at_random = random.random(len(labels)) < share
    rows = np.flatnonzero(of_classes | at_random)
    return rows if len(rows) >= 2 else np.arange(len(labels))
