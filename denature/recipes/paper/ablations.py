"""The paper's ablations: each varies one hyperparameter and fixes all others."""

from collections.abc import Iterator, Mapping, Sequence

from denature.recipes.paper.orders import ExperimentContext, PlacedOrder
from denature.report.cells import TEACHER
from denature.train import Order

STUDENTS = ("cnn", "resnetc20", "resnetc32")
OMEGAS = (0, 0.004, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)
"""0.004 is the value in the paper's text as recalled, 0.04 the value in its code."""
TEMPERATURES = (1, 2, 4, 8, 12, 16, 20)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
FRACTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1)


def omega(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """The weight of the adversarial term in training the teacher; with 0 the teacher is normal."""
    for x in context.setting.sweeps.get("omega", OMEGAS):
        for seed in range(context.seeds):
            nasty, normal = (
                context.nasty("resnet18", seed, omega=x),
                context.normal("resnet18", seed),
            )
            yield PlacedOrder(
                row="nasty teacher", column=TEACHER, x=x, seed=seed, order=nasty, against=normal
            )
            for net in STUDENTS:
                yield PlacedOrder(
                    row="of nasty",
                    column=context.column(net),
                    x=x,
                    seed=seed,
                    order=context.student(net, nasty, seed),
                    against=context.alone(net, seed),
                    like=context.student(net, normal, seed) if x else None,
                )


def temperature(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """The distillation temperature tau_S in training the students."""
    return _student_sweep(context, "temperature", TEMPERATURES)


def alpha(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """The weight of the teacher's term in training the students."""
    return _student_sweep(context, "alpha", ALPHAS)


def _student_sweep(
    context: ExperimentContext, name: str, default: Sequence[float]
) -> Iterator[PlacedOrder]:
    """Students of both teachers, at each value of one hyperparameter of their loss."""
    for x in context.setting.sweeps.get(name, default):
        for seed in range(context.seeds):
            yield from _teachers(context, x, seed)
            for net in STUDENTS:
                yield from _both(context, net, x, seed, context.alone(net, seed), {name: x})


def samples(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """The share of the training samples that the thief has; teachers train on all samples."""
    # As floats: a fraction of 1.0, not 1, gives the same run as in other experiments.
    for x in map(float, context.setting.sweeps.get("samples", FRACTIONS)):
        for seed in range(context.seeds):
            yield from _teachers(context, 100 * x, seed)
            for net in STUDENTS:
                alone = context.alone(net, seed, fraction=x)
                yield PlacedOrder(
                    row="alone", column=context.column(net), x=100 * x, seed=seed, order=alone
                )
                yield from _both(context, net, 100 * x, seed, alone, {"fraction": x})


def _teachers(context: ExperimentContext, x: float, seed: int) -> Iterator[PlacedOrder]:
    """The normal and the nasty teacher, which are the same at every point."""
    normal, nasty = context.normal("resnet18", seed), context.nasty("resnet18", seed)
    yield PlacedOrder(row="normal", column=TEACHER, x=x, seed=seed, order=normal)
    yield PlacedOrder(row="nasty", column=TEACHER, x=x, seed=seed, order=nasty, against=normal)


def _both(
    context: ExperimentContext,
    net: str,
    x: float,
    seed: int,
    alone: Order,
    changes: Mapping[str, float],
) -> Iterator[PlacedOrder]:
    """A student of the normal teacher and a student of the nasty one."""
    of_normal, of_nasty = (
        context.student(net, teacher, seed, **changes)
        for teacher in (context.normal("resnet18", seed), context.nasty("resnet18", seed))
    )
    column = context.column(net)
    yield PlacedOrder(
        row="of normal", column=column, x=x, seed=seed, order=of_normal, against=alone
    )
    yield PlacedOrder(
        row="of nasty", column=column, x=x, seed=seed, order=of_nasty, against=alone, like=of_normal
    )
