"""Images with their answers, as the ledger holds them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from denature.answers.kinds import AnswerKind
from denature.extract.asking.ledger import BudgetSpent
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import Pool
from denature.extract.asking.reading import combined


class AnsweredSet(NamedTuple):
    """Answered images, and their answers as `combined` returns them."""

    rows: list[int]
    kind: AnswerKind
    values: np.ndarray
    predictions: np.ndarray
    """The victim's predictions: classes, or landmarks."""


def ask_within_budget(
    oracle: Oracle, images: Pool, rows: Sequence[int], *, repeats: int = 1
) -> None:
    """Query as far as the budget goes; lost queries count, so the last images may remain.

    Raises:
        AskFailed, ConfigError, Stopped: see `Oracle.ask`.
    """
    try:
        oracle.ask(images, rows, repeats=repeats)
    except BudgetSpent as spent:
        oracle.progress.say(str(spent))


def answered(
    oracle: Oracle, images: Pool, rows: Sequence[int], *, classes: int, repeats: int = 1
) -> AnsweredSet:
    """The stored answers to these images, without those that have none.

    Args:
        oracle: the victim, whose ledger is read.
        images: the pool.
        rows: numbers of the images in the pool.
        classes: width of an answer, see `combined`.
        repeats: answers of each image that are merged, at most.
    """
    contents = images.contents(rows)
    answers, kind = oracle.ledger.answers(oracle.target, set(contents)), oracle.kind
    kept: list[int] = []
    given: list[list[np.ndarray]] = []
    for row, content in zip(rows, contents, strict=True):
        stored = answers.get(content, {})
        values = [value for repeat, value in stored.items() if repeat < repeats]
        if kind == "landmarks":  # an answer without a detected face is no training target
            values = [value for value in values if np.isfinite(value).all()]
        if values:
            kept.append(row)
            given.append(values)
    if kind is None or not kept:
        return AnsweredSet([], "label", np.empty(0, np.int64), np.empty(0, np.int64))
    return AnsweredSet(kept, *combined(kind, given, classes=classes, order=oracle.about.order))
