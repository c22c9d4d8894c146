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


def lesson_labels(attempt: Attempt, images: np.ndarray, answers: Answers) -> np.ndarray:
    """True labels of the images that the thief owns, and the shown classes of the others.

    Args:
        attempt: holds the owned images.
        images: uint8, n x channels x height x width.
        answers: shown answers to these images.

    Returns:
        int64, n.
    """
    labels: np.ndarray = as_labels(answers).values.numpy().copy()
    if attempt.owned is not None:
        owned = zip(attempt.owned.images, attempt.owned.labels.tolist(), strict=True)
        known = {image.tobytes(): label for image, label in owned}
        found = [known.get(image.tobytes(), -1) for image in images]
        labels = np.where(np.array(found) >= 0, found, labels)
    return labels


def averaged(answers: Answers, repeats: int, classes: int) -> Answers:
    """The mean answer to each image; of labels the share of votes for each class.

    Args:
        answers: (repeats * n) rows: all images once, then all images again, and so on.
        repeats: answers to each image.
        classes: number of classes.
    """
    shown = usable(answers)
    kind, values = shown.kind, shown.values
    if kind == "label":
        kind, values = "probabilities", torch.nn.functional.one_hot(values, classes).float()
    return Answers(kind, values.view(repeats, -1, classes).mean(dim=0))
