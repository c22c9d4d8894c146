"""Intervals against the literature and against scipy."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from denature.core import stats as stats_module
from denature.core.stats import (
    Estimate,
    Score,
    against_margin,
    mean_over_seeds,
    paired_difference,
    pooled,
    proportion,
    unpaired_difference,
)

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
    assert (estimate.low, estimate.high) == pytest.approx(
        (expected.low, expected.high), rel=5e-6, abs=1e-6
    )


def test_a_distance_that_rounds_below_its_least_is_its_least() -> None:
    found = stats_module.mean_over_images([-2e-7, 1e-7])
    assert (found.value, found.low) == (0, 0)


def test_one_seed_says_nothing_about_the_spread() -> None:
    estimate = mean_over_seeds([0.9])
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.9, 0.0, 1.0, 1)
    assert not estimate.significant


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


N = 200


def score(right: int, *, first: int = 0, test: str = "t", known: bool = True) -> Score:
    """Of a run that answers so many of `N` test images rightly, from the `first` on."""
    hits = np.zeros(N, bool)
    hits[first : first + right] = True
    return Score(proportion(right, N), test, hits if known else None)


def test_differences_are_paired_by_seed_and_by_nothing_else() -> None:
    """Paired, the difference is 0.1 at each seed; in any other order it spreads."""
    control = {1: score(40), 2: score(100), 3: score(160)}
    treated = {3: score(180), 1: score(60), 2: score(120)}
    difference = paired_difference(treated, control)
    assert difference is not None
    assert difference.value == pytest.approx(0.1)
    assert (difference.n, difference.over) == (3, "seeds and images")
    # What is left is what the 60 images leave open that differ at one seed each.
    variance = (60 / 9 + 2) / (N + 2) - (20 / (N + 2)) ** 2
    width = 2 * 1.959964 * math.sqrt(variance / (N + 2))
    assert difference.high - difference.low == pytest.approx(width, rel=1e-4)


def test_a_seed_that_only_one_side_has_is_left_out() -> None:
    ours, theirs = {1: score(60), 2: score(140)}, {1: score(40), 2: score(100)}
    with_strangers = paired_difference(ours | {8: score(0)}, theirs | {9: score(N)})
    assert with_strangers == paired_difference(ours, theirs)
    assert paired_difference({1: score(60)}, {2: score(40)}) is None


@pytest.mark.parametrize(("won", "lost", "n"), [(2, 0, 198), (0, 0, 358), (30, 10, 358)])
def test_of_one_seed_the_difference_is_paired_by_image(won: int, lost: int, n: int) -> None:
    """Bonett and Price 2012: one is added to either side that differs, two to all, then Wald."""
    ours, theirs = np.zeros(n, bool), np.zeros(n, bool)
    ours[:won], theirs[won : won + lost] = True, True
    sides = [Score(proportion(int(it.sum()), n), "t", it) for it in (ours, theirs)]
    difference = paired_difference({0: sides[0]}, {0: sides[1]})
    assert difference is not None
    assert (difference.n, difference.over) == (n, "images")
    p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert (difference.low, difference.high) == pytest.approx((p - q - half, p - q + half))


def test_two_images_won_at_every_seed_settle_nothing() -> None:
    """An exact McNemar test of two images has p = 0.5; a spread of 0 over seeds says nothing."""
    ours = {seed: score(102) for seed in range(3)}
    theirs = {seed: score(100) for seed in range(3)}
    difference = paired_difference(ours, theirs)
    assert difference is not None
    assert difference.low < 0 < difference.high
    assert against_margin(difference) == "undecided"


@pytest.mark.parametrize("unknown", ["one side", "both sides", "other images"])
def test_where_hits_cannot_be_paired_the_interval_is_wider(unknown: str) -> None:
    known = unknown == "other images"
    ours = {seed: score(150, known=known, test="other") for seed in range(3)}
    theirs = {seed: score(130, known=unknown != "both sides") for seed in range(3)}
    paired = paired_difference({s: score(150) for s in range(3)}, {s: score(130) for s in range(3)})
    wider = paired_difference(ours, theirs)
    assert paired is not None
    assert wider is not None
    assert wider.low < paired.low
    assert wider.high > paired.high


def test_without_hits_the_difference_is_the_published_one() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10."""
    difference = paired_difference({0: Score(proportion(56, 70))}, {0: Score(proportion(48, 80))})
    assert difference is not None
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, N), st.integers(0, N)), min_size=1),
    st.booleans(),
)
def test_a_difference_lies_in_its_interval_and_changes_sign_with_its_sides(
    pairs: dict[int, tuple[int, int]], known: bool
) -> None:
    first = {seed: score(pair[0], known=known) for seed, pair in pairs.items()}
    second = {seed: score(pair[1], known=known) for seed, pair in pairs.items()}
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there is not None
    assert back is not None
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, N), min_size=1, max_size=9))
def test_pooled_seeds_are_never_surer_than_the_images_of_one(counts: list[int]) -> None:
    found = [proportion(count, N) for count in counts]
    estimate = pooled(found)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert (
        estimate.high - estimate.low
        >= 0.999 * statistics.fmean(min(1, e.high) - max(0, e.low) for e in found)
        or estimate.low in (0, 1)
        or estimate.high in (0, 1)
    )
    if len(counts) == 1:
        assert estimate == found[0]


def test_seeds_and_images_add_as_squares() -> None:
    seeds, images = mean_over_seeds([0.4, 0.5, 0.6], bounds=(-9, 9)), proportion(500, 1000)
    estimate = pooled([proportion(count, 1000) for count in (400, 500, 600)], bounds=(-9, 9))
    assert (estimate.n, estimate.over) == (3, "seeds and images")
    wanted = math.hypot(seeds.high - 0.5, images.high - 0.5)
    assert estimate.high - estimate.value == pytest.approx(wanted, rel=0.02)


def test_networks_are_compared_by_the_spread_between_them() -> None:
    """Of one network against three: the prediction interval of Student's t, then the images."""
    control = np.repeat([[0.4], [0.5], [0.6]], 10_000, axis=1)
    found = unpaired_difference(np.full((1, 10_000), 0.7), control)
    assert found.value == pytest.approx(0.2)
    half = 4.302653 * 0.1 * math.sqrt(1 + 1 / 3)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)
    alone = unpaired_difference(control[:1], control[1:2])
    assert not alone.significant
    # As many networks on both sides share a variance; Welch's test is for others.
    for ours, alike in (
        ([0.7, 0.8, 0.85], True),
        ([0.7, 0.8], False),
        ([0.7, 0.8, 0.9, 0.8], False),
    ):
        wanted = stats.ttest_ind(ours, [0.4, 0.5, 0.6], equal_var=alike).confidence_interval(0.95)
        of_several = unpaired_difference(np.repeat([[it] for it in ours], 10_000, axis=1), control)
        assert of_several.low == pytest.approx(max(-1, wanted.low), rel=1e-2, abs=1e-3)
        assert of_several.high == pytest.approx(min(1, wanted.high), rel=1e-2)


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (-0.05, -0.08, -0.02, "below"),
        (-0.05, -0.08, -0.005, "undecided"),  # beyond 0, and not beyond the margin
        (0.05, 0.02, 0.08, "above"),
        (0.0, -0.005, 0.005, "within"),
        (0.0, -0.05, 0.05, "undecided"),  # not significant is not equal
    ],
)
def test_a_difference_is_held_against_a_margin(
    value: float, low: float, high: float, said: str
) -> None:
    assert against_margin(Estimate(value, low, high, 3, "seeds and images"), 0.01) == said
    assert against_margin(Estimate(value, -1, 1, 1, "seeds"), 0.01) == "undecided"
    assert against_margin(None) == "undecided"


@pytest.mark.parametrize(
    ("freedom", "off"),
    [*((n, 1e-13) for n in range(1, 11)), (2.5, 1e-13), (11, 3e-6), (30, 1e-7), (359, 1e-12)],
)
def test_quantiles_are_scipys(freedom: float, off: float) -> None:
    from scipy.special import stdtrit

    assert stats_module._t95(freedom) == pytest.approx(float(stdtrit(freedom, 0.975)), rel=off)
