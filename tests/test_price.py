"""The price of a defense on answers of which it is known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.audit.price import AnswerArrays, calibration_error, median_ms, price
from denature.audit.result import DefensePrice
from denature.core.errors import ConfigError
from denature.defenses.base import Defense
from denature.defenses.catalogue import DEFENSES

CLASSES = 5
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (200, CLASSES))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
LABELS = RANDOM.integers(CLASSES, size=200)
NAN = float("nan")


def priced(
    shown: AnswerArrays, true: AnswerArrays | None = None, labels: NDArray[np.int64] = LABELS
) -> DefensePrice:
    true = true or AnswerArrays("probabilities", PROBABILITIES)
    return price(true, shown, labels, defense="d", about="a", latency_ms=0.5)


def shown(kind: AnswerKind, values: Any) -> AnswerArrays:
    return AnswerArrays(kind, np.array(values))


def test_no_defense_costs_nothing() -> None:
    found = priced(AnswerArrays("probabilities", PROBABILITIES))
    assert (found.top1_kept.value, found.exact.value, found.l1) == (1, 1, 0)
    assert found.accuracy.value == np.mean(PROBABILITIES.argmax(axis=1) == LABELS)
    # Query by query.
    right = [row[label] for row, label in zip(PROBABILITIES, LABELS, strict=True)]
    assert found.log_loss == pytest.approx(sum(-math.log(p) for p in right) / len(right))
    assert (found.defense, found.about, found.latency_ms) == ("d", "a", 0.5)
    assert found.top1_kept.over == found.accuracy.over == found.exact.over == "images"


def test_logits_have_the_price_of_their_probabilities() -> None:
    true = AnswerArrays("logits", LOGITS)
    of_logits = priced(true, true)
    as_probabilities = priced(AnswerArrays("probabilities", PROBABILITIES), true)
    for found in (of_logits, as_probabilities):
        assert found.exact.value == 1
        assert found.l1 == pytest.approx(0, abs=1e-12)
        assert found.log_loss == pytest.approx(
            priced(AnswerArrays("probabilities", PROBABILITIES)).log_loss
        )
    saturated = 1000 * LOGITS
    extreme = priced(AnswerArrays("logits", saturated), AnswerArrays("logits", saturated))
    assert extreme.log_loss is not None
    assert math.isfinite(extreme.log_loss)


def test_the_truth_is_calibrated_and_right() -> None:
    found = priced(AnswerArrays("probabilities", np.eye(CLASSES)[LABELS]))
    assert (found.accuracy.value, found.ece, found.log_loss) == (1, 0, 0)


def test_a_uniform_answer_shows_the_first_class_and_knows_nothing() -> None:
    found = priced(AnswerArrays("probabilities", np.full((200, CLASSES), 0.2)))
    assert found.accuracy.value == np.mean(LABELS == 0)
    assert found.log_loss == pytest.approx(math.log(CLASSES))
    assert found.ece == pytest.approx(abs(np.mean(LABELS == 0) - 0.2))
    assert found.top1_kept.value == np.mean(PROBABILITIES.argmax(axis=1) == 0)


def test_a_confident_constant_is_as_wrong_as_its_class_is_rare() -> None:
    found = priced(AnswerArrays("probabilities", np.eye(CLASSES)[np.full(200, 3)]))
    wrong = np.mean(LABELS != 3)
    assert found.ece == pytest.approx(wrong)
    assert found.log_loss == pytest.approx(wrong * -math.log(1e-12))
    assert found.l1 == pytest.approx(np.mean(2 - 2 * PROBABILITIES[:, 3]))


def test_of_equal_scores_the_first_is_the_shown_class() -> None:
    true = shown("probabilities", [[0.5, 0.4, 0.1], [0.1, 0.5, 0.4]])
    found = priced(
        shown("probabilities", [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]), true, np.array([0, 2])
    )
    assert (found.top1_kept.value, found.accuracy.value) == (1, 0.5)


def test_a_label_keeps_the_class_and_says_nothing_of_scores() -> None:
    found = priced(AnswerArrays("label", PROBABILITIES.argmax(axis=1)))
    assert (found.top1_kept.value, found.exact.value) == (1, 0)
    assert (found.l1, found.ece, found.log_loss) == (None, None, None)
    labels = AnswerArrays("label", LABELS)
    only = priced(labels, labels)
    assert (only.exact.value, only.accuracy.value, only.l1) == (1, 1, None)


def test_hidden_probabilities_share_what_the_others_leave() -> None:
    true = shown("probabilities", [[0.7, 0.2, 0.08, 0.02]])
    part = shown("probabilities", [[0.7, NAN, NAN, NAN]])
    found = priced(part, true, np.array([2]))
    assert found.l1 == pytest.approx(0.1 + 0.02 + 0.08)
    assert found.log_loss == pytest.approx(-math.log(0.1))
    assert found.ece == pytest.approx(0.7)
    assert (found.top1_kept.value, found.exact.value) == (1, 0)


def test_one_logit_alone_is_a_label() -> None:
    part = np.where(LOGITS.max(axis=1, keepdims=True) == LOGITS, LOGITS, NAN)
    found = priced(AnswerArrays("logits", part), AnswerArrays("logits", LOGITS))
    assert (found.top1_kept.value, found.exact.value) == (1, 0)
    assert (found.l1, found.ece, found.log_loss) == (None, None, None)


def test_answers_that_are_shown_unchanged_are_counted() -> None:
    changed = PROBABILITIES.astype(np.float32)
    changed[:50] = changed[:50] * 0.9 + 0.1 / CLASSES
    assert priced(AnswerArrays("probabilities", changed)).exact.value == 0.75


def test_the_calibration_error_of_three_answers() -> None:
    """Two answers in the last of 15 bins, one of them right, and a wrong one in the tenth."""
    found = calibration_error(np.array([0.95, 0.95, 0.65]), np.array([True, False, False]))
    assert found == pytest.approx((2 * abs(0.5 - 0.95) + 1 * abs(0 - 0.65)) / 3)


def test_the_calibration_error_is_that_of_its_definition() -> None:
    confidence = RANDOM.random(500)
    confidence[:3] = 0, 1, 0.2  # the ends, and the upper end of the third bin
    right = RANDOM.random(500) < confidence**2
    wanted = 0.0
    for low in np.arange(15):
        inside = [
            i for i, c in enumerate(confidence)
            if low / 15 < c <= (low + 1) / 15 or (low == 0 and c == 0)
        ]  # fmt: skip
        if inside:
            gap = abs(right[inside].mean() - confidence[inside].mean())
            wanted += len(inside) / 500 * gap
    assert calibration_error(confidence, right) == pytest.approx(wanted)
    assert wanted > 0.1


NO_NETWORK = [
    name for name, defense in DEFENSES.items()
    if defense.role is None and "probabilities" in defense.takes
]  # fmt: skip


@pytest.mark.parametrize("name", NO_NETWORK)
def test_each_defense_has_a_price(name: str) -> None:
    defense: Defense = DEFENSES[name]()
    answers = defense(Answers("probabilities", torch.from_numpy(PROBABILITIES)))
    found = priced(AnswerArrays(answers.kind, answers.values.numpy()))
    if defense.keeps_top:
        best = np.sort(PROBABILITIES, axis=1)
        apart = np.mean(best[:, -1] - best[:, -2] > 0.02)  # others may come to tie
        assert found.top1_kept.value >= apart
    if answers.kind == "label":
        assert found.l1 is found.ece is found.log_loss is None
    else:
        assert found.l1 is not None
        assert found.log_loss is not None
        assert found.ece is not None
        assert 0 <= found.l1 <= 2
        assert math.isfinite(found.log_loss)
        assert 0 <= found.ece <= 1


def test_what_has_no_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="200 true answers, 200 shown ones and 199 labels"):
        priced(AnswerArrays("probabilities", PROBABILITIES), labels=LABELS[1:])
    with pytest.raises(ConfigError, match="landmarks"):
        priced(AnswerArrays("landmarks", PROBABILITIES))


def test_a_median_of_times_is_over_the_calls_after_the_first_ones() -> None:
    calls: list[int] = []
    found = median_ms(lambda: calls.append(0), repeats=3, warmup=2)
    assert len(calls) == 5
    assert found >= 0
