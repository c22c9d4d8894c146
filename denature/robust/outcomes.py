"""Outcomes of attacks on a network, sample by sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from denature.robust.target import Attacked

NORMS = ("linf", "l2", "l0")

SLACK = 1e-4
"""Share of a budget by which a change may exceed the budget: sums of floats are inexact."""

CHANGED = 1e-5
"""Values that differ by less count as equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackOutcome:
    """Outcome of one attack on the samples."""

    name: str
    ran: np.ndarray
    """Per sample: whether the attack ran, or the sample was misclassified without it."""
    distances: Mapping[str, np.ndarray]
    """By norm: distance of the image that fooled from the original; infinite if none fooled."""
    found: np.ndarray
    """Adversarial examples, float32, shaped like the images; the original image if none fooled."""
    seconds: float
    budgets: tuple[float, ...]
    """Budgets that were tried, in rising order; infinite for attacks that minimise the change."""
    error: str = ""
    """Why the attack did not run; empty if it ran."""
    crashed: bool = False
    """Whether the attack itself failed, in contrast to an exhausted query budget."""

    def fooled(self, norm: str, epsilon: float) -> np.ndarray:
        """Per sample: whether an adversarial example lies within a budget."""
        within: np.ndarray = self.distances[norm] <= np.float64(epsilon * (1 + SLACK) + CHANGED)
        return within


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationData:
    """Samples, outcomes of all attacks, and budgets of one network."""

    target: Attacked
    rows: np.ndarray
    """Rows of the chosen test samples."""
    images: np.ndarray
    """Images of the samples, float32 in [0, 1]."""
    labels: np.ndarray
    classes: int
    right: np.ndarray
    """Per sample: whether the unchanged image is answered rightly."""
    flat: np.ndarray
    """Per sample: whether the gradient of the cross-entropy is 0 or not finite."""
    tried: Mapping[str, AttackOutcome]
    budgets: Mapping[str, tuple[float, ...]]

    def robust(self, attacks: Sequence[str], norm: str, epsilon: float) -> np.ndarray:
        """Per sample: whether it stays right against all of these attacks."""
        held = self.right.copy()
        for name in attacks:
            if name in self.tried:
                held &= ~self.tried[name].fooled(norm, epsilon)
        return held

    def seen(self, attacks: Sequence[str]) -> np.ndarray:
        """Per sample: whether all of these attacks ran, or the unchanged image is misclassified."""
        ran = np.ones(len(self.right), bool)
        for name in attacks:
            ran &= self.tried[name].ran if name in self.tried else False
        sure: np.ndarray = ran | ~self.right
        return sure

    @property
    def everything(self) -> list[str]:
        """Attacks that ran on at least one sample and did not crash.

        The samples on which an attack crashes may depend on their robustness, so that a share over
        the others would mean nothing. Adversarial examples found before a crash count in `robust`.
        """
        return [
            name
            for name, outcome in self.tried.items()
            if outcome.ran[self.right].any() and not outcome.crashed
        ]

    @property
    def complete(self) -> list[str]:
        """Attacks that ran to their end on all samples."""
        return [name for name, outcome in self.tried.items() if outcome.ran[self.right].all()]
