"""Estimates with their interval, their n and the variation that the interval covers.

A number that stands for a training recipe has two sources of error: another seed trains another
network, and another test set holds other images. Runs of one recipe share their test images, so
their spread shows the first alone. Where both are known, each gives an interval, and the distances
of their ends from the value add as squares (MOVER: Zou and Donner 2008, Statistics in Medicine 27).
`benchmarks/coverage.py` simulates how often such intervals hold the true value.
"""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)
"""Key of a seed, shared by both samples."""

Z95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; accuracies are shares in [0, 1], never percent."""

    value: float
    low: float
    high: float
    n: int
    over: Literal["images", "seeds", "seeds and images"]
    """Variation that the interval covers: test images, seeds, or both. `n` counts images of an
    estimate over images, and seeds of the others."""

    @property
    def significant(self) -> bool:
        """Whether the interval is informative; one seed shows no spread over seeds."""
        return self.over == "images" or self.n > 1

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high or self.n < 1:  # NaN fails too
            raise ValueError(
                f"an estimate is {self.value} in [{self.low}, {self.high}] with n {self.n}; wanted "
                "are low <= value <= high and n >= 1"
            )


def proportion(successes: int, n: int) -> Estimate:
    """The share of `successes` among `n` images with its Wilson score interval.

    Wilson 1927. Unlike the normal approximation it stays inside [0, 1] and is sound near both ends,
    which is where accuracies live.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} are no proportion.")
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    # Rounding must not put the value outside of its own interval.
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Estimate(p, low, high, n, "images")


T95 = (
    *(12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934),
    *(2.5705818356363146, 2.4469118511449693, 2.3646242515927845, 2.306004135204166),
    *(2.262157162798205, 2.228138851986274),
)
"""Student's t at 0.975 for 1 to 10 degrees of freedom. Training does without scipy; importing it
would be a tenth of the time of a recipe that is finished and requested again."""


def _t95(freedom: float) -> float:
    if freedom in range(1, len(T95) + 1):
        return T95[int(freedom) - 1]
    if freedom > len(T95):
        # Cornish and Fisher's expansion: 5e-6 off at 11 degrees of freedom.
        z = Z95
        return (
            z
            + (z**3 + z) / (4 * freedom)
            + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
            + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
        )
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def mean_over_seeds(
    values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """The mean of one value per seed with its Student t interval, clipped to `bounds`.

    With a single seed nothing is known about the spread: the interval is the whole of `bounds`.
    """
    if not values:
        raise ValueError("A mean over no seeds was requested; wanted is at least one value.")
    n, mean = len(values), statistics.fmean(values)
    low, high = bounds
    if n > 1:
        half = _t95(n - 1) * statistics.stdev(values) / math.sqrt(n)
        low, high = max(low, mean - half), min(high, mean + half)
    return Estimate(mean, low, high, n, "seeds")


def pooled(found: Sequence[Estimate], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Pool one estimate over images per seed into one over seeds and images.

    The test images are taken to be the same for all seeds, as they are for runs of one data set, so
    the images' part of the interval does not shrink with the number of seeds. A single estimate is
    returned as it is: over images.

    Args:
        found: one estimate per seed; at least one.
        bounds: range of possible values.
    """
    if len(found) == 1:
        return found[0]
    seeds = mean_over_seeds([estimate.value for estimate in found], bounds=bounds)
    below = statistics.fmean(estimate.value - estimate.low for estimate in found)
    above = statistics.fmean(estimate.high - estimate.value for estimate in found)
    return _both(seeds, below, above, bounds)


def _both(seeds: Estimate, below: float, above: float, bounds: tuple[float, float]) -> Estimate:
    """The interval over seeds, widened by the reach of that over images on either side."""
    value, (least, most) = seeds.value, bounds
    low = max(least, value - math.hypot(value - seeds.low, below))
    high = min(most, value + math.hypot(seeds.high - value, above))
    return Estimate(value, min(low, value), max(high, value), seeds.n, "seeds and images")


def mean_over_images(values: Sequence[float], *, least: float = 0.0) -> Estimate:
    """The mean of one distance an image, with its Student t interval, clipped at `least`.

    Distances are skewed: of a few images such an interval is too narrow (docs/statistics.md).

    Args:
        values: at least `least` each; of one alone nothing is known, and the interval has no end.
        least: smallest possible value; a distance is at least 0, a nasty teacher's loss is not.
    """
    # A distance may round to just below the least.
    n, mean = len(values), max(least, statistics.fmean(values))
    half = _t95(n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, max(least, mean - half), mean + half, n, "images")


class Score(NamedTuple):
    """The accuracy of one run, and whether each test image was answered correctly."""

    accuracy: Estimate
    test: str = ""
    """Digest of the test images; scores with different ones cannot be compared image by image."""
    hits: "NDArray[np.bool_ | np.float64] | None" = None
    """Of the mean of several runs, the share of them that did."""


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of several runs as one; its interval is over images."""
    if len(scores) == 1:
        return scores[0]
    accuracies = [score.accuracy for score in scores]
    value, low, high = (
        statistics.fmean(getattr(accuracy, name) for accuracy in accuracies)
        for name in ("value", "low", "high")
    )
    alike = len({score.test for score in scores}) == 1
    hits = _mean_hits(scores) if alike else None
    return Score(
        Estimate(value, low, high, min(accuracy.n for accuracy in accuracies), "images"),
        scores[0].test if alike else "",
        hits,
    )


def paired_difference(treated: Mapping[K, Score], control: Mapping[K, Score]) -> Estimate | None:
    """The mean of treated minus control over shared seeds; None without a shared seed.

    Pairing by seed removes the effects of the seed on both: order, views, initial weights.
    Pairing by image removes the difficulty of test images. Where the hits of a run are unknown, the
    images' part is that of two independent samples, which is too wide and never too narrow for
    networks that find the same images hard (Newcombe 1998, method 10).

    With one seed the interval is over images alone.
    """
    seeds = [seed for seed in treated if seed in control]
    if not seeds:
        return None
    ours, theirs = [treated[seed] for seed in seeds], [control[seed] for seed in seeds]
    values = [a.accuracy.value - b.accuracy.value for a, b in zip(ours, theirs, strict=True)]
    over = mean_over_seeds(values, bounds=(-1.0, 1.0))
    below, above = _between_images(ours, theirs, over.value)
    if len(seeds) > 1:
        return _both(over, below, above, (-1.0, 1.0))
    low, high = max(-1.0, over.value - below), min(1.0, over.value + above)
    return Estimate(over.value, low, high, ours[0].accuracy.n, "images")


class HasInterval(Protocol):
    """A value with an interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Difference(NamedTuple):
    """A difference of two estimates, with its 95 % interval."""

    value: float
    low: float
    high: float


def less(a: HasInterval, b: HasInterval) -> Difference:
    """A less B, with an interval that takes them for independent.

    Distances of the ends add as squares (MOVER: Zou and Donner 2008, Statistics in Medicine 27).
    """
    value = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Difference(value, value - below, value + above)


def _between_images(
    ours: Sequence[Score], theirs: Sequence[Score], value: float
) -> tuple[float, float]:
    """Reach of the images' part of a paired difference, below and above `value`."""
    alike = {score.test for score in (*ours, *theirs)} == {ours[0].test}
    our_hits, their_hits = _mean_hits(ours), _mean_hits(theirs)
    if alike and our_hits is not None and their_hits is not None:
        return _reach(our_hits - their_hits, value)
    pairs = [(a.accuracy, b.accuracy) for a, b in zip(ours, theirs, strict=True)]
    apart = [less(a, b) for a, b in pairs]
    below = statistics.fmean(difference.value - difference.low for difference in apart)
    return below, statistics.fmean(difference.high - difference.value for difference in apart)


def _mean_hits(scores: Sequence[Score]) -> "NDArray[np.float64] | None":
    """Share of the runs that answer each test image correctly; None if unknown."""
    import numpy as np

    known = [score.hits.astype(np.float64) for score in scores if score.hits is not None]
    return np.mean(known, axis=0) if len(known) == len(scores) else None


def _reach(differences: "NDArray[np.float64]", value: float) -> tuple[float, float]:
    """Reach below and above `value` of the interval of a mean of differences in [-1, 1] per image.

    Two images are added, one won and one lost, so that few or no differing images do not look
    certain. For one seed this is Bonett and Price's interval (2012, J. Educ. Behav. Stat. 37).
    """
    n = len(differences) + 2
    mean = float(differences.sum()) / n
    variance = (float((differences**2).sum()) + 2) / n - mean**2
    half = Z95 * math.sqrt(variance / n)
    return max(0.0, value - mean + half), max(0.0, mean + half - value)


MarginPosition: TypeAlias = Literal["below", "within", "above", "undecided"]
"""Position of an interval against a margin: all below, all within, all above, or undecided."""

MARGIN = 0.01
"""A difference below one point of accuracy, one image in a hundred, counts as immaterial. Reports
state the margin wherever a verdict depends on it."""


def against_margin(difference: Estimate | None, margin: float = MARGIN) -> MarginPosition:
    """Whether the interval of a difference lies beyond a margin, within the margin, or neither.

    Not significant is not equal: an interval that holds 0 and reaches beyond the margin decides
    nothing. A single seed decides nothing either, unless the interval is over images.
    """
    if difference is None or not difference.significant:
        return "undecided"
    if difference.high < -margin:
        return "below"
    if difference.low > margin:
        return "above"
    return "within" if -margin <= difference.low and difference.high <= margin else "undecided"


def unpaired_difference(treated: "NDArray[np.float64]", control: "NDArray[np.float64]") -> Estimate:
    """The mean of the treated networks minus that of the controls, on the same images.

    The spread between networks of the same kind says what another seed does; where there is none
    to see, as with one network on each side, nothing is known. Sides of as many networks share one
    variance, which then does even where it is not shared; others have their own (Welch 1947,
    Biometrika 34). A single network is compared with the others' mean by their spread: the interval
    holds what one more of them would reach, and takes the network for one that differs between
    seeds as they do.

    Args:
        treated: networks x images, in [0, 1].
        control: networks x images, in [0, 1].
    """
    if not treated.size or not control.size:
        return Estimate(0.0, -1.0, 1.0, 1, "seeds")
    ours, theirs = treated.mean(axis=1), control.mean(axis=1)
    value = float(ours.mean() - theirs.mean())
    if len(ours) == len(theirs) == 1:
        return Estimate(value, -1.0, 1.0, 1, "seeds")
    half = _between_networks(ours, theirs)
    seeds = Estimate(value, value - half, value + half, len(ours) + len(theirs), "seeds")
    below, above = _reach(treated.mean(axis=0) - control.mean(axis=0), value)
    return _both(seeds, below, above, (-1.0, 1.0))


def _between_networks(ours: "NDArray[np.float64]", theirs: "NDArray[np.float64]") -> float:
    """Half the interval of a difference of two means, as far as the spread of networks says."""
    sides = [side for side in (ours, theirs) if len(side) > 1]
    squares = [float(side.var(ddof=1)) / len(side) for side in sides]
    freedom = float(sum(len(side) - 1 for side in sides))
    if len(sides) == 1:
        return _t95(freedom) * math.sqrt(squares[0] * (len(sides[0]) + 1))
    total = math.fsum(squares)
    if len(ours) != len(theirs) and total:
        parts = (square**2 / (len(side) - 1) for square, side in zip(squares, sides, strict=True))
        freedom = total**2 / math.fsum(parts)
    return _t95(freedom) * math.sqrt(total)
