"""Answers of a victim as they are read: their kind, what does not fit, what was hidden."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.answers.looks import kind_of
from denature.core.errors import ConfigError
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.reading import combined, completed, fitting
from denature.extract.victims.base import VictimInfo
from denature.remote.config import RequestConfig
from tests.heard import Heard
from tests.oracles import SOFT, Counted, images_of, oracle_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([1, 2]), "label"),
        (SOFT[None], "probabilities"),
        (np.array([[0.5, 0.2, 0.31]]), "probabilities"),
        (np.array([[0.5, 0.2, 0.9]]), None),
        (np.array([[0.5, -0.2, 0.7]]), "logits"),
        (np.array([[5.0, 0.2, 0.1]]), "logits"),
        (np.array([[0.9, np.nan, np.nan]]), None),
        (np.array([[0.9, 0.8, np.nan]]), None),
        (np.array([[9.0, np.nan, np.nan]]), "logits"),
    ],
)
def test_the_kind_of_answers_is_seen(values: np.ndarray, kind: str | None) -> None:
    assert kind_of(values) == kind


PERCENT = np.array([[55.0, 45.0, 0.0], [12.5, 80.0, 7.4], [0.1, 0.2, 99.6], [33, 33, 33]])


def test_answers_in_percent_are_probabilities_and_divided(ledger: Ledger) -> None:
    assert kind_of(PERCENT) == "probabilities"
    assert kind_of(PERCENT, percent=False) == "logits"
    assert kind_of(PERCENT - 1) == "logits"
    assert kind_of(PERCENT[:1]) is None  # a single row of logits may sum to 100 by chance
    heard, rows = Heard(), np.tile(PERCENT, (3, 1)).astype(np.float32)
    for number, kind in enumerate((None, "probabilities")):
        oracle = oracle_of(
            ledger,
            lambda it: rows[: len(it)],
            kind=kind,
            pace=RequestConfig(per_request=12),
            progress=heard,
        )
        oracle.about = replace(oracle.about, classes=3, target=f"m{number}")
        oracle.target = ledger.target(oracle.about)
        oracle.ask(images_of(12), range(12))
        assert oracle.kind == "probabilities"
        kept = np.concatenate(
            [row for its in ledger.answers(oracle.target).values() for row in its.values()]
        )
        np.testing.assert_allclose(np.sort(kept), np.sort(rows.reshape(-1) / 100), rtol=1e-6)
        assert sum("in percent; they are divided by 100" in line for line in heard.lines) == 1
        heard.lines.clear()


def test_a_request_of_few_logits_that_sum_to_a_hundred_stays_one_of_logits() -> None:
    about = VictimInfo(target="m", classes=3)
    kind, values = fitting(PERCENT[:1], count=1, kind="logits", about=about)
    assert kind == "logits"
    assert (values == PERCENT[:1]).all()
    kind, values = fitting(PERCENT[:1], count=1, kind="probabilities", about=about)
    np.testing.assert_allclose(values, PERCENT[:1] / 100)
    kind, values = fitting(PERCENT, count=4, kind="landmarks", about=about)
    assert kind == "landmarks"
    assert (values == PERCENT).all()
    with pytest.raises(ConfigError, match="are stated to be logits but look like probabilities"):
        fitting(PERCENT, count=4, kind="logits", about=about)


LOGIT = np.array([[3.0, -1.0, 0.5]], np.float32)
UNFIT: list[tuple[str | None, Any, str]] = [
    ("probabilities", LOGIT, "are stated to be probabilities but look like logits"),
    ("logits", SOFT[None], "are stated to be logits but look like probabilities"),
    ("label", LOGIT, "are stated to be label but look like logits"),
    ("probabilities", np.array([1]), "are stated to be probabilities but look like label"),
    (
        "probabilities",
        PERCENT[1:2] * [[1, np.nan, 1]],
        "stated to be probabilities.*sum to 100 and all are shown",
    ),
    ("probabilities", PERCENT[:1] * 2, r"in percent they .*package\.module:function"),
    (
        None,
        PERCENT[:1],
        r"could be logits or probabilities \(state which with --kind",
    ),
    (
        None,
        np.full((1, 3), 0.9, np.float32),
        r"could be logits or probabilities \(state which with --kind",
    ),
    (None, np.array([[np.nan, 0.9, np.nan]], np.float32), "NaN in 2 of 2 answers.*mend it first"),
    (None, np.array([[np.nan] * 3], np.float32), "answers of NaN alone.*check the weights"),
    (None, np.array([[np.inf, 0, 0]], np.float32), "answers that are infinite"),
    (None, np.empty((1, 0), np.float32), "answers of the shape"),
    (None, np.full((1, 4), 0.25, np.float32), "4 values an image, and 3 are wanted"),
    (None, np.array([3]), "labels from 3 to 3 of 3 classes"),
    (None, np.array([-1]), "labels from -1 to -1"),
]


@pytest.mark.parametrize(("kind", "values", "said"), UNFIT)
def test_answers_that_are_none_count_and_are_not_kept(
    ledger: Ledger, kind: Any, values: np.ndarray, said: str
) -> None:
    """Not even where the same is asked again: what is kept was looked at."""
    answers = [values]

    def answer(pixels: np.ndarray) -> np.ndarray:
        return np.repeat(answers[0], len(pixels), axis=0)

    def oracle() -> Oracle:
        found = oracle_of(
            ledger, answer, kind=kind, pace=RequestConfig(per_request=2, concurrency=1)
        )
        found.about = replace(found.about, classes=3)
        return found

    for turn in (1, 2):
        with pytest.raises(ConfigError, match=said):
            oracle().ask(images_of(6), range(6))
        assert (oracle().left, ledger.answers(1)) == (100 - 2 * turn, {})
    answers[0] = {"logits": LOGIT, "label": np.array([1])}.get(str(kind), SOFT[None])
    oracle().ask(images_of(6), range(6))
    assert len(ledger.answers(1)) == 6


def test_a_target_keeps_to_one_kind(ledger: Ledger) -> None:
    oracle_of(ledger, Counted()).ask(images_of(2), range(2))
    with pytest.raises(
        ConfigError, match="answered probabilities before, and logits is stated now"
    ):
        oracle_of(ledger, Counted(), kind="logits")
    changed = oracle_of(ledger, lambda p: np.tile(LOGIT, (len(p), 1)), purpose="measure")
    with pytest.raises(ConfigError, match="stated to be probabilities but look like logits"):
        changed.ask(images_of(2, seed=1), range(2))


def test_what_was_hidden_is_filled_in() -> None:
    nan = np.nan
    top = completed("probabilities", np.array([[0.5, nan, 0.3, nan]], np.float32))
    np.testing.assert_allclose(top, [[0.5, 0.1, 0.3, 0.1]], rtol=1e-6)
    rounded = completed("probabilities", np.array([[0.7, 0.2, 0.2], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(rounded, [[7 / 11, 2 / 11, 2 / 11], [1 / 3] * 3], rtol=1e-6)
    logits = completed("logits", np.array([[4.0, nan, -2.0]], np.float32))
    np.testing.assert_array_equal(logits, [[4, -8, -2]])
    zero = completed("probabilities", np.array([[nan, 0, nan, nan], [nan, 1, nan, nan]]))
    np.testing.assert_array_equal(zero, [[0, 1, 0, 0], [0, 1, 0, 0]])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_what_was_hidden_never_gets_more_than_what_was_shown(data: st.DataObject) -> None:
    classes, top = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 6))
    kind: Any = data.draw(st.sampled_from(["probabilities", "logits"]))
    numbers = st.lists(st.floats(-9, 9), min_size=classes, max_size=classes)
    full = np.array([data.draw(numbers)], np.float32)
    if kind == "probabilities":
        full = np.exp(full) / np.exp(full).sum()
        full = full.round(data.draw(st.integers(0, 3)))
    order = np.argsort(-full[0], kind="stable")
    partly = full.copy()
    partly[0, order[top:]] = np.nan
    found, values, says = combined(kind, [[partly[0]]], classes=classes)
    assert says[0] == order[0]
    if found == "label":
        assert (kind, top) == ("logits", 1)
        return
    assert np.isfinite(values).all()
    shown = values[0][order[:top]]
    assert values[0].max() <= shown.max() + 1e-6
    hidden = values[0][order[top:]]
    if len(hidden) and kind == "logits":
        assert hidden.max() <= shown.min() + 1e-5
    if kind == "probabilities":
        assert values.sum() == pytest.approx(1, abs=1e-5)


def test_several_answers_are_one() -> None:
    votes = [[np.array([2]), np.array([2]), np.array([0])], [np.array([1])]]
    kind, values, says = combined("label", votes, classes=3)
    assert (kind, says.tolist()) == ("probabilities", [2, 1])
    np.testing.assert_allclose(values, np.array([[1, 0, 2], [0, 3, 0]]) / 3, rtol=1e-6)
    nan = np.nan
    rows = [[np.array([0.6, nan, nan]), np.array([nan, 0.8])], [np.array([0.2, 0.3, 0.5])]]
    kind, values, says = combined("probabilities", rows, classes=3)
    np.testing.assert_allclose(values, [[0.35, 0.5, 0.15], [0.2, 0.3, 0.5]], rtol=1e-5)
    assert (kind, says.tolist()) == ("probabilities", [1, 2])
    top = [[np.array([nan, 7.0, nan])], [np.array([3.0, nan, nan])]]
    kind, values, says = combined("logits", top, classes=3)
    assert (kind, values.tolist()) == ("label", [1, 0])
