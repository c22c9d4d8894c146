"""What a defense costs honest users: classes, scores and milliseconds.

Hidden scores are read as a thief reads them (`completed`): hidden probabilities share what the
shown ones leave to 1. Answers that show all scores are compared as they are shown, so that
probabilities which were rounded need not sum to 1. A label, or one logit alone, says nothing of
scores: L1, calibration error and log loss are None then. `docs/score.md` has the formulas.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from denature.answers.kinds import AnswerKind
from denature.audit.result import DefensePrice
from denature.core.errors import ConfigError
from denature.core.stats import proportion
from denature.extract.asking.reading import completed

BINS = 15
"""Bins of equal width of the calibration error, as in Guo et al. 2017, arXiv:1706.04599."""

LEAST = 1e-12
"""Least probability whose logarithm is taken."""

SAME = 1e-6
"""Largest difference, also relative, that counts as none: float32 answers are no closer."""

Floats = NDArray[np.float64]


class AnswerArrays(NamedTuple):
    """Answers as NumPy arrays; see `denature.answers.answerer.Answers`."""

    kind: AnswerKind
    values: NDArray[Any]
    """Float, images x classes, NaN where a score is hidden; for labels int64, images."""


def price(
    true: AnswerArrays,
    shown: AnswerArrays,
    labels: NDArray[np.int64],
    *,
    defense: str,
    about: str,
    latency_ms: float,
) -> DefensePrice:
    """The price of a defense on labelled images.

    Args:
        true: answers without a defense, nothing hidden.
        shown: the defended answers to the same images.
        labels: true classes; int64, images.
        defense: its name in the result.
        about: settings and source, in a sentence.
        latency_ms: what it adds to one answer, see `median_ms`.

    Raises:
        ConfigError: landmarks, or numbers of answers and labels that differ.
    """
    _check(true, shown, labels)
    n, classes = len(labels), shown_classes(shown)
    probabilities = probabilities_of(shown)
    ece = log_loss = l1 = None
    if probabilities is not None:
        confidence = probabilities[np.arange(n), classes]
        ece = calibration_error(confidence, classes == labels)
        right = probabilities[np.arange(n), labels]
        log_loss = float(-np.log(right.clip(LEAST)).mean())
        reference = probabilities_of(true)
        if reference is not None:
            l1 = float(np.abs(probabilities - reference).sum(axis=1).mean())
    return DefensePrice(
        defense=defense,
        about=about,
        top1_kept=proportion(int((classes == shown_classes(true)).sum()), n),
        accuracy=proportion(int((classes == labels).sum()), n),
        exact=proportion(int(_exact(true, shown).sum()), n),
        l1=l1,
        ece=ece,
        log_loss=log_loss,
        latency_ms=latency_ms,
    )


def shown_classes(answers: AnswerArrays) -> NDArray[np.int64]:
    """Predicted classes of answers: the largest shown score's, of equal ones the first."""
    if answers.kind == "label":
        return answers.values.astype(np.int64)
    classes: NDArray[np.int64] = np.nanargmax(answers.values, axis=1)
    return classes


def probabilities_of(answers: AnswerArrays) -> Floats | None:
    """Probabilities that answers give, images x classes; None of labels or one logit alone."""
    values = answers.values.astype(np.float64)
    if answers.kind == "label":
        return None
    hidden = np.isnan(values).any(axis=1)
    if answers.kind == "logits" and (np.isfinite(values).sum(axis=1) < 2).any():
        return None
    if hidden.any():
        values[hidden] = completed(answers.kind, values[hidden])
    if answers.kind == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    return values


def calibration_error(
    confidence: Floats, right: NDArray[np.bool_], *, bins: int = BINS
) -> float:  # fmt: skip
    """Expected calibration error: the mean over images of their bin's |accuracy - confidence|.

    Bins are of equal width on [0, 1] and hold their upper end (Guo et al. 2017).

    Args:
        confidence: score of the predicted class, images; scores outside of [0, 1] are clipped.
        right: whether that class is the true one, images.
        bins: number of bins.
    """
    scores = confidence.clip(0, 1)
    places = (np.ceil(scores * bins).astype(np.int64) - 1).clip(0)
    gaps = np.bincount(places, weights=right - scores, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


def median_ms(call: Callable[[], object], *, repeats: int = 51, warmup: int = 5) -> float:
    """Median time of a call in milliseconds, for instance of a defense on one image's answer.

    Args:
        call: what is timed, whole; a stream of answers remembers these calls.
        repeats: timed calls.
        warmup: calls before these.
    """
    for _ in range(warmup):
        call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _exact(true: AnswerArrays, shown: AnswerArrays) -> NDArray[np.bool_]:
    """Whether each answer is shown unchanged; logits shown as probabilities are, a part is not."""
    if true.kind == shown.kind:
        return _close(true.values, shown.values)
    ours, theirs = probabilities_of(true), probabilities_of(shown)
    if ours is None or theirs is None:
        return np.zeros(len(true.values), np.bool_)
    return _close(ours, np.where(np.isnan(shown.values), np.nan, theirs))


def _close(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    same = np.isclose(ours, theirs, rtol=SAME, atol=SAME).reshape(len(ours), -1)
    all_same: NDArray[np.bool_] = same.all(axis=1)
    return all_same


def _check(true: AnswerArrays, shown: AnswerArrays, labels: NDArray[np.int64]) -> None:
    counts = (len(true.values), len(shown.values), len(labels))
    if len(set(counts)) != 1:
        raise ConfigError(
            f"A price got {counts[0]} true answers, {counts[1]} shown ones and "
            f"{counts[2]} labels; pass as many of each, of the same images in the same order."
        )
    if "landmarks" in (true.kind, shown.kind):
        raise ConfigError("A price got landmarks; wanted are the answers of a model of classes.")
