"""A victim as a function from images to answers, within a query budget."""

from typing import final

import numpy as np

from denature.answers.kinds import AnswerKind
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import PoolBatch
from denature.extract.asking.reading import combined


@final
class QuerySender:
    """Sends images to a victim within a query budget; no stored answer is queried again.

    An attack that is repeated after a kill with the same random numbers resumes where it stopped.

    Args:
        oracle: sends and counts the queries, and stores the answers; the number of classes of its
            victim must be known.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def __call__(
        self, images: np.ndarray, before: int = 0
    ) -> tuple[AnswerKind, np.ndarray, np.ndarray]:
        """Answers to images.

        Args:
            images: uint8, batch x channels x height x width; at least one.
            before: earlier queries of the same images: 1 for a second answer to each image.

        Returns:
            The kind of the answers, their values, and the predicted classes: see
            `denature.extract.asking.reading.combined`.

        Raises:
            BudgetSpent: the budget does not cover all images.
            AskFailed: a request got no answer.
            Stopped: the stopper asked for a stop.
        """
        oracle = self.oracle
        batch, rows = PoolBatch(oracle.purpose, images), range(len(images))
        oracle.ask(batch, rows, repeats=before + 1)
        contents = batch.contents(rows)
        stored = oracle.ledger.answers(oracle.target, set(contents))
        assert oracle.kind is not None
        answers = [[stored[content][before]] for content in contents]
        about = oracle.about
        assert about.classes is not None
        return combined(oracle.kind, answers, classes=about.classes, order=about.order)
