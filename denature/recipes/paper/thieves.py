"""Students that try to learn from a nasty teacher all the same: what is left of its nastiness.

A thief chooses its settings by held-out images of its own, so all students here keep their best
epoch on a validation split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from denature.recipes.paper.orders import ExperimentContext, PlacedOrder
from denature.recipes.paper.recalled import ALONE, NASTY, NORMAL
from denature.recipes.paper.tables import ALONE_SMOOTHED, SMOOTHED
from denature.report.cells import TEACHER
from denature.train import Distilled, Normal, Order, Skeptical
from denature.train.objectives import Objective

TEACHERS = "resnet18"
STUDENTS = ("cnn", "resnetc32")
"""With two stages and more, here and where a small network stands for them: the head of a skeptical
student sits on an earlier stage than its output."""

TEMPERATURES = (1.0, 4.0, 20.0)
ALPHAS = (0.1, 0.5, 0.9)

BEST = "best"
"""Row of all thieves together, of which validation chooses."""

UNLABELLED = "best without labels"
"""Row of those among them that learn nothing but the teacher's answers: a thief that owns the true
labels loses little to any teacher, since it can learn from labels almost alone."""


def thieves(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """Students alone, both teachers, and each thief with both of them."""
    for seed in range(context.seeds):
        normal, nasty = context.normal(TEACHERS, seed), context.nasty(TEACHERS, seed)
        yield PlacedOrder(row="of normal", column=TEACHER, seed=seed, order=normal)
        yield PlacedOrder(row="of nasty", column=TEACHER, seed=seed, order=nasty, against=normal)
        for net in STUDENTS:
            yield from _students(context, net, seed, normal, nasty)


def _students(
    context: ExperimentContext, net: str, seed: int, normal: Order, nasty: Order
) -> Iterator[PlacedOrder]:
    column = context.column(net)
    alone, smoothed = (_chosen(context, net, objective, seed) for objective in (Normal(), SMOOTHED))
    yield PlacedOrder(row=ALONE, column=column, seed=seed, order=alone)
    yield PlacedOrder(row=ALONE_SMOOTHED, column=column, seed=seed, order=smoothed, against=alone)
    temperature, alpha = context.setting.loss[context.data].temperature, 0.9
    kinds: dict[str, Sequence[Objective]] = {
        "naive": [Distilled(temperature=temperature, alpha=alpha)],
        "labels": [Distilled(answers="labels")],
        "tuned": [Distilled(temperature=t, alpha=a) for t in TEMPERATURES for a in ALPHAS],
        "skeptical": [Skeptical(temperature=t) for t in TEMPERATURES],
    }
    unlabelled = [*kinds["labels"], *(Distilled(temperature=t, alpha=1.0) for t in TEMPERATURES)]
    every = [objective for each in (*kinds.values(), unlabelled) for objective in each]
    kinds |= {BEST: list(dict.fromkeys(every)), UNLABELLED: unlabelled}
    for thief, objectives in kinds.items():
        for kind, teacher in ((NORMAL, normal), (NASTY, nasty)):
            first, *others = (_chosen(context, net, o, seed, teacher) for o in objectives)
            like, *like_others = (_chosen(context, net, o, seed, normal) for o in objectives)
            yield PlacedOrder(
                row=f"{thief}, of {kind}",
                column=column,
                seed=seed,
                order=first,
                others=tuple(others),
                against=alone,
                like=like if kind == NASTY else None,
                like_others=tuple(like_others) if kind == NASTY else (),
            )


def _chosen(
    context: ExperimentContext,
    net: str,
    objective: Objective,
    seed: int,
    source: Order | None = None,
) -> Order:
    """A student that keeps its best epoch on a validation split."""
    order = context.order(net, objective, seed, source=source)
    return replace(order, training=replace(order.training, checkpoint="best-validation"))
