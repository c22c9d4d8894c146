"""The score of an audit: what a clone recovers of a victim's advantage, and with how many queries.

`docs/score.md` gives the reasons. Hits are bool arrays, seeds x images: whether the clone of each
seed answers each test image correctly, or, for fidelity, as the undefended victim does. Functions
take the rows of one half of the test images; `halves` makes the halves once for a whole audit.

Intervals come from joint draws. The images are resampled, the same ones for victim, baseline and
clones. Two or three seeds are too few to be resampled, so the seeds' part of each draw is Student's
t: a mean over seeds moves by random multiples of its residuals, whose distribution makes the
interval of each linear combination of means the t interval. `benchmarks/score.py` simulates both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from denature.audit.result import Crossing, Interval
from denature.core.seeds import generator
from denature.core.stats import Estimate, pooled, proportion

SeedHits: TypeAlias = NDArray[np.bool_]
"""Bool, seeds x images, of one recipe on the same images as all others in a call."""

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 2000

TAIL = RESAMPLES // 40
"""Draws beyond either end of a 95 % interval, the end included."""


class Halves(NamedTuple):
    """Positions of test images, ascending int64; the worst thief is chosen on the first half."""

    choosing: NDArray[np.int64]
    reporting: NDArray[np.int64]


def halves(n: int, seed: int) -> Halves:
    """Split `n` test images at random into halves; an odd image is reported.

    Raises:
        ValueError: fewer than two images.
    """
    if n < 2:
        raise ValueError(f"{n} test images cannot be halved; wanted are at least 2.")
    order = generator(seed, "audit halves").permutation(n)
    return Halves(np.sort(order[: n // 2]), np.sort(order[n // 2 :]))


def estimate(hits: SeedHits) -> Estimate:
    """Accuracy or fidelity over seeds and images; of one seed, over images."""
    return pooled([proportion(int(row.sum()), len(row)) for row in hits])


def worst(clones: Mapping[str, SeedHits], choosing: NDArray[np.int64]) -> str:
    """The thief with the largest mean on the choosing half; of equal ones the first by name.

    Args:
        clones: hits on all test images, by thief.
        choosing: positions of the choosing half; the other images are not looked at.
    """
    return min(clones, key=lambda thief: (-clones[thief][:, choosing].mean(), thief))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AdvantageCurve:
    """Recovered advantage at each budget, with joint draws for the intervals of its functions."""

    budgets: tuple[int, ...]
    values: Floats
    draws: Floats
    """`RESAMPLES` x budgets; a row is NaN where the victim is no better than the baseline."""

    @property
    def intervals(self) -> list[Interval]:
        """The recovered advantage at each budget."""
        return [
            _interval(float(value), draws)
            for value, draws in zip(self.values, self.draws.T, strict=True)
        ]


def advantage_curve(
    clones: Mapping[int, SeedHits],
    baseline: SeedHits | float,
    victim: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> AdvantageCurve | None:
    """(clone - baseline) / (victim - baseline) at each budget; None where it is not measurable.

    It is not measurable where the interval of victim - baseline holds zero or lies below.

    Args:
        clones: hits by budget, for instance those of the worst thief at each.
        baseline: hits of the baseline, or its share of hits if that is known, such as chance. As
            many seeds as a clone has are taken to be the same seeds.
        victim: bool, images; for fidelity `np.ones(images, bool)`.
        seed: of the draws.

    Raises:
        ValueError: no budget, or hits on different numbers of images.
    """
    budgets = tuple(sorted(clones))
    columns: list[NDArray[np.bool_]] = [victim[None], *(clones[budget] for budget in budgets)]
    if not isinstance(baseline, float):
        columns.append(baseline)
    _check(columns, clones=len(budgets))
    means, draws = np.array([hits.mean() for hits in columns])[None], _draws(columns, seed)
    if isinstance(baseline, float):
        means, draws = (
            np.pad(m, ((0, 0), (0, 1)), constant_values=baseline) for m in (means, draws)
        )
    gaps = draws[:, 0] - draws[:, -1]
    if _ends(means[0, 0] - means[0, -1], gaps)[0] <= 0:
        return None
    return AdvantageCurve(budgets=budgets, values=_share(means)[0], draws=_share(draws))


def recovered(
    clone: SeedHits, baseline: SeedHits | float, victim: NDArray[np.bool_], *, seed: int = 0
) -> Interval | None:
    """The recovered advantage at one budget; see `advantage_curve`."""
    curve = advantage_curve({1: clone}, baseline, victim, seed=seed)
    return None if curve is None else curve.intervals[0]


def recovered_fidelity(
    agreement: SeedHits, baseline: SeedHits | float, *, seed: int = 0
) -> Interval | None:
    """(agreement - baseline's agreement) / (1 - baseline's agreement); see `advantage_curve`.

    Args:
        agreement: whether the clone's class is the undefended victim's; bool, seeds x images.
        baseline: the same of the baseline, or its share.
        seed: of the draws.
    """
    return recovered(agreement, baseline, np.ones(agreement.shape[1], bool), seed=seed)


def area(curve: AdvantageCurve) -> Interval:
    """The mean of the recovered advantage over the logarithm of the budget, by trapezoids.

    It reaches from the smallest budget to the largest; of one budget it is the value itself.
    """
    steps = np.diff(np.log(curve.budgets))
    weights = np.ones(1)
    if len(steps):
        weights = (np.append(steps, 0.0) + np.append(0.0, steps)) / (2 * steps.sum())
    return _interval(float(curve.values @ weights), curve.draws @ weights)


def queries_to(share: float, curve: AdvantageCurve, *, start: int = 1) -> Crossing:
    """Queries at which the recovered advantage first reaches `share`.

    Between budgets the advantage is interpolated linearly over the logarithm of the queries, and
    below the smallest one from no advantage at `start`. The running maximum of the curve counts:
    a thief with more queries may leave some out. The interval reaches from where the upper ends of
    the advantage's intervals reach the share to where the lower ends do. A running maximum of each
    draw would favour few queries instead, because the largest of several errors lies above zero.

    Args:
        share: above 0, such as 0.5.
        curve: recovered advantage by budget.
        start: queries without any advantage, at least 1: those about images that the thief owns.

    Raises:
        ValueError: the share is not above 0.
    """
    if not share > 0:
        raise ValueError(f"Queries to a share of {share} were requested; wanted is one above 0.")
    ends = [(found.value, found.high, found.low) for found in curve.intervals]
    value, low, high = (
        _crossing(share, heights, curve.budgets, start) for heights in zip(*ends, strict=True)
    )
    return Crossing(value=value, low=low, high=high)


def constant_hits(classes: NDArray[np.int64], count: int) -> SeedHits | float:
    """What the best answer that looks at no image is right on.

    It is 1 / `count`, known without an interval, where the classes may be equally frequent, by a
    chi-square test at 1 %, so that chance differences of a small sample move no score; else the
    images of the largest class, 1 x images, which vary with the sample as those of a clone do.

    Args:
        classes: of the images, from 0.
        count: number of classes.
    """
    from scipy.stats import chisquare

    frequencies = np.bincount(classes, minlength=count)
    if chisquare(frequencies).pvalue >= 0.01:
        return 1 / count
    hits: SeedHits = (classes == frequencies.argmax())[None]
    return hits


def pareto(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Positions of the (price, recovered) points that no other one beats; less is better in both.

    One point beats another if it is no worse in both and better in one.
    """
    return tuple(
        i
        for i, (price, left) in enumerate(points)
        if not any(p <= price and r <= left and (p, r) != (price, left) for p, r in points)
    )


def _check(columns: Sequence[NDArray[np.bool_]], *, clones: int) -> None:
    counts = sorted({hits.shape[1] for hits in columns})
    if not clones or len(counts) != 1:
        raise ValueError(
            f"A score got {clones} clones, with hits on {counts} images; wanted is at "
            "least one, on the same half of the test images as its baseline and its victim."
        )


def _draws(columns: Sequence[NDArray[np.bool_]], seed: int) -> Floats:
    """Draws of the mean of each column of hits, `RESAMPLES` x columns."""
    images = columns[0].shape[1]
    shares = np.stack([hits.mean(axis=0) for hits in columns], axis=1)
    # In parts: a product with integers first copies them to float64.
    parts = np.array_split(_image_counts(images, seed), 20)
    draws = np.concatenate([part @ shares for part in parts]) / images
    # An image more on which only one of two differs, as in Bonett and Price's interval: where all
    # answers are right or equal, a resample of them would look certain.
    draws += generator(seed, "pseudo-images").normal(0, 1 / images, draws.shape)
    for column, hits in enumerate(columns):
        accuracy = hits.mean(axis=1)
        draws[:, column] += _seed_factors(len(hits), seed) @ (accuracy - accuracy.mean())
    clipped: Floats = draws.clip(0, 1)
    return clipped


@lru_cache(maxsize=2)
def _image_counts(images: int, seed: int) -> NDArray[np.uint8]:
    """How often each image is in each resample, `RESAMPLES` x images."""
    random = generator(seed, "resampled images")
    counts = np.empty((RESAMPLES, images), np.uint8)
    for row in counts:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images)
    counts.flags.writeable = False
    return counts


@lru_cache(maxsize=16)
def _seed_factors(seeds: int, seed: int) -> Floats:
    """Factors of the residuals of seeds in each draw, `RESAMPLES` x seeds.

    z / sqrt(chi2 seeds), with z standard normal and chi2 of seeds - 1 degrees of freedom: times the
    residuals of any values this is Student's t times the standard error of their mean. With the
    same factors for all recipes, seeds are paired. One seed has no residuals.
    """
    random = generator(seed, "seeds", seeds)
    normal = random.normal(size=(RESAMPLES, seeds))
    if seeds == 1:
        return np.zeros_like(normal)
    spread = random.chisquare(seeds - 1, size=(RESAMPLES, 1))
    factors: Floats = normal / np.sqrt(spread * seeds)
    return factors


def _share(means: Floats) -> Floats:
    """Recovered advantage from means of victim, clones and baseline, draws x (1 + budgets + 1)."""
    gaps = means[:, :1] - means[:, -1:]
    return (means[:, 1:-1] - means[:, -1:]) / np.where(gaps > 0, gaps, np.nan)


def _interval(value: float, draws: Floats) -> Interval:
    low, high = _ends(value, draws)
    return Interval(value=value, low=low, high=high)


def _ends(value: float, draws: Floats) -> tuple[float, float]:
    """Ends of the 95 % interval; an undefined draw counts as the least and as the largest."""
    unknown = np.isnan(draws)
    low = np.sort(np.where(unknown, -np.inf, draws))[TAIL - 1]
    high = np.sort(np.where(unknown, np.inf, draws))[-TAIL]
    return float(min(low, value)), float(max(high, value))


def _crossing(
    share: float, heights: Sequence[float], budgets: Sequence[int], start: int
) -> float | None:
    """Queries at which a curve through (start, 0) first reaches `share`; None beyond its end."""
    logs = np.log([min(start, budgets[0]), *budgets])
    highest = np.maximum.accumulate([0.0, *heights])
    if highest[-1] < share:
        return None
    after = int((highest >= share).argmax())
    part = (share - highest[after - 1]) / (highest[after] - highest[after - 1])
    return float(np.exp(logs[after - 1] + part * (logs[after] - logs[after - 1])))
