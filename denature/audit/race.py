"""Screening and racing: which thieves are measured at all budgets, after one look at each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from denature.audit.config import ALWAYS
from denature.core.stats import Estimate, Score, paired_difference, proportion

BEST = 2
"""Thieves that are raced whatever their lead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screened:
    """Whether a thief is raced after screening, and by how much it was behind."""

    raced: bool
    behind: float
    """Accuracy of the second best thief minus that of this one, on the choosing half."""

    @property
    def note(self) -> str:
        points = f"{100 * self.behind:.1f}"
        return f"{points} points behind the second best thief in screening; the interval of this "\
            "difference excludes 0."  # fmt: skip


def screen(hits: Mapping[str, np.ndarray]) -> dict[str, Screened]:
    """Which thieves are raced against one defense.

    The best two are, naive and labels always, and all others whose paired difference to the second
    best has an interval that holds 0: only a thief that is surely behind is left out.

    Args:
        hits: by thief, bool, images of the choosing half that its clone answers correctly; one
            seed at the smallest budget.
    """
    if not hits:
        return {}
    accuracy = {name: float(hit.mean()) for name, hit in hits.items()}
    ranked = sorted(hits, key=lambda name: (-accuracy[name], name))
    best = ranked[:BEST]
    reference = hits[best[-1]]
    screened = {}
    for name in ranked:
        behind = accuracy[best[-1]] - accuracy[name]
        certain = name not in best and difference(reference, hits[name]).low > 0
        screened[name] = Screened(raced=name in ALWAYS or not certain, behind=behind)
    return screened


def difference(one: np.ndarray, other: np.ndarray) -> Estimate:
    """The paired difference of two accuracies on the same images, with its interval."""
    scores = [Score(proportion(int(hit.sum()), len(hit)), "same", hit) for hit in (one, other)]
    found = paired_difference({0: scores[0]}, {0: scores[1]})
    assert found is not None
    return found
