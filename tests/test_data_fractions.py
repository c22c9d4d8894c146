"""Shares of a split: held out for tests, or trained on in place of the whole."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.core.errors import ConfigError
from denature.data import Dataset, Split
from tests.samples import content

labelled = st.lists(st.integers(0, 4), min_size=4, max_size=200)


def split_of(labels: Sequence[int]) -> Split:
    """A split that is itself a part: its rows are not its positions."""
    count = len(labels)
    every_label = torch.zeros(2 * count, dtype=torch.int64)
    rows = torch.arange(1, 2 * count, 2)
    every_label[rows] = torch.tensor(labels)
    return Split(torch.zeros(2 * count, 1, 1, 1, dtype=torch.uint8), every_label, rows)


def per_class(split: Split) -> np.ndarray:
    return np.bincount(content(split).labels, minlength=5)


@settings(deadline=None)
@given(labels=labelled, share=st.floats(0.15, 0.85))
def test_dividing_is_stratified_disjoint_complete_and_repeatable(
    labels: list[int], share: float
) -> None:
    whole = split_of(labels)
    rest, cut = whole.divide(share, "holdout")
    assert sorted([*rest.rows.tolist(), *cut.rows.tolist()]) == whole.rows.tolist()
    assert abs(len(cut) - share * len(labels)) <= 0.5 + 1e-9
    assert (np.abs(per_class(cut) - share * per_class(whole)) <= 1 + 1e-9).all()
    again_rest, again_cut = whole.divide(share, "holdout")
    assert again_rest.rows.equal(rest.rows)
    assert again_cut.rows.equal(cut.rows)


def test_divisions_of_different_names_are_different() -> None:
    whole = split_of([0, 1] * 50)
    first, second = (whole.divide(0.3, name)[1].rows.tolist() for name in ("holdout", "other"))
    assert first != second


def test_what_is_cut_off_is_no_run_of_neighbours() -> None:
    """Data often lies sorted by where it was taken."""
    _, cut = split_of([0] * 100).divide(0.2, "holdout")
    steps = np.diff(cut.rows.numpy())
    assert len(set(steps.tolist())) > 3


@settings(deadline=None)
@given(
    each=st.integers(3, 40),
    seed=st.integers(0, 100),
    small=st.floats(0.05, 1),
    large=st.floats(0.05, 1),
)
def test_fractions_are_stratified_and_lie_in_larger_ones(
    each: int, seed: int, small: float, large: float
) -> None:
    small, large = sorted((small, large))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(5), each))
    whole = split_of(labels.tolist())
    less, more = whole.fraction(small), whole.fraction(large)
    assert set(less.rows.tolist()) <= set(more.rows.tolist()) <= set(whole.rows.tolist())
    for part, share in ((less, small), (more, large)):
        assert len(part) == max(1, round(share * len(whole)))
        assert len(part.rows.unique()) == len(part)
        assert (np.abs(per_class(part) - share * each) <= 1 + 1e-9).all()
        assert whole.fraction(share).rows.equal(part.rows)


def test_the_fraction_of_one_is_the_whole() -> None:
    whole = split_of([0, 1, 2, 2])
    assert whole.fraction(1).rows.equal(whole.rows)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"fraction is {share}"):
        split_of([0, 1]).fraction(share)


def test_a_part_keeps_the_row_numbers_of_the_whole(digits: Dataset) -> None:
    """Views and stored answers are keyed by them."""
    part = digits.train.fraction(0.1)
    assert part.images.data_ptr() == digits.train.images.data_ptr()
    assert set(part.rows.tolist()) <= set(digits.train.rows.tolist())
