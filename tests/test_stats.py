"""Intervals against the literature and against scipy."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from denature.core import stats as stats_module
from denature.core.stats import mean_over_seeds, paired_difference, proportion

shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # With no failure or no success one end is z^2 / (n + z^2).
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_a_wilson_interval_is_the_published_one(
    successes: int, n: int, low: float, high: float
) -> None:
    estimate = proportion(successes, n)
    assert estimate.value == successes / n
    assert (estimate.n, estimate.over) == (n, "images")
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(n=st.integers(1, 20_000), share=shares)
def test_a_wilson_interval_is_that_of_scipy(n: int, share: float) -> None:
    successes = round(share * n)
    estimate = proportion(successes, n)
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= estimate.low <= estimate.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_what_is_no_proportion_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        proportion(successes, n)


@pytest.mark.parametrize(
    ("values", "quantile"),
    # Quantiles of Student's t at 0.975, from printed tables.
    [([0.5, 0.6], 12.706), ([0.5, 0.6, 0.55], 4.303), ([0.5, 0.6, 0.55, 0.58, 0.52], 2.776)],
)
def test_the_interval_over_seeds_has_the_t_quantile_of_the_tables(
    values: list[float], quantile: float
) -> None:
    estimate = mean_over_seeds(values, bounds=(-10, 10))
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    assert estimate.value == pytest.approx(statistics.fmean(values))
    assert (estimate.n, estimate.over) == (len(values), "seeds")
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-3)
    assert estimate.value - estimate.low == pytest.approx(half, rel=1e-3)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=12, unique=True))
def test_the_interval_over_seeds_is_that_of_scipy(thousandths: list[int]) -> None:
    values = [value / 1000 for value in thousandths]
    estimate = mean_over_seeds(values, bounds=(-100, 100))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_one_seed_says_nothing_about_the_spread() -> None:
    estimate = mean_over_seeds([0.9])
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.9, 0.0, 1.0, 1)
    difference = paired_difference({3: 0.9}, {3: 0.8})
    assert difference is not None
    assert (difference.low, difference.high, difference.n) == (-1.0, 1.0, 1)


def test_an_interval_over_seeds_ends_at_what_a_share_can_be() -> None:
    estimate = mean_over_seeds([0.9, 1.0])
    assert estimate.low < 0.5
    assert estimate.high == 1.0
    assert mean_over_seeds([0.0, 0.1]).low == 0.0


def test_equal_seeds_have_an_interval_of_no_width() -> None:
    estimate = mean_over_seeds([0.75, 0.75, 0.75])
    assert (estimate.value, estimate.low, estimate.high) == (0.75, 0.75, 0.75)


def test_a_mean_over_no_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="no seeds"):
        mean_over_seeds([])


def test_differences_are_paired_by_seed_and_by_nothing_else() -> None:
    """Paired, the difference is 0.1 without spread; in any other order it has some."""
    control = {1: 0.2, 2: 0.5, 3: 0.8}
    treated = {3: 0.9, 1: 0.3, 2: 0.6}
    difference = paired_difference(treated, control)
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (difference.n, difference.over) == (3, "seeds")


def test_a_seed_that_only_one_side_has_is_left_out() -> None:
    with_strangers = paired_difference({1: 0.3, 2: 0.7, 8: 0.0}, {1: 0.2, 2: 0.5, 9: 1.0})
    assert with_strangers == paired_difference({1: 0.3, 2: 0.7}, {1: 0.2, 2: 0.5})
    assert paired_difference({1: 0.3}, {2: 0.2}) is None


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 9), st.tuples(shares, shares), min_size=1))
def test_a_difference_lies_in_its_interval_and_changes_sign_with_its_sides(
    pairs: dict[int, tuple[float, float]],
) -> None:
    first = {seed: pair[0] for seed, pair in pairs.items()}
    second = {seed: pair[1] for seed, pair in pairs.items()}
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there is not None
    assert back is not None
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )


@pytest.mark.parametrize("freedom", range(1, 12))
def test_the_quantiles_of_few_seeds_are_scipys(freedom: int) -> None:
    from scipy.special import stdtrit

    assert stats_module._t95(freedom) == pytest.approx(float(stdtrit(freedom, 0.975)), rel=1e-14)
