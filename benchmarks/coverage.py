"""How often our intervals hold the true value, and our verdicts are right, by simulation.

    python -m benchmarks.coverage [--json FILE] [--trials N]

Scenarios of which the truth is known: a network answers an image rightly with the probability
sigmoid(level + network + image), where the network's and the image's part are normal. So seeds
differ by a known spread, and some images are hard for all networks. An interval should hold the
accuracy that the expected network has on new images in 95 of 100 scenarios. Robustness is simulated
in the same way: of each image at which budget it falls, for plain attacks and for all.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from denature.core.record import environment
from denature.core.stats import (
    Estimate,
    Score,
    mean_over_images,
    mean_over_seeds,
    paired_difference,
    pooled,
    proportion,
    unpaired_difference,
)
from denature.robust.outcomes import AttackOutcome, EvaluationData
from denature.robust.target import AccessLevel
from denature.robust.verdict import judge

HARD, EASY = (2.0, 2.0), (6.0, 3.0)
"""Level and spread of images: accuracies of about 78 and 96 %."""

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Networks of one recipe and test images."""

    seeds: int
    images: int
    level: float
    spread_of_images: float
    spread_of_seeds: float

    @property
    def truth(self) -> float:
        """Accuracy of the expected network on new images."""
        spread = np.hypot(self.spread_of_images, self.spread_of_seeds)
        chances = expit(self.level + spread * NODES)
        return float((WEIGHTS * chances).sum() / WEIGHTS.sum())

    def draw(self, random: np.random.Generator, kinds: int = 1) -> np.ndarray:
        """Kinds x seeds x images of hits, on the same images."""
        image = random.normal(0, self.spread_of_images, self.images)
        network = random.normal(0, self.spread_of_seeds, (kinds, self.seeds, 1))
        hits: np.ndarray = random.random((kinds, self.seeds, self.images)) < expit(
            self.level + network + image
        )
        return hits


def scores(hits: np.ndarray) -> dict[int, Score]:
    return {
        seed: Score(proportion(int(row.sum()), len(row)), "t", row) for seed, row in enumerate(hits)
    }


def mean(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """An accuracy, as every table shows it."""
    [hits] = scenario.draw(random)
    return pooled([score.accuracy for score in scores(hits).values()]), scenario.truth


def over_seeds_alone(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """An accuracy by Student's t over seeds, to compare with: the images are left out."""
    [hits] = scenario.draw(random)
    return mean_over_seeds(hits.mean(axis=1).tolist()), scenario.truth


def paired(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """A difference of two recipes that are equally good."""
    ours, theirs = scenario.draw(random, kinds=2)
    found = paired_difference(scores(ours), scores(theirs))
    assert found is not None
    return found, 0.0


def paired_without_hits(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """The same from records that do not say which images were answered rightly."""
    ours, theirs = scenario.draw(random, kinds=2)
    bare = [{k: Score(s.accuracy) for k, s in scores(hits).items()} for hits in (ours, theirs)]
    found = paired_difference(*bare)
    assert found is not None
    return found, 0.0


def unpaired(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """One network against three others of its kind: what another seed makes of it is no gain."""
    [hits] = scenario.draw(random)
    return unpaired_difference(hits[:1].astype(float), hits[1:].astype(float)), 0.0


def one_network(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """An accuracy of one seed: over images, for this network."""
    network = random.normal(0, scenario.spread_of_seeds)
    chances = expit(scenario.level + network + scenario.spread_of_images * NODES)
    truth = float((WEIGHTS * chances).sum() / WEIGHTS.sum())
    return proportion(int(random.binomial(scenario.images, truth)), scenario.images), truth


def recovering(scenario: Scenario, random: np.random.Generator) -> tuple[Estimate, float]:
    """An accuracy over seeds of which a quarter recovers, as students of nasty teachers do."""
    part = np.where(random.random((scenario.seeds, 1)) < 0.25, 2.0, -2.0)
    image = random.normal(0, scenario.spread_of_images, scenario.images)
    hits = random.random((scenario.seeds, scenario.images)) < expit(part + image)
    chances = [expit(level + scenario.spread_of_images * NODES) for level in (2.0, -2.0)]
    good, bad = (float((WEIGHTS * some).sum() / WEIGHTS.sum()) for some in chances)
    found = pooled([score.accuracy for score in scores(hits).values()])
    return found, 0.25 * good + 0.75 * bad


SKEW = 0.7
"""Of distances, which are lognormal: the standard deviation of their logarithms."""


def distances(
    scenario: Scenario, random: np.random.Generator, *, images: int | None = None, alike: int = 1
) -> tuple[Estimate, float]:
    """A mean of one positive number an image, such as a distance or a landmark's error.

    Args:
        scenario: of its images, unless `images` says how many.
        random: where chance comes from.
        images: as many.
        alike: images of one person each, which have half of the variance in common.
    """
    count = images or scenario.images
    logarithms = random.normal(0, SKEW, count)
    if alike > 1:
        person = np.repeat(random.normal(0, SKEW, -(-count // alike)), alike)[:count]
        logarithms = (logarithms + person) / np.sqrt(2)
    return mean_over_images(np.exp(logarithms).tolist()), float(np.exp(SKEW**2 / 2))


OLD = "accuracy, Student's t over seeds alone"
"""Not ours: what happens without the images."""

RECOVERING = "accuracy over seeds, a quarter of which recovers"
CLUSTERED = "mean distance, twelve images of each person"
FEW = "mean distance of {} images"

LIMITS = (OLD, RECOVERING, CLUSTERED, FEW.format(5), FEW.format(20))
"""Where intervals do not hold, which the documents say."""

Draw = Callable[[Scenario, np.random.Generator], tuple[Estimate, float]]

INTERVALS: dict[str, tuple[Draw, tuple[int, ...]]] = {
    OLD: (over_seeds_alone, (3, 10)),
    "accuracy over seeds": (mean, (3, 10)),
    "difference, paired by seed and image": (paired, (3, 10)),
    "difference, hits unknown": (paired_without_hits, (3, 10)),
    "difference of one seed, paired by image": (paired, (1,)),
    "accuracy of one network": (one_network, (1,)),
    "one network against three": (unpaired, (4,)),
    "mean distance": (distances, (1,)),
    **{FEW.format(n): (partial(distances, images=n), (1,)) for n in (5, 20, 100)},
    CLUSTERED: (partial(distances, alike=12), (1,)),
    RECOVERING: (recovering, (3, 10)),
}


def scenarios(seeds: int, draw: Draw) -> list[Scenario]:
    """Small and large test sets, easy and hard images, seeds that are alike and far apart."""
    apart = (0.0,) if draw is paired and seeds == 1 else (0.0, 0.1, 0.5)
    return [
        Scenario(
            seeds=seeds, images=n, level=level, spread_of_images=images, spread_of_seeds=spread
        )
        for n in (360, 2000)
        for level, images in (HARD, EASY)
        for spread in apart
    ]


def coverage(draw: Draw, scenario: Scenario, trials: int) -> tuple[float, float]:
    """Share of scenarios whose interval holds the truth, and the mean of its half width."""
    random = np.random.default_rng([7, scenario.seeds, scenario.images])
    found = [draw(scenario, random) for _ in range(trials)]
    held = np.mean([estimate.low <= truth <= estimate.high for estimate, truth in found])
    wide = np.mean([(estimate.high - estimate.low) / 2 for estimate, _ in found])
    return float(held), float(wide)


class Anything:
    """A network of which only the evidence is known."""

    shows: AccessLevel = "gradients"
    is_random = False


BUDGETS = (0.05, 0.1, 0.2)


def evidence(clean: np.ndarray, plain: np.ndarray, everything: np.ndarray) -> EvaluationData:
    """Of one network.

    Args:
        clean: of each image whether it is answered rightly.
        plain: of each image the budget at which plain attacks change the answer.
        everything: the same for all attacks.
    """

    def tried(name: str, at: np.ndarray) -> AttackOutcome:
        distances = {"linf": at, "l2": np.full_like(at, np.inf), "l0": np.full_like(at, np.inf)}
        return AttackOutcome(
            name=name, ran=np.ones(len(at), bool), distances=distances, found=np.zeros(0),
            seconds=0.0, budgets=BUDGETS,
        )  # fmt: skip

    images = len(clean)
    return EvaluationData(
        target=Anything(),  # type: ignore[arg-type]
        rows=np.arange(images), images=np.zeros(0), labels=np.zeros(0), classes=10, right=clean,
        flat=np.zeros(images, bool),
        tried={
            "fgsm": tried("fgsm", 1.2 * plain), "pgd": tried("pgd", plain),
            "autoattack": tried("autoattack", np.minimum(plain, everything)),
        },
        budgets={"linf": BUDGETS, "l2": (1.0,), "l0": (1.0,)},
    )  # fmt: skip


def attacked(
    random: np.random.Generator, image: np.ndarray, *, accuracy: float = 0.9, spread: float = 0.25,
    masked: float = 0.0, gain: float = 0.0,
) -> EvaluationData:  # fmt: skip
    """A network whose images fall at budgets around 0.1.

    Args:
        random: where chance comes from.
        image: how far each image is from the border for all networks, in logarithms.
        accuracy: share of right answers; which images are right has to do with that distance.
        spread: of networks, in logarithms; 0.25 is about ten points of robust accuracy.
        masked: by how much plain attacks see the border too far away, in logarithms.
        gain: by how much it is farther away in truth.
    """
    away = image + random.normal(gain, spread) + random.normal(0, 0.5, len(image))
    right = image + random.normal(0, 0.5, len(image))
    clean = right >= np.quantile(right, 1 - accuracy)
    border = 0.1 * np.exp(away)
    missed = abs(random.normal(0.1, 0.03))  # plain attacks find a little less of any network
    return evidence(clean, border * np.exp(masked + missed), border)


def words(
    trials: int, samples: int, *, seeds: int = 1, controls: int = 3, spread: float = 0.25,
    own: float | None = None, accuracy: float = 0.9, masked: float = 0.0, gain: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """How often a defense of such networks is called what; `own` is its spread, if another."""
    random = np.random.default_rng([11, samples, seeds, controls])
    said = []
    for _ in range(trials):
        image = random.normal(0, 0.6, samples)
        ours = [
            attacked(
                random,
                image,
                accuracy=accuracy,
                spread=spread if own is None else own,
                masked=masked,
                gain=gain,
            )
            for _ in range(seeds)
        ]
        theirs = [attacked(random, image, spread=spread) for _ in range(controls)]
        said.append(judge(ours, theirs, []).word)
    return {word: said.count(word) / trials for word in sorted(set(said))}


CASES: dict[str, dict[str, float]] = {
    "no defense": {},
    "no defense, seeds alike": {"spread": 0.05},
    "no defense, seeds far apart": {"spread": 0.4},
    "no defense, 14 points less accurate": {"accuracy": 0.76},
    "three seeds without a defense": {"seeds": 3},
    "three seeds without a defense, four times as far apart": {
        "seeds": 3,
        "own": 0.4,
        "spread": 0.1,
    },
    "two such seeds": {"seeds": 2, "own": 0.4, "spread": 0.1},
    "one network of such seeds": {"own": 0.4, "spread": 0.1},
    "a mask, nothing behind it": {"masked": 3.0},
    "twice as far from the border": {"gain": 0.7, "spread": 0.1},
    "twice as far, three seeds": {"gain": 0.7, "seeds": 3},
    "three seeds of a mask, 1.2 times as far behind it": {
        "masked": 3.0,
        "gain": 0.2,
        "spread": 0.05,
        "seeds": 3,
    },
}


def spread_of(spread: float) -> tuple[float, float]:
    """Mean and standard deviation of undefended networks' robust accuracy, over all budgets."""
    random = np.random.default_rng(5)
    image = random.normal(0, 0.6, 2000)
    found = [attacked(random, image, spread=spread) for _ in range(400)]
    shares = [
        np.mean([e.robust(["autoattack"], "linf", b)[e.right].mean() for b in BUDGETS])
        for e in found
    ]
    return float(np.mean(shares)), float(np.std(shares))


def intervals_table(found: Mapping[str, Any]) -> str:
    """What a JSON file holds of intervals, as Markdown; in points."""
    lines = ["| interval | seeds | holds, % | half its width, points |", "| --- " * 4 + "|"]
    for name, seeds, least, most, narrow, wide in found["intervals"]:
        width = (
            "" if name.startswith("mean distance") else f"{100 * narrow:.1f} to {100 * wide:.1f}"
        )
        lines.append(f"| {name} | {seeds} | {100 * least:.1f} to {100 * most:.1f} | {width} |")
    return "\n".join(lines)


def verdicts_table(found: Mapping[str, Any]) -> str:
    """What a JSON file holds of verdicts, as Markdown; in percent."""
    said = ("more robust", "no evidence", "mostly an illusion", "an illusion")
    lines = ["| networks | samples | " + " | ".join(said) + " |", "| --- " * 6 + "|"]
    for name, samples, shares in found["verdicts"]:
        cells = " | ".join(f"{100 * shares.get(word, 0):.1f}" for word in said)
        lines.append(f"| {name} | {samples} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trials", type=int, default=2000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    held, said = [], []
    for name, (draw, counts) in INTERVALS.items():
        for seeds in counts:
            found = [coverage(draw, scenario, chosen.trials) for scenario in scenarios(seeds, draw)]
            least, most = min(found)[0], max(found)[0]
            widths = [width for _, width in found]
            row = [name, seeds, least, most, min(widths), max(widths)]
            held.append(row)
            print(*row, flush=True)
    for name, options in CASES.items():
        for samples in (100, 500):
            share = words(chosen.trials, samples, **options)  # type: ignore[arg-type]
            said.append([name, samples, share])
            print(name, samples, share, flush=True)
    if chosen.json:
        spreads = {str(spread): spread_of(spread) for spread in (0.05, 0.25, 0.4)}
        found_all = {
            "trials": chosen.trials, "intervals": held, "verdicts": said, "spreads": spreads,
            "commit": environment()["commit"],
        }  # fmt: skip
        chosen.json.write_text(json.dumps(found_all, indent=1) + "\n")


if __name__ == "__main__":
    main()
