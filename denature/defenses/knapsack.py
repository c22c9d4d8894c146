"""ModelGuard-W's linear programme as a fractional knapsack, in batches.

In numpy: one answer takes about two hundred small steps, and torch three times as long for each.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

MARGIN = 1e-4
"""Lead of the predicted class over the others, as in the released code."""

FLOOR = 1e-6
"""Added to probabilities before their logarithm, as in the released code."""

GAP = 1e-12
"""Largest distance from the optimum; the costs lie in [log FLOOR, 0]."""

ROUNDS = 200
"""Limit of the search's rounds, for rounding errors only: 12 were the most for 1,000 classes."""


def cheapest(mass: Array, budget: float) -> Array:
    """The distributions y' with the least <log(y + 1e-6), y'>.

    For a given value a of the predicted class the others are a fractional knapsack: they are cut to
    a - 1e-4, and mass moves from the largest of them to the smallest until it meets or the budget
    is used up. The least cost is convex and piecewise linear in a, so that the lowest points of
    pairs of its tangents reach its minimum in a few rounds.

    Args:
        mass: y, batch x classes, with the predicted class first and the others in descending order.
        budget: mass that may move.
    """
    cost = np.log(mass + FLOOR)
    rows = _Rows(mass[:, :1], mass[:, 1:], cost[:, :1], cost[:, 1:])
    top = _best_top(rows, budget)
    return np.concatenate([top, _cheapest_others(rows, top, budget).rest], axis=1)


class _Rows(NamedTuple):
    """Answers with their classes in descending order: first the predicted one, then the others."""

    top: Array
    """batch x 1."""
    rest: Array
    """batch x (classes - 1)."""
    top_cost: Array
    rest_cost: Array


class _Others(NamedTuple):
    """Values of the other classes, all batch x (classes - 1) but `free`."""

    rest: Array
    out: Array
    """What a class lost besides being cut."""
    into: Array
    """What a class gained."""
    unbounded: Array
    """The values without the budget."""
    free: Array
    """Whether the budget does not matter, batch x 1."""


class _Tangent(NamedTuple):
    """The least cost at a value of the predicted class and a derivative there, all batch x 1."""

    at: Array
    cost: Array
    slope: Array


def _bounds(rows: _Rows, budget: float) -> tuple[Array, Array]:
    """The least and largest value a of the predicted class for which a distribution exists.

    The others need room for 1 - a below a - 1e-4. What they lose by being cut, which is the largest
    sum over the r largest of them of y - (a - 1e-4), and what the predicted class loses must be at
    most the budget: lines in a, whose roots are compared.
    """
    top, rest = rows.top, rows.rest
    number = np.arange(1.0, rest.shape[1] + 1)
    cut = _sums(rest) + number * MARGIN - budget
    low = np.maximum(cut / number, (cut + top) / (1 + number)).max(1, keepdims=True)
    room = (1 + rest.shape[1] * MARGIN) / (1 + rest.shape[1])
    low = np.maximum(np.maximum(low, top - budget), room)
    return low, np.maximum(np.minimum(top + budget, 1), low)


def _cheapest_others(rows: _Rows, a: Array, budget: float) -> _Others:
    """The cheapest values of the other classes where the predicted class has the value a."""
    limit, rise = a - MARGIN, a - rows.top
    cut = np.minimum(rows.rest, limit)
    room = limit - cut
    # Without the budget the cheapest classes are full and the dearest empty.
    cheaper = np.arange(cut.shape[1] - 1.0, -1, -1)
    unbounded = np.minimum(np.maximum(1 - a - limit * cheaper, 0), limit)
    most = np.maximum(unbounded - rows.rest, 0).sum(1, keepdims=True)
    allowed = budget - np.maximum(rise, 0)
    gained = np.minimum(most, allowed)
    lost = gained + rise - (rows.rest - cut).sum(1, keepdims=True)
    out = np.minimum(np.maximum(lost - (_sums(cut) - cut), 0), cut)
    dearer = _sums(room)
    into = np.minimum(np.maximum(gained - dearer[:, -1:] + dearer, 0), room)
    return _Others(cut - out + into, out, into, unbounded, most <= allowed)


def _tangent(rows: _Rows, a: Array, budget: float) -> _Tangent:
    """See the class.

    The slope follows from the multipliers of the constraints. The mass of a larger a comes from the
    class that gained last where a is above y, and otherwise from the class that lost last. Besides,
    each class at the limit a - 1e-4 then holds more of the mass of such a class, which is dearer.
    """
    found, cost = _cheapest_others(rows, a, budget), rows.rest_cost
    gains = np.where(found.free, found.unbounded, found.into) > 0
    gaining = np.where(gains, cost, cost[:, -1:]).max(1, keepdims=True)
    losing = np.where(found.out > 0, cost, cost[:, :1]).min(1, keepdims=True)
    losing = np.where(found.free, gaining, losing)
    price = np.where(rows.rest < a - MARGIN, gaining, losing)
    marginal = np.where(a >= rows.top, gaining, losing)
    slope = rows.top_cost - marginal - np.maximum(price - cost, 0).sum(1, keepdims=True)
    return _Tangent(a, a * rows.top_cost + (cost * found.rest).sum(1, keepdims=True), slope)


def _best_top(rows: _Rows, budget: float) -> Array:
    """The value of the predicted class at the optimum, batch x 1."""
    low, high = _bounds(rows, budget)
    left, best = _tangent(rows, low, budget), low.copy()
    # Most confident answers have their optimum at the least value and are done here.
    open_ = (left.slope < 0)[:, 0].nonzero()[0]
    rows, left, high = _Rows(*_of(rows, open_)), _Tangent(*_of(left, open_)), high[open_]
    right = _tangent(rows, high, budget)
    best[open_] = high
    again = right.slope > 0
    for _ in range(ROUNDS):
        keep = again[:, 0].nonzero()[0]
        if not len(keep):
            break
        open_, rows = open_[keep], _Rows(*_of(rows, keep))
        left, right = _Tangent(*_of(left, keep)), _Tangent(*_of(right, keep))
        at, lowest = _crossing(left, right)
        middle = _tangent(rows, at, budget)
        best[open_] = at
        again = (middle.cost - lowest > GAP) & (middle.slope != 0)
        falls = middle.slope < 0
        left = _Tangent(*map(np.where, [falls] * 3, middle, left))
        right = _Tangent(*map(np.where, [falls] * 3, right, middle))
    return best


def _sums(array: Array) -> Array:
    """Sums over the first 1, 2, ... of each row; torch takes a seventh of numpy's time."""
    sums: Array = torch.from_numpy(array).cumsum(1).numpy()
    return sums


def _of(arrays: Iterable[Array], rows: NDArray[np.intp]) -> Iterator[Array]:
    return (array[rows] for array in arrays)


def _crossing(left: _Tangent, right: _Tangent) -> tuple[Array, Array]:
    """Where a falling and a rising tangent meet, and the cost there, both batch x 1."""
    ahead = left.cost - right.cost + right.slope * (right.at - left.at)
    step = ahead / (right.slope - left.slope)
    step = np.minimum(np.maximum(step, 0), right.at - left.at)
    return left.at + step, left.cost + left.slope * step
