"""Perturbing defenses as a reader of their papers would write them down: answer after answer.

The arguments are those of `tests.plain_defenses.Plain`; the options of the defense follow.
"""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from denature.answers.kinds import AnswerKind
from tests.plain_defenses import Row, distribution, first_of_largest

Vector = NDArray[np.float64]

FEATURES = np.array([0.5, -2.0, 1.0])
"""Input of a last layer; MAD does not depend on it."""


def gradient(y: Vector, p: Vector) -> Vector:
    """The gradient of sum_k y_k log p_k by the weights of the last layer, as one vector."""
    return np.outer(y - y.sum() * p, FEATURES).ravel()


def mad_objective(shown: Vector, y: Vector, p: Vector) -> float:
    """Squared distance of the normalised gradients of the shown and the true answer."""
    ours, true = gradient(shown, p), gradient(y, p)
    return float(((ours / np.linalg.norm(ours) - true / np.linalg.norm(true)) ** 2).sum())


def uniform_over(members: tuple[int, ...], top: int, classes: int) -> Vector:
    weights = np.zeros(classes)
    weights[[*members, top]] = 1
    weights[top] += 1e-5
    scaled: Vector = weights / weights.sum()
    return scaled


def every_set(y: Vector) -> list[Vector]:
    """The uniform distributions over all sets that contain the top class."""
    top, others = int(y.argmax()), [k for k in range(len(y)) if k != y.argmax()]
    return [
        uniform_over(members, top, len(y))
        for size in range(len(y))
        for members in combinations(others, size)
    ]


def sets_one_class_at_a_time(y: Vector, p: Vector) -> list[Vector]:
    """The sets of the published search: from the top class on, each time the best class more."""
    top, members = int(y.argmax()), tuple[int, ...]()
    found = [uniform_over(members, top, len(y))]
    while len(members) + 1 < len(y):
        rest = [k for k in range(len(y)) if k != top and k not in members]
        tried = [(*members, k) for k in rest]
        members = max(
            tried, key=lambda t: mad_objective(uniform_over(t, top, len(y)), y, p)
        )  # fmt: skip
        found.append(uniform_over(members, top, len(y)))
    return found


def mad(rows: list[Row], kind: AnswerKind, evidence: Any, *, epsilon: float) -> list[Row]:
    shown = []
    for row, p in zip(rows, evidence.numpy(), strict=True):
        y = np.array(distribution(row, kind))
        target = max(np.eye(len(y)), key=lambda vertex: mad_objective(vertex, y, p))
        share = min(1, epsilon / abs(y - target).sum())
        shown.append(((1 - share) * y + share * target).tolist())
    return shown


def gradient_redirection(
    rows: list[Row], kind: AnswerKind, evidence: Any, *, epsilon: float
) -> list[Row]:
    shown = []
    for row, coefficients in zip(rows, evidence.tolist(), strict=True):
        y = distribution(row, kind)
        receiver = first_of_largest(coefficients)
        left = min(epsilon / 2, 1 - y[receiver])
        y[receiver] += left
        for giver in sorted(range(len(y)), key=lambda k: coefficients[k]):
            if giver != receiver:
                amount = min(left, y[giver])
                y[giver] -= amount
                left -= amount
        shown.append(y)
    return shown


def adaptive_misinformation(
    rows: list[Row], kind: AnswerKind, evidence: Any, *, tau: float, nu: float
) -> list[Row]:
    shown = []
    for row, wrong in zip(rows, evidence.tolist(), strict=True):
        y = distribution(row, kind)
        share = 1 / (1 + np.exp(-nu * (tau - max(y))))
        shown.append([(1 - share) * a + share * b for a, b in zip(y, wrong, strict=True)])
    return shown


def within_a_ball(cost: Vector, y: Vector, epsilon: float, *, lead: float | None) -> Any:
    """The programme min <cost, y'> over distributions y' at most epsilon (L1) from y.

    Args:
        cost: of each class.
        y: a distribution.
        epsilon: radius.
        lead: of the top class over every other; None for no such constraint.
    """
    classes = len(y)
    one, zero = np.eye(classes), np.zeros((classes, classes))
    below = [np.hstack([one, -one]), np.hstack([-one, -one]), np.r_[zero[0], one.sum(0)][None]]
    limits = [y, -y, np.array([epsilon])]
    if lead is not None:
        top = int(y.argmax())
        others = np.delete(one, top, axis=0)
        below.append(np.hstack([others - one[top], zero[1:]]))
        limits.append(np.full(classes - 1, -lead))
    return linprog(
        np.r_[cost, zero[0]], np.vstack(below), np.concatenate(limits),
        np.r_[one.sum(0), zero[0]][None], [1.0], bounds=(0, None),
    )  # fmt: skip
