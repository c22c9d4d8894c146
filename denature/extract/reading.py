"""What a victim's answers are, and what can be learned of answers that show only a part."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from denature.answers.sources import Kind
from denature.core.errors import ConfigError
from denature.extract.victims.base import About

SUM_TOLERANCE = 0.05
"""Probabilities may sum to 1 within this, since services round them."""

ENOUGH = 4
"""So many rows of logits never sum to 100 by chance."""

PERCENT_HINT = (
    " (in percent they are taken where they sum to 100 and all are shown; else divide them by 100 "
    "in a function of your own, package.module:function)"
)

# Rows of [0, 1] that sum to 1 are no logits, but by a chance that is never met.
LOOKS: Mapping[Kind, tuple[Kind | None, ...]] = {
    "label": ("label",),
    "probabilities": ("probabilities", None),
    "logits": ("logits", None),
    "landmarks": ("logits", "probabilities", None),
}
"""What answers of a kind may look like to `kind_of`."""


def kind_of(values: np.ndarray) -> Kind | None:
    """Of which kind answers are, by their looks; None where they could be several."""
    if values.ndim == 1:
        return "label"
    if _are_percent(values):
        return "probabilities" if len(values) >= ENOUGH else None
    shown = values[~np.isnan(values)]
    if len(shown) and (shown.min() < 0 or shown.max() > 1):
        return "logits"
    if np.isnan(values).any():  # the largest logits may lie in [0, 1]
        return None
    return "probabilities" if np.abs(values.sum(axis=1) - 1).max() <= SUM_TOLERANCE else None


def _are_percent(values: np.ndarray) -> bool:
    """Whether answers are probabilities as a share of 100; not where some are not shown."""
    sums = values.sum(axis=1)
    return bool((values >= 0).all() and (np.abs(sums / 100 - 1) <= SUM_TOLERANCE).all())


def fitting(
    values: np.ndarray, *, count: int, kind: Kind | None, about: About
) -> tuple[Kind, np.ndarray]:
    """The kind of a request's answers, which are looked at before they are kept.

    Probabilities in percent are divided by 100.

    Args:
        values: see `Victim.ask`.
        count: images that were asked.
        kind: of which kind they should be; None to find out.
        about: the victim.

    Returns:
        Their kind, and the answers.

    Raises:
        ConfigError: they are of another kind, of none that is clear, or no answers.
    """
    _check_answers(values, count=count, kind=kind, about=about)
    found = kind_of(values)
    settled = kind or found
    if settled is None:
        raise _no_answers(
            about, "answers that could be logits or probabilities: say with --kind what they are"
        )
    if found not in LOOKS[settled]:
        raise _no_answers(
            about,
            f"answers that are said to be {kind} and look like {found}: say with --kind what they "
            "are" + (PERCENT_HINT if settled == "probabilities" and found == "logits" else ""),
        )
    if settled == "probabilities" and _are_percent(values):
        return settled, values / np.float32(100)
    return settled, values


def _no_answers(about: About, what: str) -> ConfigError:
    return ConfigError(f"{about.target} gave {what}; they are not kept, though they count.")


def _check_answers(values: np.ndarray, *, count: int, kind: Kind | None, about: About) -> None:
    """Whether these are answers at all; see `fitting`."""
    no_answers = partial(_no_answers, about)
    if len(values) != count or values.ndim not in (1, 2) or not values.size:
        raise no_answers(f"answers of the shape {values.shape} to {count} images")
    classes = about.classes
    if values.ndim == 1:
        if values.min() < 0 or (classes is not None and values.max() >= classes):
            raise no_answers(f"labels from {values.min()} to {values.max()} of {classes} classes")
    else:
        if classes is not None and values.shape[1] != classes:
            one = "; if that is its class, say --kind label" if values.shape[1] == 1 else ""
            raise no_answers(f"{values.shape[1]} values an image, and {classes} are wanted{one}")
        if np.isinf(values).any():
            raise no_answers("answers that are not finite")
        # Where no face was found, an answer shows nothing.
        if kind != "landmarks" and np.isnan(values).all(axis=1).any():
            raise no_answers("answers that show nothing")


def completed(kind: Kind, values: np.ndarray) -> np.ndarray:
    """Answers of which only the largest values were shown, with the others filled in.

    What is hidden never gets more than the least that is shown. Of probabilities the hidden ones
    share what is left to 1, and rows that were rounded are scaled to sum to 1; where nothing of a
    row is left, its first place gets all. Of logits the hidden ones lie below the least shown by
    the mean step between those shown.

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
    # Rounded to nothing: the largest was named where others were hidden, else it may be any.
    first = np.eye(values.shape[1])[np.where(hidden, -1, values).argmax(axis=1)]
    nothing = np.where(hidden.any(axis=1, keepdims=True), first, 1 / values.shape[1])
    return np.where(sums > 0, values / np.where(sums > 0, sums, 1), nothing).astype(np.float32)


def combined(
    kind: Kind,
    answers: Sequence[Sequence[np.ndarray]],
    *,
    classes: int,
    order: Sequence[int] | None = None,
) -> tuple[Kind, np.ndarray, np.ndarray]:
    """The answers to each image as one, about classes in the order that is wanted.

    Each is completed, then the mean is taken; of labels, if there are several, the share of votes
    for each class. Logits of which the largest alone is shown are labels. What is kept of a victim
    is as it answered; this is where its order of classes is left.

    Args:
        kind: of all of them.
        answers: of each image at least one, rows of up to `classes` values or single labels.
        classes: width of the result.
        order: for each class wanted, its place among the victim's; None where they are the same.

    Returns:
        The kind of the result, its values, and what the victim says: labels, or places.
    """
    counts = np.array([len(its) for its in answers])
    owners = np.arange(len(answers)).repeat(counts)
    every = [answer for its in answers for answer in its]
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
        labels = np.array([int(it[0]) for it in every], np.int64)
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
    if (counts == 1).all():  # the largest that was shown, whatever was filled in beside it
        return kind, values, np.nanargmax(flat, axis=1)
    return kind, values, values.argmax(axis=1)
