"""A victim as a function from images to answers."""

from typing import final

import numpy as np

from denature.extract.oracle import Oracle
from denature.extract.pool import Batch


@final
class Asker:
    """Whoever calls it asks a victim, within a budget; no image is asked twice for one answer.

    So an attack that is repeated after a kill, with the same random numbers, goes on where it was.

    Args:
        oracle: who asks, counts and keeps.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def __call__(self, images: np.ndarray, before: int = 0) -> np.ndarray:
        """Answers to images.

        Args:
            images: uint8, batch x channels x height x width.
            before: how often they were asked before: 1 for a second answer to the same image.

        Returns:
            float32, batch x classes, NaN where nothing is shown; or int64, batch, for labels.

        Raises:
            BudgetSpent: the budget does not allow all of them.
            AskFailed: a request that cannot be answered.
            Stopped: the stopper wanted it.
        """
        batch, rows = Batch(self.oracle.purpose, images), range(len(images))
        self.oracle.ask(batch, rows, repeats=before + 1)
        contents = batch.contents(rows)
        known = self.oracle.ledger.answers(self.oracle.target, set(contents))
        answers = [known[content][before] for content in contents]
        return np.concatenate(answers) if self.oracle.kind == "label" else np.stack(answers)
