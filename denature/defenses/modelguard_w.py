"""ModelGuard-W: the least informative answer within a distance."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Defense
from denature.defenses.distributions import normalised, probabilities

if TYPE_CHECKING:
    from torch import Tensor

MARGIN = 1e-4
"""Lead of the predicted class over the others, as in the released code."""

FLOOR = 1e-6
"""Added to probabilities before their logarithm, as in the released code."""

GAP = 1e-12
"""Largest distance from the optimum; the costs lie in [log FLOOR, 0]."""

ROUNDS = 200
"""Limit of the search's rounds, for rounding errors only: 12 were the most for 1,000 classes."""


@final
@dataclass(frozen=True, kw_only=True)
class ModelGuardW(Defense):
    """Shows the distribution y' with the least <log(y + 1e-6), y'> that keeps the predicted class.

    Tang et al. 2024 (USENIX Security, ModelGuard-W) constrain y' to an L1 ball around y and let the
    predicted class lead by 1e-4, and call a solver of linear programmes for each answer. Here the
    programme is solved in batches, see `least_informative`; the optimum is the same. A confident
    answer becomes about (1/2, 1/2) on the top and the least likely class at epsilon 1.
    """

    name: ClassVar[str] = "modelguard-w"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    gives: ClassVar[AnswerKind | None] = "probabilities"
    perturbs: ClassVar[bool] = True
    keeps_top: ClassVar[bool] = True

    epsilon: float = 1.0
    """Largest L1 distance from the true probabilities, in [0.001, 2]; 1 in the paper's comparison.
    Below 0.0002 no distribution need have the lead."""

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (0.001 <= self.epsilon <= 2, "0.001 to 2")})

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        true = normalised(probabilities(values, kind))
        # Of the scores: logits that differ may be equal as probabilities.
        order = values.argsort(dim=-1, descending=True, stable=True).cpu()
        return least_informative(true, order, self.epsilon).to(values)


def least_informative(true: "Tensor", order: "Tensor", epsilon: float) -> "Tensor":
    """The optimum of ModelGuard-W's linear programme.

    For a given value a of the predicted class the others are a fractional knapsack: they are cut to
    a - 1e-4, and mass moves from the largest of them to the smallest until it meets or epsilon is
    used up. The least cost is convex and piecewise linear in a, so that the lowest points of pairs
    of its tangents reach its minimum in a few rounds.

    Args:
        true: y, batch x classes in float64.
        order: the classes in descending order, batch x classes; the first one is kept.
        epsilon: radius of the L1 ball.
    """
    import torch

    mass = true.gather(-1, order)
    cost = (mass + FLOOR).log()
    rows = _Rows(mass[:, :1], mass[:, 1:], cost[:, :1], cost[:, 1:])
    top = _best_top(rows, epsilon / 2)
    others = _cheapest_others(rows, top, epsilon / 2).rest
    return torch.empty_like(true).scatter(-1, order, torch.cat([top, others], dim=-1))


class _Rows(NamedTuple):
    """Answers with their classes in descending order: first the predicted one, then the others."""

    top: "Tensor"
    """batch x 1."""
    rest: "Tensor"
    """batch x (classes - 1)."""
    top_cost: "Tensor"
    rest_cost: "Tensor"


class _Others(NamedTuple):
    """Values of the other classes, all batch x (classes - 1) but `free`."""

    rest: "Tensor"
    out: "Tensor"
    """What a class lost besides being cut."""
    into: "Tensor"
    """What a class gained."""
    unbounded: "Tensor"
    """The values without the budget."""
    free: "Tensor"
    """Whether the budget does not matter, batch x 1."""


class _Tangent(NamedTuple):
    """The least cost at a value of the predicted class and a derivative there, all batch x 1."""

    at: "Tensor"
    cost: "Tensor"
    slope: "Tensor"


def _bounds(rows: _Rows, budget: float) -> "tuple[Tensor, Tensor]":
    """The least and largest value a of the predicted class for which a distribution exists.

    The others need room for 1 - a below a - 1e-4. What they lose by being cut, which is the largest
    sum over the r largest of them of y - (a - 1e-4), and what the predicted class loses must be at
    most the budget: lines in a, whose roots are compared.
    """
    import torch

    top, rest = rows.top, rows.rest
    number = torch.arange(1.0, rest.shape[1] + 1, dtype=top.dtype, device=top.device)
    cut = rest.cumsum(1) + number * MARGIN - budget
    low = torch.maximum(cut / number, (cut + top) / (1 + number)).amax(1, keepdim=True)
    room = (1 + rest.shape[1] * MARGIN) / (1 + rest.shape[1])
    low = torch.maximum(low, top - budget).clamp_min(room)
    return low, torch.maximum((top + budget).clamp_max(1), low)


def _cheapest_others(rows: _Rows, a: "Tensor", budget: float) -> _Others:
    """The cheapest values of the other classes where the predicted class has the value a."""
    import torch

    limit, rise = a - MARGIN, a - rows.top
    cut = torch.minimum(rows.rest, limit)
    room = limit - cut
    # Without the budget the cheapest classes are full and the dearest empty.
    cheaper = torch.arange(cut.shape[1] - 1, -1, -1, dtype=a.dtype, device=a.device)
    unbounded = torch.minimum((1 - a - limit * cheaper).clamp_min(0), limit)
    most = (unbounded - rows.rest).clamp_min(0).sum(1, keepdim=True)
    allowed = budget - rise.clamp_min(0)
    gained = torch.minimum(most, allowed)
    lost = gained + rise - (rows.rest - cut).sum(1, keepdim=True)
    out = torch.minimum((lost - (cut.cumsum(1) - cut)).clamp_min(0), cut)
    into = torch.minimum((gained - (room.sum(1, keepdim=True) - room.cumsum(1))).clamp_min(0), room)
    return _Others(cut - out + into, out, into, unbounded, most <= allowed)


def _tangent(rows: _Rows, a: "Tensor", budget: float) -> _Tangent:
    """See the class.

    The slope follows from the multipliers of the constraints. The mass of a larger a comes from the
    class that gained last where a is above y, and otherwise from the class that lost last. Besides,
    each class at the limit a - 1e-4 then holds more of the mass of such a class, which is dearer.
    """
    import torch

    found, cost = _cheapest_others(rows, a, budget), rows.rest_cost
    gains = torch.where(found.free, found.unbounded, found.into) > 0
    gaining = torch.where(gains, cost, cost[:, -1:]).amax(1, keepdim=True)
    losing = torch.where(found.out > 0, cost, cost[:, :1]).amin(1, keepdim=True)
    losing = torch.where(found.free, gaining, losing)
    price = torch.where(rows.rest < a - MARGIN, gaining, losing)
    marginal = torch.where(a >= rows.top, gaining, losing)
    slope = rows.top_cost - marginal - (price - cost).clamp_min(0).sum(1, keepdim=True)
    return _Tangent(a, a * rows.top_cost + (cost * found.rest).sum(1, keepdim=True), slope)


def _best_top(rows: _Rows, budget: float) -> "Tensor":
    """The value of the predicted class at the optimum, batch x 1."""
    import torch

    low, high = _bounds(rows, budget)
    left, best = _tangent(rows, low, budget), low.clone()
    # Most confident answers have their optimum at the least value and are done here.
    open_ = (left.slope < 0)[:, 0].nonzero()[:, 0]
    rows, left, high = _Rows(*_of(rows, open_)), _Tangent(*_of(left, open_)), high[open_]
    right = _tangent(rows, high, budget)
    best[open_] = high
    again = right.slope > 0
    for _ in range(ROUNDS):
        keep = again[:, 0].nonzero()[:, 0]
        if not len(keep):
            break
        open_, rows = open_[keep], _Rows(*_of(rows, keep))
        left, right = _Tangent(*_of(left, keep)), _Tangent(*_of(right, keep))
        at, lowest = _crossing(left, right)
        middle = _tangent(rows, at, budget)
        best[open_] = at
        again = (middle.cost - lowest > GAP) & (middle.slope != 0)
        falls = middle.slope < 0
        left = _Tangent(*map(torch.where, [falls] * 3, middle, left))
        right = _Tangent(*map(torch.where, [falls] * 3, right, middle))
    return best


def _of(tensors: "Iterable[Tensor]", rows: "Tensor") -> "Iterator[Tensor]":
    return (tensor[rows] for tensor in tensors)


def _crossing(left: _Tangent, right: _Tangent) -> "tuple[Tensor, Tensor]":
    """Where a falling and a rising tangent meet, and the cost there, both batch x 1."""
    ahead = left.cost - right.cost + right.slope * (right.at - left.at)
    step = ahead / (right.slope - left.slope)
    step = step.clamp_min(0).minimum(right.at - left.at)
    return left.at + step, left.cost + left.slope * step
