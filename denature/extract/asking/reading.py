"""Kinds of a victim's answers, and completion of answers that show only a part."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from denature.answers.kinds import AnswerKind
from denature.answers.looks import ENOUGH, LOOKS, SUM_TOLERANCE, are_percent, kind_of
from denature.core.errors import ConfigError
from denature.extract.victims.base import VictimInfo

PERCENT_HINT = (
    "; in percent they are taken where they sum to 100 and all are shown; else divide them by 100 "
    "in a function of your own, package.module:function"
)

MEND_NAN = (
    "check the weights, the numbers that it takes for pixels (--mean, --std, --scale), and a "
    "division by 0 or a logarithm of 0 after the network"
)
"""Advice for a model that gives NaN without a score to hide."""


def fitting(
    values: np.ndarray, *, count: int, kind: AnswerKind | None, about: VictimInfo
) -> tuple[AnswerKind, np.ndarray]:
    """The kind of a request's answers, which are checked before they are stored.

    Probabilities in percent are divided by 100.

    Args:
        values: see `Victim.ask`.
        count: number of images in the request.
        kind: expected kind; None to infer it.
        about: the victim.

    Returns:
        The kind, and the answers.

    Raises:
        ConfigError: the answers are of another kind, of an ambiguous kind, or invalid.
    """
    _check_answers(values, count=count, kind=kind, about=about)
    found = kind_of(values)
    resolved = kind or found
    if resolved is None:
        least, most = np.nanmin(values), np.nanmax(values)
        sums = np.nansum(values, axis=1)
        nan = np.isnan(values).any(axis=1).sum()
        hidden = (
            f"; NaN in {nan} of {len(values)} answers stands for a hidden score: if the model "
            "hides none, mend it first"
            if nan
            else ""
        )
        raise _unfit(
            about,
            "answers that could be logits or probabilities (state which with --kind), values from "
            f"{least:.3g} to {most:.3g} in rows that sum to {sums.min():.3g} to {sums.max():.3g}"
            f"{hidden}",
        )
    if found not in LOOKS[resolved]:
        hint = PERCENT_HINT if resolved == "probabilities" and found == "logits" else ""
        raise _unfit(
            about,
            f"answers that are stated to be {kind} but look like {found} (state another "
            f"--kind{hint})",
        )
    if resolved == "probabilities" and are_percent(values):
        return resolved, values / np.float32(100)
    return resolved, values


def _unfit(about: VictimInfo, what: str) -> ConfigError:
    return ConfigError(f"{about.target} gave {what}; they are not stored but count as queries.")


def _check_answers(
    values: np.ndarray, *, count: int, kind: AnswerKind | None, about: VictimInfo
) -> None:
    """Check the shape and the numbers of answers; see `fitting`.

    Raises:
        ConfigError: the values are no answers of the victim.
    """
    unfit = partial(_unfit, about)
    if len(values) != count or values.ndim not in (1, 2) or not values.size:
        raise unfit(f"answers of the shape {values.shape} to {count} images")
    classes = about.classes
    if values.ndim == 1:
        if values.min() < 0 or (classes is not None and values.max() >= classes):
            raise unfit(f"labels from {values.min()} to {values.max()} of {classes} classes")
    else:
        if classes is not None and values.shape[1] != classes:
            hint = "; if the value is a class, pass --kind label" if values.shape[1] == 1 else ""
            raise unfit(f"{values.shape[1]} values an image, and {classes} are wanted{hint}")
        if np.isinf(values).any():
            raise unfit("answers that are infinite")
        # An answer without a detected face has no values.
        if kind != "landmarks" and np.isnan(values).all(axis=1).any():
            raise unfit(f"answers of NaN alone, which stands for a hidden score ({MEND_NAN})")


def check_first(values: np.ndarray, about: VictimInfo) -> None:
    """Check that the first answers of a victim without hidden scores do not all hold NaN.

    As many scores in each answer may be its largest ones; other numbers are a fault.

    Raises:
        ConfigError: they do.
    """
    shown = shown_counts(values)
    if about.hides or len(values) < ENOUGH or len(shown) == 1 or max(shown) == values.shape[1]:
        return
    raise _unfit(
        about,
        f"NaN in all of its first {len(values)} answers, which show from {min(shown)} to "
        f"{max(shown)} of {values.shape[1]} scores (a function or a file that hides scores shows "
        f"as many in each answer; {MEND_NAN}; in Python, FunctionVictim(..., hides=True) takes "
        "them)",
    )


def shown_counts(rows: Iterable[np.ndarray]) -> Counter[int]:
    """Numbers of scores that answers show, and the number of answers that show so many."""
    return Counter(int(np.count_nonzero(~np.isnan(row))) for row in rows)


def not_summing(rows: Iterable[np.ndarray]) -> int:
    """Number of answers that show all their scores, which do not sum to 1; see `SUM_TOLERANCE`."""
    sums = (float(row.sum()) for row in rows)  # NaN of a hidden score compares as False
    return sum(abs(total - 1) > SUM_TOLERANCE for total in sums)


def completed(kind: AnswerKind, values: np.ndarray) -> np.ndarray:
    """Answers of which only the largest values were shown, with the hidden values imputed.

    A hidden value never exceeds the least shown value. Hidden probabilities share the remainder to
    1, and rounded rows are scaled to sum to 1. In a row that was rounded to zero the first shown
    class gets all, or every class the same where none was hidden. Hidden logits lie below the least
    shown logit by the mean step between the shown ones.

    Args:
        kind: probabilities or logits, of which at least two are shown in each row.
        values: n x classes, NaN where nothing was shown; at least one number in each row.
    """
    hidden = np.isnan(values)
    least = np.nanmin(values, axis=1, keepdims=True)
    count = hidden.sum(axis=1, keepdims=True)
    if kind == "logits":
        steps = np.maximum(values.shape[1] - count - 1, 1)
        step = (np.nanmax(values, axis=1, keepdims=True) - least) / steps
        return np.where(hidden, least - step, values).astype(np.float32)
    rest = np.clip(1 - np.nansum(values, axis=1, keepdims=True), 0, None)
    values = np.where(hidden, np.minimum(rest / np.maximum(count, 1), least), values)
    sums = values.sum(axis=1, keepdims=True)
    # Rows rounded to zero: the shown class is the argmax where others are hidden, else any may be.
    first = np.eye(values.shape[1])[np.where(hidden, -1, values).argmax(axis=1)]
    nothing = np.where(hidden.any(axis=1, keepdims=True), first, 1 / values.shape[1])
    return np.where(sums > 0, values / np.where(sums > 0, sums, 1), nothing).astype(np.float32)


def combined(
    kind: AnswerKind,
    answers: Sequence[Sequence[np.ndarray]],
    *,
    classes: int,
    order: Sequence[int] | None = None,
) -> tuple[AnswerKind, np.ndarray, np.ndarray]:
    """The answers to each image merged into one, with classes in the wanted order.

    Answers are completed and then averaged; several labels become the share of votes for each
    class. Logits of which only the largest is shown become labels. The ledger keeps the victim's
    own order of classes; this function alone changes it.

    Args:
        kind: kind of all answers.
        answers: at least one for each image, rows of up to `classes` values or single labels.
        classes: width of the result.
        order: for each wanted class its index among the victim's; None where the orders agree.

    Returns:
        The kind of the result, its values, and the victim's predictions: labels, or landmarks.
    """
    counts = np.array([len(repeats) for repeats in answers])
    owners = np.arange(len(answers)).repeat(counts)
    every = [answer for repeats in answers for answer in repeats]
    flat = np.full((len(every), classes), np.nan, np.float32)
    if kind != "label":
        for row, answer in zip(flat, every, strict=True):
            row[: len(answer)] = answer
    if order is not None and kind == "label":
        places = np.argsort(order)
        every = [places[answer.astype(np.int64)] for answer in every]
    elif order is not None:
        flat = np.ascontiguousarray(flat[:, list(order)])
    if kind == "logits" and (np.isfinite(flat).sum(axis=1) == 1).any():
        kind, every = "label", list(np.nanargmax(flat, axis=1)[:, None])
    if kind == "label":
        labels = np.array([int(answer[0]) for answer in every], np.int64)
        if (counts == 1).all():
            return "label", labels, labels
        votes = np.zeros((len(answers), classes), np.float32)
        np.add.at(votes, (owners, labels), 1)
        shares = votes / counts[:, None]
        return "probabilities", shares.astype(np.float32), shares.argmax(axis=1)
    full = flat if kind == "landmarks" else completed(kind, flat)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    values = (np.add.reduceat(full, starts, axis=0) / counts[:, None]).astype(np.float32)
    if kind == "landmarks":
        return kind, values, values
    if (counts == 1).all():  # the argmax of the shown values, whatever was imputed beside it
        return kind, values, np.nanargmax(flat, axis=1)
    return kind, values, values.argmax(axis=1)
