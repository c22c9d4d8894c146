"""Estimates that carry their interval, their n and what they were counted over."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

K = TypeVar("K", bound=Hashable)
"""Whatever tells the seeds of two samples apart."""

Z95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; accuracies are shares in [0, 1], never percent."""

    value: float
    low: float
    high: float
    n: int
    over: Literal["images", "seeds"]
    """What `n` counts: test images of one run, or seeds of several."""

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high or self.n < 1:  # also where one is no number
            raise ValueError(f"{self.value} in [{self.low}, {self.high}], n {self.n}: no estimate")


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


T95 = (12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934)
"""Student's t at 0.975 for 1 to 4 degrees of freedom, what two to five seeds need: importing scipy
for them would be a tenth of the time of a recipe that is finished and asked for again."""


def _t95(freedom: int) -> float:
    if freedom <= len(T95):
        return T95[freedom - 1]
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def mean_over_seeds(
    values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """The mean of one value per seed with its Student t interval, clipped to `bounds`.

    With a single seed nothing is known about the spread: the interval is the whole of `bounds`.
    """
    if not values:
        raise ValueError("A mean over no seeds was asked for.")
    n, mean = len(values), statistics.fmean(values)
    low, high = bounds
    if n > 1:
        half = _t95(n - 1) * statistics.stdev(values) / math.sqrt(n)
        low, high = max(low, mean - half), min(high, mean + half)
    return Estimate(mean, low, high, n, "seeds")


def pooled(found: Sequence[Estimate], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """One estimate a seed as one: their mean over seeds, or the only one as it is.

    Whoever asks sees to it that the only one is that of the only seed.
    """
    if len(found) == 1:
        return found[0]
    return mean_over_seeds([it.value for it in found], bounds=bounds)


def mean_over_images(values: Sequence[float]) -> Estimate:
    """The mean of one value an image with its normal interval, which does for hundreds of them."""
    n, mean = len(values), statistics.fmean(values)
    half = Z95 * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, n, "images")


def paired_difference(treated: Mapping[K, float], control: Mapping[K, float]) -> Estimate | None:
    """The mean of treated minus control over the seeds that both have; None where there are none.

    Pairing by seed removes what the seed itself does to both: order, views, initial weights.
    """
    seeds = [seed for seed in treated if seed in control]
    if not seeds:
        return None
    return mean_over_seeds([treated[s] - control[s] for s in seeds], bounds=(-1.0, 1.0))
