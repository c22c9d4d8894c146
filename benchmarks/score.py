"""How often the intervals of an audit's score hold the true value, by simulation.

    python -m benchmarks.score [--json FILE] [--trials N]

Scenarios as in `benchmarks.coverage`: some images are hard for all networks, and seeds differ by a
known spread. The victim is one network. A clone answers an image as the victim does with the
probability `copied`, and else as a network of its own level, like the baseline. So the true means,
and what follows from them, are integrals over images and seeds.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit

from benchmarks.coverage import EASY, HARD, NODES, WEIGHTS
from denature.audit.result import Interval
from denature.audit.score import (
    RESAMPLES,
    SeedHits,
    advantage_curve,
    area,
    halves,
    queries_to,
    recovered,
    recovered_fidelity,
    worst,
)
from denature.core.record import environment

CHANCE = 0.1

Held: TypeAlias = tuple[float, float, float] | None
"""Ends of an interval and the true value; None where it is not measurable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A victim, clones and baselines of it, and test images."""

    seeds: int
    images: int
    level: float
    """Of the victim."""
    spread_of_images: float
    spread_of_seeds: float
    copied: float = 0.5
    """Share of images on which the clone does as the victim does."""
    behind: float = 2.5
    """By how much the baseline's level is lower, and that of a clone which does not copy."""
    baselines: int | None = None
    """Seeds of the baseline, where it has others than the clones."""

    def draw(self, random: np.random.Generator, copied: tuple[float, ...]) -> "Drawn":
        image = random.normal(0, self.spread_of_images, self.images)
        victim = random.random(self.images) < expit(self.level + image)
        counts = [self.baselines or self.seeds, *[self.seeds] * len(copied)]
        own = [self._own(random, image, seeds) for seeds in counts]
        clones = [
            np.where(random.random(hits.shape) < share, victim, hits)
            for hits, share in zip(own[1:], copied, strict=True)
        ]
        return Drawn(victim, own[0], clones)

    def _own(self, random: np.random.Generator, image: np.ndarray, seeds: int) -> np.ndarray:
        network = random.normal(0, self.spread_of_seeds, (seeds, 1))
        hits: np.ndarray = random.random((seeds, self.images)) < expit(
            self.level - self.behind + network + image
        )
        return hits

    def truth(self, copied: float, *, fidelity: bool = False) -> tuple[float, float, float]:
        """Expected clone, baseline and victim on new images."""
        image = self.spread_of_images * NODES
        network = self.spread_of_seeds * NODES[:, None]
        victim = expit(self.level + image)
        own = WEIGHTS @ expit(self.level - self.behind + network + image) / WEIGHTS.sum()
        if fidelity:
            own, victim = own * victim + (1 - own) * (1 - victim), np.ones_like(victim)
        low, high = (float(WEIGHTS @ values / WEIGHTS.sum()) for values in (own, victim))
        return copied * high + (1 - copied) * low, low, high


@dataclass(frozen=True, slots=True)
class Drawn:
    """Hits of one draw."""

    victim: np.ndarray
    baseline: np.ndarray
    clones: list[np.ndarray]


def ratio(clone: float, baseline: float, victim: float) -> float:
    return (clone - baseline) / (victim - baseline)


def ends(interval: Interval | None, truth: float) -> Held:
    return None if interval is None else (interval.low, interval.high, truth)


def against_student(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """Threat A, in accuracy."""
    found = scenario.draw(random, (scenario.copied,))
    interval = recovered(found.clones[0], found.baseline, found.victim, seed=seed)
    return ends(interval, ratio(*scenario.truth(scenario.copied)))


def against_five(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """Threat A, with five seeds of the baseline, which costs no queries."""
    return against_student(replace(scenario, baselines=5), random, seed)


def against_chance(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """Threat B, in accuracy."""
    found = scenario.draw(random, (scenario.copied,))
    interval = recovered(found.clones[0], CHANCE, found.victim, seed=seed)
    clone, _, victim = scenario.truth(scenario.copied)
    return ends(interval, ratio(clone, CHANCE, victim))


def in_fidelity(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """Threat A, in fidelity."""
    found = scenario.draw(random, (scenario.copied,))
    same = [hits == found.victim for hits in (found.clones[0], found.baseline)]
    interval = recovered_fidelity(*same, seed=seed)
    return ends(interval, ratio(*scenario.truth(scenario.copied, fidelity=True)))


@lru_cache(maxsize=1)
def resampled_images(images: int) -> np.ndarray:
    random = np.random.default_rng(images)
    counts: np.ndarray = random.multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return counts / images


def resampled_seeds(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """Not ours: a bootstrap that resamples seeds as it resamples images."""
    found = scenario.draw(random, (scenario.copied,))
    counts = resampled_images(scenario.images)

    def means(hits: SeedHits) -> np.ndarray:
        seeds = random.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), RESAMPLES)
        shares: np.ndarray = (counts @ hits.T * seeds).sum(axis=1) / len(hits)
        return shares

    clone, baseline = means(found.clones[0]), means(found.baseline)
    gap = counts @ found.victim - baseline
    low, high = np.nanquantile((clone - baseline) / np.where(gap > 0, gap, np.nan), [0.025, 0.975])
    return float(low), float(high), ratio(*scenario.truth(scenario.copied))


BUDGETS = (100, 1000, 10_000)
GROWING = (0.15, 0.4, 0.8)
"""What is copied with each budget: half of the advantage is recovered between the last two."""


def over_budgets(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """The area under a curve of three budgets."""
    found = scenario.draw(random, GROWING)
    clones = dict(zip(BUDGETS, found.clones, strict=True))
    curve = advantage_curve(clones, found.baseline, found.victim, seed=seed)
    if curve is None:
        return None
    values = [ratio(*scenario.truth(share)) for share in GROWING]
    return ends(area(curve), (values[0] + 2 * values[1] + values[2]) / 4)


def queries(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """Queries to half of the advantage, as logarithms, which lie between two budgets."""
    found = scenario.draw(random, GROWING)
    clones = dict(zip(BUDGETS, found.clones, strict=True))
    curve = advantage_curve(clones, found.baseline, found.victim, seed=seed)
    if curve is None:
        return None
    crossing = queries_to(0.5, curve)
    values = [ratio(*scenario.truth(share)) for share in GROWING]
    truth = float(np.interp(0.5, values, np.log10(BUDGETS)))
    low, high = (np.inf if end is None else np.log10(end) for end in (crossing.low, crossing.high))
    return float(low), float(high), truth


def worst_of_five(scenario: Scenario, random: np.random.Generator, seed: int) -> Held:
    """The worst of five thieves that are equally good, chosen on the other half of the images."""
    found = scenario.draw(random, (scenario.copied,) * 5)
    split = halves(scenario.images, seed)
    clones = {str(number): hits for number, hits in enumerate(found.clones)}
    clone = clones[worst(clones, split.choosing)]
    rows = split.reporting
    interval = recovered(clone[:, rows], found.baseline[:, rows], found.victim[rows], seed=seed)
    return ends(interval, ratio(*scenario.truth(scenario.copied)))


Draw: TypeAlias = Callable[[Scenario, np.random.Generator, int], Held]

OLD = "recovered advantage, seeds resampled"
"""Not ours: the two-level bootstrap."""

CHOSEN = "worst of five equal thieves"
"""What the choice leaves: it is blind to the reported images, and not to the seeds."""

LIMITS = (OLD, CHOSEN)

INTERVALS: dict[str, Draw] = {
    OLD: resampled_seeds,
    "recovered advantage over a student": against_student,
    "recovered advantage over five seeds of a student": against_five,
    "recovered advantage over chance": against_chance,
    "recovered advantage in fidelity": in_fidelity,
    "area over three budgets": over_budgets,
    "queries to half": queries,
    CHOSEN: worst_of_five,
}

SEEDS = (2, 3, 5)


def scenarios(seeds: int, draw: Draw) -> list[Scenario]:
    """Few and many reported images, easy and hard ones, useless clones and near copies."""
    shares = (0.0,) if draw in (over_budgets, queries) else (0.0, 0.98)
    return [
        Scenario(
            seeds=seeds, images=n, level=level, spread_of_images=images,
            spread_of_seeds=spread, copied=copied,
        )
        for n in (180, 1000)
        for level, images in (HARD, EASY)
        for spread in (0.1, 0.5)
        for copied in shares
    ]  # fmt: skip


def coverage(draw: Draw, scenario: Scenario, trials: int) -> tuple[float, float, float]:
    """Share of measurable scenarios with the truth in the interval, median width, their share."""
    random = np.random.default_rng([13, scenario.seeds, scenario.images])
    found = [draw(scenario, random, trial % 2) for trial in range(trials)]
    measured = np.array([each for each in found if each is not None])
    if not len(measured):
        return 1.0, np.inf, 0.0
    low, high, truth = measured.T
    held = float(np.mean((low <= truth) & (truth <= high)))
    widths = np.where(np.isinf(high), np.inf, high - np.where(np.isinf(low), 0, low))
    return held, float(np.median(widths)), len(measured) / trials


def table(found: Mapping[str, Any]) -> str:
    """What a JSON file holds, as Markdown."""
    lines = ["| interval | seeds | holds, % | median width | measurable, % |", "| --- " * 5 + "|"]
    for row in found["intervals"]:
        least, most, narrow, wide, few, many = row[2:]
        width = " to ".join("open" if w is None else f"{w:.2f}" for w in (narrow, wide))
        lines.append(
            f"| {row[0]} | {row[1]} | {100 * least:.1f} to {100 * most:.1f} | {width} "
            f"| {100 * few:.0f} to {100 * many:.0f} |"
        )
    return "\n".join(lines)


def summary(name: str, seeds: int, trials: int) -> list[Any]:
    draw = INTERVALS[name]
    found = [coverage(draw, scenario, trials) for scenario in scenarios(seeds, draw)]
    held, widths, shares = zip(*(each for each in found if each[2]), strict=True)
    extremes = [None if np.isinf(width) else width for width in (min(widths), max(widths))]
    few = min(each[2] for each in found)
    return [name, seeds, min(held), max(held), *extremes, few, max(shares)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trials", type=int, default=500)
    chosen = parser.parse_args()
    rows = []
    for name in INTERVALS:
        for seeds in SEEDS:
            rows.append(summary(name, seeds, chosen.trials))
            print(*rows[-1], flush=True)
    if chosen.json:
        found = {
            "trials": chosen.trials, "intervals": rows, "commit": environment()["commit"],
        }  # fmt: skip
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
