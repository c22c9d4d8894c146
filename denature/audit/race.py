"""Screening and racing: which thieves are measured at larger budgets, after one look at each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from denature.audit.config import ALWAYS
from denature.core.stats import Estimate, Score, paired_difference, proportion

BEST = 2
"""Thieves that go on whatever their lead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screened:
    """Whether a thief goes on, and by how much it was behind."""

    raced: bool
    behind: float = 0.0
    """Accuracy of the second best thief minus that of this one, on the choosing half."""
    budget: int = 0
    """Queries of both."""
    seeds: int = 1

    @property
    def note(self) -> str:
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return (
            f"With {self.budget:,} queries and {seeds} it was {100 * self.behind:.1f} points "
            "behind the second best thief; the interval of this difference excludes 0."
        )


def fewest(images: Mapping[str, float]) -> list[str]:
    """Thieves that go on against one defense whatever screening finds, at the least cost.

    Args:
        images: of the trainings of each thief.
    """
    always = [name for name in ALWAYS if name in images]
    others = sorted(images.keys() - set(always), key=lambda name: (images[name], name))
    return always + others[: max(0, BEST - len(always))]


def screen(hits: Mapping[str, np.ndarray], budget: int) -> dict[str, Screened]:
    """Which thieves go on against one defense.

    The best two do, naive and labels always, and all others whose paired difference to the second
    best has an interval that holds 0: only a thief that is behind beyond
    the interval is left out. Of one seed that interval is over images alone, so that by the spread
    between seeds an equal thief may be left out more often than the level says.

    Args:
        hits: by thief, bool, seeds x images of the choosing half that its clones answer correctly;
            all with the same seeds.
        budget: queries of all of them.
    """
    if not hits:
        return {}
    accuracy = {name: float(hit.mean()) for name, hit in hits.items()}
    ranked = sorted(hits, key=lambda name: (-accuracy[name], name))
    best = ranked[:BEST]
    reference = hits[best[-1]]
    screened = {}
    for name in ranked:
        certain = name not in best and difference(reference, hits[name]).low > 0
        screened[name] = Screened(
            raced=name in ALWAYS or not certain,
            behind=accuracy[best[-1]] - accuracy[name],
            budget=budget,
            seeds=len(reference),
        )
    return screened


def difference(one: np.ndarray, other: np.ndarray) -> Estimate:
    """The difference of two accuracies, paired by seed and image; bool, seeds x images."""
    scores = [
        {
            seed: Score(proportion(int(hit.sum()), len(hit)), "same", hit)
            for seed, hit in enumerate(hits)
        }
        for hits in (one, other)
    ]
    found = paired_difference(scores[0], scores[1])
    assert found is not None
    return found
