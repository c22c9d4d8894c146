"""What several strategies share."""

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.extract.asking.reading import completed
from denature.extract.strategies.base import Attempt


def query(attempt: Attempt, count: int | None = None) -> tuple[np.ndarray, Answers]:
    """The first images of the pool, as many as the budget allows by default, with their answers."""
    images = attempt.pool(0, attempt.left() if count is None else count)
    return images, attempt.ask(images)


def usable(answers: Answers) -> Answers:
    """Answers that a clone can learn from: hidden scores are imputed, rounded rows sum to 1.

    See `denature.extract.asking.reading.completed`; of logits with one shown, the label remains.
    """
    if answers.kind == "label":
        return answers
    values = answers.values.double().numpy()
    if answers.kind == "logits" and (np.isfinite(values).sum(axis=1) == 1).any():
        return as_labels(answers)
    return Answers(answers.kind, torch.from_numpy(completed(answers.kind, values)))


def as_labels(answers: Answers) -> Answers:
    """The predicted classes of the shown answers."""
    if answers.kind == "label":
        return answers
    return Answers("label", answers.values.nan_to_num(nan=float("-inf")).argmax(-1))
