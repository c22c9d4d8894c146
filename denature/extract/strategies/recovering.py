"""What the thieves that undo a defense share: when they apply, and a map that undoes it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from denature.extract.strategies.base import Situation

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor

FLOOR = 1e-6
"""Least probability that is told from zero."""


def not_recoverable(situation: Situation) -> str | None:
    """Why no true scores can be recovered from the shown answers; None where they can."""
    if situation.kind == "label":
        return "Labels hold no scores from which others could be recovered."
    if not situation.perturbs:
        return "The scores are not perturbed, so there is nothing to recover."
    return None


class Pairs(NamedTuple):
    """True answers and what a defense shows of them."""

    shown: np.ndarray
    """Logarithms of probabilities, float64, n x classes, from log(`FLOOR`) on."""
    true: np.ndarray
    """Of the same form."""


@final
@dataclass(frozen=True, slots=True)
class RecoveryMap:
    """A map from shown to true answers, which adds a correction to logarithms of probabilities.

    A ridge regression, and scikit-learn's perceptron for what that leaves. It needs no dependency
    that is not here, no training loop of ours, and is deterministic. Of a temperature of 4 on
    digits the perceptron alone leaves L1 0.32 of 0.95, both together 0.003.
    """

    linear: "Ridge"
    rest: "MLPRegressor"

    @staticmethod
    def fit(pairs: Sequence[Pairs], *, seed: int, iterations: int) -> "RecoveryMap":
        """The map that fits these pairs, after at most so many passes over them."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import Ridge
        from sklearn.neural_network import MLPRegressor

        shown, true = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        classes, scaled = shown.shape[1], shown / np.log(FLOOR)
        linear = Ridge(alpha=1e-3).fit(scaled, true - shown)
        rest = MLPRegressor(
            hidden_layer_sizes=(min(max(128, 4 * classes), 512), min(max(64, 2 * classes), 256)),
            learning_rate_init=3e-3,
            early_stopping=True,
            max_iter=iterations,
            random_state=seed % 2**32,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `iterations` is a limit of time
            rest.fit(scaled, true - shown - linear.predict(scaled))
        return RecoveryMap(linear, rest)

    def __call__(self, logs: np.ndarray) -> np.ndarray:
        """Logarithms of the recovered probabilities, whose rows sum to 1."""
        from scipy.special import log_softmax

        scaled = logs / np.log(FLOOR)
        corrected = logs + self.linear.predict(scaled) + self.rest.predict(scaled)
        normalised: np.ndarray = log_softmax(corrected, axis=1)
        return normalised

    def distances(self, pairs: Pairs) -> tuple[float, float]:
        """Mean L1 distance to the true probabilities, of the shown and of the recovered ones."""
        return _distance(pairs.shown, pairs.true), _distance(self(pairs.shown), pairs.true)


def _distance(logs: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(np.exp(logs) - np.exp(others)).sum(axis=1).mean())
