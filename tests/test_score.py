"""What an audit's score says of thieves whose score is known, and how sure it is."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from benchmarks.score import CHOSEN, INTERVALS, LIMITS, OLD, SEEDS, Scenario, coverage, table
from denature.audit.result import Crossing
from denature.audit.score import (
    RESAMPLES,
    AdvantageCurve,
    SeedHits,
    advantage_curve,
    area,
    estimate,
    halves,
    pareto,
    queries_to,
    recovered,
    recovered_fidelity,
    worst,
)

ROOT = Path(__file__).parents[1]
IMAGES = 400


def hits(*shares: float, images: int = IMAGES) -> SeedHits:
    """Of each seed, the first images; shares are multiples of 1 / images."""
    return np.stack([np.arange(images) < round(share * images) for share in shares])


def curve_of(budgets: tuple[int, ...], *values: float, spread: float = 0.0) -> AdvantageCurve:
    """A curve of which the interval at each budget is the value +- `spread`."""
    draws = np.linspace(-1, 1, RESAMPLES)[:, None] * spread / 0.95
    at = np.array(values)
    return AdvantageCurve(budgets=budgets, values=at, draws=at + draws)


# Known scores


def test_a_perfect_copy_recovers_everything() -> None:
    [victim] = hits(0.9)
    found = recovered(np.stack([victim] * 3), hits(0.5, 0.52, 0.54), victim)
    assert found is not None
    assert found.value == 1
    # Of images that were not tested some may differ.
    assert 0.9 < found.low < 1 < found.high < 1.1


def test_a_thief_that_learned_nothing_recovers_nothing() -> None:
    baseline = hits(0.5, 0.52, 0.54)
    found = recovered(baseline, baseline, hits(0.9)[0])
    assert found is not None
    assert found.value == 0
    assert found.low < 0 < found.high


@pytest.mark.parametrize("share", [0.62, 0.64, 0.9])
def test_a_victim_that_is_no_better_than_the_baseline_is_not_measurable(share: float) -> None:
    baseline = hits(0.6, 0.62, 0.64)
    assert recovered(hits(1.0, 1.0, 1.0), baseline, hits(0.6)[0]) is None
    assert recovered(baseline, hits(share, share, share), hits(0.62)[0]) is None
    assert recovered(baseline, 0.9, hits(0.88)[0]) is None


def test_a_clone_halfway_recovers_half() -> None:
    for baseline in (0.2, hits(0.2, 0.2)):
        found = recovered(hits(0.5, 0.5), baseline, hits(0.8)[0])
        assert found is not None
        assert found.value == pytest.approx(0.5)
        assert 0.3 < found.low < 0.5 < found.high < 0.7


LABELS = np.random.default_rng(0).integers(10, size=IMAGES)
TRUTH: NDArray[np.int64] = LABELS
NOISE = np.random.default_rng(1).integers(10, size=IMAGES)
CONSTANT = np.zeros(IMAGES, np.int64)


@pytest.mark.parametrize(
    ("victim", "clone", "accuracy", "fidelity"),
    [
        (TRUTH, TRUTH, 1.0, 1.0),
        (TRUTH, NOISE, (np.mean(NOISE == LABELS) - 0.1) / 0.9, None),
        (NOISE, TRUTH, None, None),
        (NOISE, NOISE, None, 1.0),
        (CONSTANT, CONSTANT, None, 1.0),
    ],
)
def test_models_that_answer_the_truth_noise_and_a_constant(
    victim: NDArray[np.int64], clone: NDArray[np.int64], accuracy: float | None,
    fidelity: float | None,
) -> None:  # fmt: skip
    """Noise and a constant are no better than chance, and still can be copied."""
    found = recovered((clone == LABELS)[None], 0.1, victim == LABELS)
    assert (found and found.value) == (accuracy and pytest.approx(accuracy))
    same = recovered_fidelity((clone == victim)[None], 0.1)
    assert same is not None
    if fidelity is not None:
        assert same.value == pytest.approx(fidelity)
    else:
        assert same.low < 0 < same.high


def test_fidelity_is_measured_between_the_baselines_agreement_and_one() -> None:
    found = recovered_fidelity(hits(0.8, 0.9), hits(0.64, 0.66))
    assert found is not None
    assert found.value == pytest.approx((0.85 - 0.65) / (1 - 0.65))


def test_hits_on_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"on \[399, 400\] images"):
        recovered(hits(0.5), hits(0.4, images=399), hits(0.9)[0])
    with pytest.raises(ValueError, match="got 0 clones"):
        advantage_curve({}, 0.1, hits(0.9)[0])


# Intervals


def test_over_seeds_that_differ_the_interval_is_students_t() -> None:
    """Beside chance and a victim that is always right, a score is linear in the clone's mean."""
    shares = np.array([0.58, 0.6, 0.63])
    found = recovered(hits(*shares, images=20_000), 0.2, np.ones(20_000, bool))
    assert found is not None
    t = stats.t.interval(0.95, 2, shares.mean(), stats.sem(shares))
    wanted = [(end - 0.2) / 0.8 for end in t]
    assert (found.low, found.high) == pytest.approx(wanted, abs=0.15 * (wanted[1] - wanted[0]))


def test_beside_a_baseline_over_seeds_the_interval_is_fiellers() -> None:
    """Scores R at which clone - baseline - R (victim - baseline) is zero by a paired t test."""
    n = 20_000
    clones, baselines = np.array([0.55, 0.6, 0.62, 0.66]), np.array([0.3, 0.31, 0.36, 0.33])
    found = recovered(hits(*clones, images=n), hits(*baselines, images=n), hits(0.9, images=n)[0])
    scores = np.linspace(0, 1, 2001)
    differences = clones - baselines - scores[:, None] * (0.9 - baselines)
    held = scores[stats.ttest_1samp(differences, 0.0, axis=1).pvalue > 0.05]
    assert found is not None
    width = held.max() - held.min()
    assert width > 0.1
    assert (found.low, found.high) == pytest.approx((held.min(), held.max()), abs=0.1 * width)


def test_of_one_seed_the_interval_is_over_images() -> None:
    found = recovered(hits(0.6), 0.2, np.ones(IMAGES, bool))
    assert found is not None
    half = 1.96 * math.sqrt(0.6 * 0.4 / IMAGES) / 0.8
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_images_are_the_same_for_clone_and_victim() -> None:
    """A clone that errs where its victim errs is known better than one that errs elsewhere."""
    victim = hits(0.7)[0]
    alike, other = np.stack([victim] * 2), np.stack([victim[::-1]] * 2)
    assert alike.mean() == other.mean()
    widths = []
    for clone in (alike, other):
        found = recovered(clone, 0.1, victim)
        assert found is not None
        widths.append(found.high - found.low)
    assert 3 * widths[0] < widths[1]


def test_the_same_seed_gives_the_same_interval() -> None:
    clone, victim = hits(0.5, 0.6), hits(0.8)[0]
    assert recovered(clone, 0.1, victim, seed=3) == recovered(clone, 0.1, victim, seed=3)
    assert recovered(clone, 0.1, victim, seed=3) != recovered(clone, 0.1, victim, seed=4)


def test_estimates_are_over_seeds_and_images() -> None:
    found = estimate(hits(0.5, 0.6, 0.7))
    assert found.value == pytest.approx(0.6)
    assert (found.n, found.over) == (3, "seeds and images")
    assert estimate(hits(0.5)).over == "images"


FAR_APART = Scenario(
    seeds=2, images=180, level=2.0, spread_of_images=2.0, spread_of_seeds=0.5, copied=0.3
)
"""The standard deviation of seeds is seven points."""

OURS = [name for name in INTERVALS if name not in LIMITS]


@pytest.mark.parametrize("name", OURS)
def test_intervals_hold_the_true_score(name: str) -> None:
    """A short form of `python -m benchmarks.score`, where seeds count most."""
    found = [coverage(INTERVALS[name], replace(FAR_APART, seeds=seeds), 60) for seeds in SEEDS]
    held = sum(held * share for held, _, share in found) / sum(share for _, _, share in found)
    assert held >= 0.93


def test_where_seeds_are_resampled_intervals_miss_the_true_score() -> None:
    held, _, _ = coverage(INTERVALS[OLD], replace(FAR_APART, copied=0.0), 100)
    assert held < 0.85


def test_the_table_of_the_page_is_made_from_what_was_simulated() -> None:
    """To renew it: `python -m benchmarks.score --json results/score.json`."""
    found = json.loads((ROOT / "results" / "score.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "score.md").read_text(encoding="utf-8")
    assert table(found) in page
    assert f"{found['trials']:,} draws of each kind" in page
    held = {(row[0], row[1]): row[2] for row in found["intervals"]}
    assert {name for name, _ in held} == set(INTERVALS)
    assert min(least for (name, _), least in held.items() if name not in LIMITS) >= 0.93
    assert held[OLD, 2] < 0.8
    assert f"{100 * min(held[CHOSEN, seeds] for seeds in SEEDS):.1f} %" in page


# Halves and the worst thief


@given(n=st.integers(2, 500), seed=st.integers(0, 100))
def test_each_test_image_is_in_one_half(n: int, seed: int) -> None:
    split = halves(n, seed)
    assert sorted([*split.choosing, *split.reporting]) == list(range(n))
    assert len(split.reporting) - len(split.choosing) in (0, 1)
    assert all(np.array_equal(a, b) for a, b in zip(split, halves(n, seed), strict=True))


def test_one_image_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        halves(1, 0)


def test_the_worst_thief_is_the_best_on_the_half_that_chooses() -> None:
    split = halves(IMAGES, 0)
    one, other = np.zeros((2, IMAGES), bool), np.zeros((3, IMAGES), bool)
    one[:, split.choosing] = True
    other[:, split.reporting] = True
    assert worst({"one": one, "other": other}, split.choosing) == "one"
    assert worst({"one": one, "other": other}, split.reporting) == "other"


def test_of_equal_thieves_the_first_by_name_is_the_worst() -> None:
    split = halves(IMAGES, 0)
    same = {name: hits(*[0.3] * seeds) for name, seeds in (("naive", 3), ("labels", 1))}
    assert worst(same, split.choosing) == "labels"


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_reported_half_does_not_change_the_worst_thief(seed: int) -> None:
    random = np.random.default_rng(seed)
    split = halves(30, seed)
    clones = {name: random.random((2, 30)) < 0.5 for name in ("a", "b", "c")}
    chosen = worst(clones, split.choosing)
    for clone in clones.values():
        clone[:, split.reporting] = random.random((2, 15)) < random.random()
    assert worst(clones, split.choosing) == chosen


# Curves


def test_the_area_is_the_mean_over_the_logarithm_of_the_budget() -> None:
    found = area(curve_of((10, 100, 10_000), 0.2, 0.4, 0.8, spread=0.1))
    assert found.value == pytest.approx((0.3 * 1 + 0.6 * 2) / 3)
    assert (found.low, found.high) == pytest.approx((0.4, 0.6), abs=1e-3)


def test_the_area_of_one_budget_is_its_value() -> None:
    found = area(curve_of((500,), 0.7))
    assert (found.value, found.low, found.high) == (0.7, 0.7, 0.7)


@pytest.mark.parametrize(
    ("budgets", "values", "share", "queries"),
    [
        ((100, 10_000), (0.25, 0.75), 0.5, 1000.0),
        ((100, 10_000), (0.25, 0.75), 0.25, 100.0),
        ((100, 10_000), (0.25, 0.75), 0.75, 10_000.0),
        ((100, 10_000), (0.25, 0.75), 0.9, None),
        # Below the smallest budget, from nothing at one query.
        ((100,), (1.0,), 0.5, 10.0),
        ((1, 10), (0.9, 1.0), 0.5, 1.0),
        # A thief with more queries may leave some out.
        ((100, 1000, 10_000), (0.6, 0.2, 0.9), 0.6, 100.0),
        ((100, 1000, 10_000), (0.6, 0.2, 0.9), 0.7, 1000 * 10 ** (1 / 3)),
        ((100, 10_000), (-0.5, 0.5), 0.25, 1000.0),
    ],
)
def test_queries_to_a_share_are_interpolated(
    budgets: tuple[int, ...], values: tuple[float, ...], share: float, queries: float | None
) -> None:
    found = queries_to(share, curve_of(budgets, *values))
    assert found.value == (queries and pytest.approx(queries))


def test_the_interval_of_queries_lies_where_the_ends_of_the_advantage_reach_the_share() -> None:
    curve = curve_of((100, 10_000), 0.25, 0.75, spread=0.125)
    found = queries_to(0.5, curve)
    assert found.low == pytest.approx(10**2.5, rel=0.01)
    assert found.high == pytest.approx(10**3.5, rel=0.01)
    beyond = queries_to(0.7, curve)
    assert beyond.low is not None
    assert beyond.value is not None
    assert beyond.high is None
    assert queries_to(0.95, curve) == Crossing(value=None, low=None, high=None)


@given(
    values=st.lists(st.floats(-0.5, 1.2), min_size=3, max_size=3),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_larger_share_takes_no_fewer_queries(
    values: list[float], shares: tuple[float, float]
) -> None:
    curve = curve_of((50, 200, 5000), *values, spread=0.1)
    small, large = (queries_to(share, curve) for share in sorted(shares))
    for name in ("value", "low", "high"):
        least, most = (getattr(found, name) or math.inf for found in (small, large))
        assert least <= most * (1 + 1e-9)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        queries_to(0.0, curve_of((10,), 0.5))


def test_a_curve_of_clones_has_the_score_of_each() -> None:
    victim, baseline = hits(0.9)[0], hits(0.3, 0.3)
    clones = {1000: hits(0.75, 0.75), 10: hits(0.45, 0.45)}
    curve = advantage_curve(clones, baseline, victim)
    assert curve is not None
    assert curve.budgets == (10, 1000)
    assert curve.values == pytest.approx([0.25, 0.75])
    crossing = queries_to(0.5, curve)
    assert crossing.value == pytest.approx(100)
    assert crossing.low is not None
    assert crossing.high is not None
    assert 10 < crossing.low < 100 < crossing.high < 1000
    assert area(curve).value == pytest.approx(0.5)


# The front of prices and scores


def test_the_front_leaves_out_what_another_point_beats() -> None:
    points = [(0.0, 1.0), (0.1, 0.5), (0.1, 0.6), (0.2, 0.5), (0.3, 0.1), (0.1, 0.5)]
    assert pareto(points) == (0, 1, 4, 5)
    assert pareto([]) == ()


few = st.sampled_from([0.0, 0.1, 0.2, 0.3])


@given(points=st.lists(st.tuples(few, few), min_size=1, max_size=12))
def test_each_point_is_on_the_front_or_beaten_by_it(points: list[tuple[float, float]]) -> None:
    front = pareto(points)
    assert front
    for i, (price, left) in enumerate(points):
        beaten = [
            j
            for j in front
            if points[j] != (price, left) and points[j][0] <= price and points[j][1] <= left
        ]
        assert (i in front) == (not beaten)
