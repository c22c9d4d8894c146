"""A victim as a function from images to answers."""

from typing import final

import numpy as np

from denature.answers.sources import Kind
from denature.extract.oracle import Oracle
from denature.extract.pool import PoolBatch
from denature.extract.reading import combined


@final
class QuerySender:
    """Whoever calls it asks a victim, within a budget; no image is asked twice for one answer.

    So an attack that is repeated after a kill, with the same random numbers, goes on where it was.

    Args:
        oracle: who asks, counts and keeps; it is known about its victim how many classes it knows.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def __call__(self, images: np.ndarray, before: int = 0) -> tuple[Kind, np.ndarray, np.ndarray]:
        """Answers to images.

        Args:
            images: uint8, batch x channels x height x width; at least one.
            before: how often they were asked before: 1 for a second answer to the same image.

        Returns:
            The kind of the answers, what they are, and the classes that are named: see
            `denature.extract.reading.combined`.

        Raises:
            BudgetSpent: the budget does not allow all of them.
            AskFailed: a request that cannot be answered.
            Stopped: the stopper wanted it.
        """
        oracle = self.oracle
        batch, rows = PoolBatch(oracle.purpose, images), range(len(images))
        oracle.ask(batch, rows, repeats=before + 1)
        contents = batch.contents(rows)
        known = oracle.ledger.answers(oracle.target, set(contents))
        assert oracle.kind is not None
        answers = [[known[content][before]] for content in contents]
        about = oracle.about
        assert about.classes is not None
        return combined(oracle.kind, answers, classes=about.classes, order=about.order)
