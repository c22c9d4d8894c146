"""The kind of answers, as their values look."""

from collections.abc import Mapping

import numpy as np

from denature.answers.kinds import AnswerKind

SUM_TOLERANCE = 0.05
"""Tolerance on the sum of probabilities, since services round them."""

ENOUGH = 4
"""Rows that must all sum to 100; so many rows of logits never do by chance."""

# Rows in [0, 1] that sum to 1 are taken as probabilities: logits hit this by negligible chance.
LOOKS: Mapping[AnswerKind, tuple[AnswerKind | None, ...]] = {
    "label": ("label",),
    "probabilities": ("probabilities", None),
    "logits": ("logits", None),
    "landmarks": ("logits", "probabilities", None),
}
"""Results of `kind_of` that are compatible with each kind."""


def kind_of(values: np.ndarray, *, percent: bool = True) -> AnswerKind | None:
    """Kind of answers, inferred from their values; None where it is ambiguous.

    Args:
        values: floats, batch x classes, NaN where a value is hidden; or labels, batch.
        percent: take rows that sum to 100 as probabilities, for a caller that divides them.
    """
    if values.ndim == 1:
        return "label"
    if percent and are_percent(values):
        return "probabilities" if len(values) >= ENOUGH else None
    shown = values[~np.isnan(values)]
    if len(shown) and (shown.min() < 0 or shown.max() > 1):
        return "logits"
    if np.isnan(values).any():  # the largest logits may lie in [0, 1]
        return None
    return "probabilities" if np.abs(values.sum(axis=1) - 1).max() <= SUM_TOLERANCE else None


def are_percent(values: np.ndarray) -> bool:
    """Whether answers are probabilities in percent; never where values are hidden."""
    sums = values.sum(axis=1)
    return bool((values >= 0).all() and (np.abs(sums / 100 - 1) <= SUM_TOLERANCE).all())
